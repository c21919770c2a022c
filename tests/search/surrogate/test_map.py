from __future__ import annotations

import numpy as np
import pytest

from lossevo.search.surrogate.map import SearchMap, plane


def squared(points: np.ndarray) -> np.ndarray:
    return np.square(points[:, None] - points[None]).sum(axis=2)


def test_what_lies_in_a_plane_keeps_its_distances():
    points = np.random.default_rng(0).standard_normal((30, 2)) @ np.random.default_rng(1).standard_normal((2, 9))
    coordinates, shown = plane(squared(points))
    np.testing.assert_allclose(squared(coordinates), squared(points), atol=1e-4)
    np.testing.assert_allclose(coordinates.mean(axis=0), 0, atol=1e-6)
    assert shown == pytest.approx(1)
    assert coordinates[:, 0].std() >= coordinates[:, 1].std()


def test_what_does_not_is_told():
    points = np.random.default_rng(0).standard_normal((60, 10))
    assert 0.2 < plane(squared(points))[1] < 0.6


def test_each_axis_has_its_farthest_point_on_the_positive_side():
    coordinates, _ = plane(squared(np.random.default_rng(3).standard_normal((20, 4))))
    for axis in coordinates.T:
        assert axis[np.abs(axis).argmax()] > 0


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_losses_or_equal_ones_are_no_trouble(count):
    coordinates, shown = plane(np.zeros((count, count)))
    assert coordinates.shape == (count, 2)
    assert not coordinates.any()
    assert shown == 1


def test_a_map_has_a_place_and_a_score_for_each_loss():
    points = np.random.default_rng(0).standard_normal((4, 3))
    drawn = SearchMap.of(["a", "", "c", ""], squared(points), [0.1, 0.2, 0.3, 0.4])
    assert drawn.names == ("a", "", "c", "")
    assert drawn.scores.tolist() == [0.1, 0.2, 0.3, 0.4]
    assert drawn.x.shape == drawn.y.shape == (4,)
