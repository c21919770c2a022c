"""The signed distance map against SciPy's exact Euclidean distance transform."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import distance_transform_edt

from lossevo.errors import LossevoError
from lossevo.losses import signed_distance_map


def scipy_signed_distance(masks, spacing_mm):
    distance = np.zeros(masks.shape)
    for index in np.ndindex(masks.shape[:2]):
        mask = masks[index]
        if mask.any() and not mask.all():
            distance[index] = distance_transform_edt(~mask, spacing_mm) - distance_transform_edt(mask, spacing_mm)
    return distance


@st.composite
def masks_and_spacing(draw):
    spatial = draw(hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=7))
    masks = draw(hnp.arrays(np.bool_, (draw(st.integers(1, 2)), draw(st.integers(1, 3)), *spatial)))
    spacing_mm = draw(st.tuples(*[st.floats(0.1, 10) for _ in spatial]))
    return masks, spacing_mm


@settings(max_examples=300, deadline=None)
@given(masks_and_spacing())
def test_equals_scipy_on_any_masks(case):
    masks, spacing_mm = case
    expected = scipy_signed_distance(masks, spacing_mm)
    distance = signed_distance_map(torch.from_numpy(masks).double(), spacing_mm)
    np.testing.assert_allclose(distance.numpy(), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("foreground", [0.5, 0.01, 0.0002], ids=["dense", "sparse", "very sparse"])
@pytest.mark.parametrize(
    ("spatial", "spacing_mm"),
    [((40, 33), (0.7, 3.0)), ((24, 30, 17), (1.0, 1.0, 1.0)), ((24, 30, 17), (4.0, 1.0, 0.3)), ((1, 40, 1), (2, 1, 3))],
)
def test_equals_scipy_on_volumes(spatial, spacing_mm, foreground):
    masks = np.random.default_rng(3).random((2, 2, *spatial)) < foreground
    expected = scipy_signed_distance(masks, spacing_mm)
    distance = signed_distance_map(torch.from_numpy(masks), spacing_mm)
    assert distance.dtype == torch.float32
    np.testing.assert_allclose(distance.numpy(), expected, rtol=1e-6, atol=0)


def test_a_slab_by_hand():
    mask = torch.zeros(1, 1, 1, 5)
    mask[..., 1:3] = 1
    expected = [2.0, -2.0, -2.0, 2.0, 4.0]
    assert signed_distance_map(mask, (1.0, 2.0)).flatten().tolist() == expected


def test_the_background_map_of_two_classes_is_the_negative_of_the_foreground_map():
    mask = torch.from_numpy(np.random.default_rng(0).random((2, 1, 9, 8, 7)) < 0.3)
    distance = signed_distance_map(torch.cat([~mask, mask], dim=1), (1.0, 2.0, 3.0))
    assert torch.equal(distance[:, 0], -distance[:, 1])


def test_absent_and_full_classes_are_zero_whatever_the_others_are():
    masks = torch.zeros(2, 3, 4, 4)
    masks[0, 0] = 1
    masks[1, 1, :2] = 1
    masks[1, 0, 2:] = 1
    distance = signed_distance_map(masks, (1.0, 1.0))
    assert not distance[0].any()
    assert not distance[1, 2].any()
    assert distance[1, :2].all()


def test_takes_no_gradient():
    masks = torch.rand(1, 2, 4, 4, requires_grad=True)
    assert not signed_distance_map(masks, (1.0, 1.0)).requires_grad


@pytest.mark.parametrize("spacing_mm", [(1.0,), (1.0, 1.0, 1.0), (1.0, 0.0), (1.0, float("nan"))])
def test_a_spacing_that_does_not_fit_is_refused(spacing_mm):
    with pytest.raises(LossevoError, match="one distance > 0 per axis"):
        signed_distance_map(torch.zeros(1, 1, 4, 4), spacing_mm)
