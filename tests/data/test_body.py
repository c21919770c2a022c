from __future__ import annotations

import numpy as np
import pytest

from lossevo.data.body import MARGIN_MM, body_box, body_mask, li_threshold

SPACING_MM = (4.0, 1.0, 2.0)
SHAPE = (20, 120, 60)


def scene(*, air: float = 5.0, seed: int = 0, shade: float = 0.0):
    """A patient (an elliptic cylinder along Z, 40 mm wide, 60 mm deep) in noise; a bright marker lies apart."""
    rng = np.random.default_rng(seed)
    x, y, _ = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * s for n, s in zip(SHAPE, SPACING_MM, strict=True)), indexing="ij"
    )
    inside = (x / 20) ** 2 + (y / 30) ** 2 <= 1
    tissue = rng.choice([60.0, 120.0, 200.0], size=SHAPE) * np.exp(-shade * y / 30)
    image = np.where(inside, tissue, air) + rng.normal(0, 4, SHAPE)
    image[0, 0, :] = 400
    return image[None].astype(np.float32), inside


@pytest.mark.parametrize("air", [0.0, 5.0, 35.0])
@pytest.mark.parametrize("shade", [0.0, 0.5])
def test_the_patient_is_found_whatever_the_air_and_the_coil(air: float, shade: float):
    image, inside = scene(air=air, shade=shade)
    mask = body_mask(image)
    assert (mask & inside).sum() / (mask | inside).sum() > 0.7
    assert not mask[0, 0].any()


def test_channels_of_any_scale_count_alike():
    image, inside = scene()
    faint = np.concatenate([image * 1e-3, image * 1e3 - 7e4])
    mask = body_mask(faint)
    assert (mask & inside).sum() / (mask | inside).sum() > 0.8


def test_li_s_threshold_is_its_fixed_point_between_the_means():
    signal = scene()[0][0]
    signal -= signal.min()
    threshold = li_threshold(signal)
    low, high = signal[signal <= threshold].mean(), signal[signal > threshold].mean()
    assert threshold == pytest.approx((high - low) / np.log(high / low), rel=1e-3)


def test_an_image_of_one_value_or_two():
    assert body_mask(np.full((1, 3, 4, 5), 7.0, np.float32)).all()
    two = np.zeros((1, 6, 6, 6), np.float32)
    two[0, 1:5, 1:5, 1:5] = 1
    np.testing.assert_array_equal(body_mask(two), two[0] > 0)


def test_the_box_holds_the_body_and_a_margin():
    image, inside = scene()
    box = body_box(image, np.zeros(SHAPE, np.uint8), SPACING_MM)
    spans = [np.flatnonzero(inside.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    for side, span, size, side_mm in zip(box, spans, SHAPE, SPACING_MM, strict=True):
        slack = 4 / side_mm + 1  # found on a grid of 4 mm
        assert side.start == pytest.approx(max(0, span[0] - MARGIN_MM / side_mm), abs=slack)
        assert side.stop == pytest.approx(min(size, span[-1] + 1 + MARGIN_MM / side_mm), abs=slack)


@pytest.mark.parametrize("seed", range(8))
def test_the_box_never_cuts_a_label_off(seed: int):
    rng = np.random.default_rng(seed)
    image, _ = scene(seed=seed)
    label = np.zeros(SHAPE, np.uint8)
    for corner in rng.integers(0, SHAPE, (3, 3)):
        label[tuple(corner)] = rng.integers(1, 4)
    box = body_box(image, label, SPACING_MM)
    assert np.count_nonzero(label[box]) == np.count_nonzero(label)
    assert all(0 <= side.start < side.stop <= size for side, size in zip(box, SHAPE, strict=True))
