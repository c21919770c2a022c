"""The signed distance map, by edt and in plain torch, against SciPy's exact Euclidean distance transform."""

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
from lossevo.losses.signed_distance import signed_distance_in_torch

both = pytest.mark.parametrize("measure", [signed_distance_map, signed_distance_in_torch], ids=["edt", "torch"])


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


@settings(max_examples=300)
@given(masks_and_spacing())
def test_equals_scipy_on_any_masks(case):
    masks, spacing_mm = case
    expected = scipy_signed_distance(masks, spacing_mm)
    distance = signed_distance_map(torch.from_numpy(masks).double(), spacing_mm)
    np.testing.assert_allclose(distance.numpy(), expected, rtol=1e-12, atol=0)
    for measure in (signed_distance_map, signed_distance_in_torch):
        single = measure(torch.from_numpy(masks), spacing_mm)
        assert single.dtype == torch.float32
        np.testing.assert_allclose(single.numpy(), expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize("foreground", [0.5, 0.01, 0.0002], ids=["dense", "sparse", "very sparse"])
@pytest.mark.parametrize(
    ("spatial", "spacing_mm"),
    [((40, 33), (0.7, 3.0)), ((24, 30, 17), (1.0, 1.0, 1.0)), ((24, 30, 17), (4.0, 1.0, 0.3)), ((1, 40, 1), (2, 1, 3))],
)
@both
def test_equals_scipy_on_volumes(measure, spatial, spacing_mm, foreground):
    masks = np.random.default_rng(3).random((2, 2, *spatial)) < foreground
    expected = scipy_signed_distance(masks, spacing_mm)
    distance = measure(torch.from_numpy(masks), spacing_mm)
    assert distance.dtype == torch.float32
    np.testing.assert_allclose(distance.numpy(), expected, rtol=1e-6, atol=0)


@both
def test_a_slab_by_hand(measure):
    mask = torch.zeros(1, 1, 1, 5)
    mask[..., 1:3] = 1
    expected = [2.0, -2.0, -2.0, 2.0, 4.0]
    assert measure(mask, (1.0, 2.0)).flatten().tolist() == expected


def test_the_background_map_of_two_classes_is_the_negative_of_the_foreground_map():
    mask = torch.from_numpy(np.random.default_rng(0).random((2, 1, 9, 8, 7)) < 0.3)
    distance = signed_distance_map(torch.cat([~mask, mask], dim=1), (1.0, 2.0, 3.0))
    assert torch.equal(distance[:, 0], -distance[:, 1])


@both
def test_absent_and_full_classes_are_zero_whatever_the_others_are(measure):
    masks = torch.zeros(2, 3, 4, 4)
    masks[0, 0] = 1
    masks[1, 1, :2] = 1
    masks[1, 0, 2:] = 1
    distance = measure(masks, (1.0, 1.0))
    assert not distance[0].any()
    assert not distance[1, 2].any()
    assert distance[1, :2].all()


def test_masks_of_any_memory_layout_and_kind_are_measured_alike():
    masks = torch.from_numpy(np.random.default_rng(1).random((2, 3, 6, 7, 5)) < 0.2)
    expected = signed_distance_map(masks, (1.0, 2.0, 3.0))
    layouts = [
        masks.contiguous(memory_format=torch.channels_last_3d),
        masks.transpose(2, 4).contiguous().transpose(2, 4),
    ]
    kinds = [masks.float(), masks.half(), masks.byte(), 0.3 + 0.2 * masks.float()]
    for same in (*layouts, *kinds, torch.cat([masks, masks], dim=1)[:, 3:]):
        assert torch.equal(signed_distance_map(same, (1.0, 2.0, 3.0)), expected)


def test_is_one_operator_to_compilers_and_function_transforms():
    masks = torch.from_numpy(np.random.default_rng(1).random((2, 3, 6, 7)) < 0.2).float()
    expected = signed_distance_map(masks, (1.0, 2.0))
    torch.library.opcheck(torch.ops.lossevo.signed_distance.default, (masks, [1.0, 2.0]))
    compiled = torch.compile(signed_distance_map, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(masks, (1.0, 2.0)), expected)
    gradient = torch.func.grad(lambda x: (x * signed_distance_map(x, (1.0, 2.0))).sum())(masks)
    assert torch.equal(gradient, expected)


def test_takes_no_gradient():
    masks = torch.rand(1, 2, 4, 4, requires_grad=True)
    assert not signed_distance_map(masks, (1.0, 1.0)).requires_grad


@pytest.mark.parametrize("spacing_mm", [(1.0,), (1.0, 1.0, 1.0), (1.0, 0.0), (1.0, float("nan"))])
def test_a_spacing_that_does_not_fit_is_refused(spacing_mm):
    with pytest.raises(LossevoError, match="one distance > 0 per axis"):
        signed_distance_map(torch.zeros(1, 1, 4, 4), spacing_mm)
