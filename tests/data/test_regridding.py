"""Other grids: half a voxel around a voxel is that voxel's, and a grid at right angles holds all of a sheared one."""

from __future__ import annotations

import numpy as np
import pytest

from lossevo.data.geometry import LARGEST_SKEW, largest_distance_mm, skew, spacing_of, straightened
from lossevo.data.regridding import image_onto, label_onto, upright_grid

SHAPE = (9, 8, 7)
SIZES = (0.5, 2.0, 3.0)


def sheared(amount: float) -> np.ndarray:
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = turn @ (np.eye(3) + amount * np.eye(3, k=1)) * SIZES
    affine[:3, 3] = 10, -20, 30
    return affine


@pytest.mark.parametrize("amount", [0, 1e-3, 0.3])
def test_the_nearest_right_angles_keep_size_and_centre(amount):
    affine = sheared(amount)
    straight = straightened(affine, SHAPE)
    assert skew(straight) < 1e-12
    assert (skew(affine) > LARGEST_SKEW) == (amount > 0)
    assert spacing_of(straight) == pytest.approx(spacing_of(affine))
    centre = [*((size - 1) / 2 for size in SHAPE), 1]
    np.testing.assert_allclose(straight @ centre, affine @ centre)
    if not amount:
        assert largest_distance_mm(straight, affine, SHAPE) < 1e-9
    # No small turn of it is nearer.
    distance = np.linalg.norm((straight - affine)[:3, :3] / spacing_of(affine))
    for turned in (np.roll(np.diag([1e-3, 0, 0]), axis, 1) for axis in (1, 2)):
        turn = np.eye(3) + turned - turned.T
        other = np.linalg.qr(turn)[0] * np.sign(np.diag(np.linalg.qr(turn)[1])) @ straight[:3, :3]
        assert np.linalg.norm((other - affine[:3, :3]) / spacing_of(affine)) >= distance


def test_a_grid_at_right_angles_holds_every_voxel():
    label = np.arange(1, 1 + np.prod(SHAPE)).reshape(SHAPE)
    grid, shape = upright_grid(sheared(0.3), SHAPE)
    inside = (np.argwhere(label) @ (np.linalg.inv(grid) @ sheared(0.3))[:3, :3].T) + (
        np.linalg.inv(grid) @ sheared(0.3)
    )[:3, 3]
    assert (inside > -1e-6).all()
    assert (inside < np.array(shape) - 1 + 1e-6).all()


def test_half_a_voxel_around_a_voxel_is_that_voxel():
    finer = np.diag([0.25, 1, 1, 1])
    finer[0, 3] = -0.375
    found = label_onto(np.array([[[1]], [[2]]]), np.eye(4), finer, (8, 1, 1))
    assert found.ravel().tolist() == [1, 1, 1, 1, 2, 2, 2, 2]


def test_an_image_is_interpolated_and_its_smallest_value_lies_around():
    moved = np.eye(4)
    moved[0, 3] = -1.5
    found = image_onto(np.float32([[[5]], [[7]]]), np.eye(4), moved, (5, 1, 1))
    np.testing.assert_allclose(found.ravel(), [5, 5, 6, 6, 5])
    assert found.dtype == np.float32
