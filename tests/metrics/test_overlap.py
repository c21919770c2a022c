from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.metrics.meandice import compute_dice

from lossevo.metrics import dice_per_class
from lossevo.training.reference import voxels_in


def test_dice_computed_by_hand():
    prediction = np.array([[0, 1, 1, 2], [0, 0, 2, 2]], np.uint8)
    label = np.array([[0, 1, 2, 2], [1, 0, 2, 0]], np.uint8)

    # class 1: 1 voxel in common, 2 predicted, 2 labelled; class 2: 2 in common, 3 predicted, 3 labelled
    assert dice_per_class(prediction, label, 3) == (2 * 1 / 4, 2 * 2 / 6)


def test_the_reference_alone_decides_whether_there_is_a_dice():
    nothing, something = np.zeros(4, np.uint8), np.array([0, 0, 1, 1], np.uint8)

    assert dice_per_class(nothing, nothing, 2) == dice_per_class(something, nothing, 2) == (None,)
    assert dice_per_class(nothing, something, 2) == (0.0,)


@given(seed=st.integers(0, 2**16), classes=st.integers(2, 4))
def test_each_class_of_the_label_has_a_dice_whatever_is_predicted(seed: int, classes: int):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, size=rng.integers(1, 4), dtype=np.uint8)
    for _ in range(3):
        prediction = rng.integers(0, classes, size=label.shape, dtype=np.uint8)
        dice = dice_per_class(prediction, label, classes)
        assert [value is not None for value in dice] == [value in voxels_in(label) for value in range(1, classes)]


@given(seed=st.integers(0, 2**16), classes=st.integers(2, 5))
def test_dice_equals_monai(seed: int, classes: int):
    rng = np.random.default_rng(seed)
    prediction, label = rng.integers(0, classes, size=(2, 4, 5, 6), dtype=np.uint8)

    def one_hot(array):
        return torch.nn.functional.one_hot(torch.from_numpy(array).long(), classes).movedim(-1, 0)[None]

    expected = compute_dice(one_hot(prediction), one_hot(label), include_background=False)[0]
    assert {*voxels_in(label)} == {*range(1, classes)}
    np.testing.assert_allclose(dice_per_class(prediction, label, classes), expected, rtol=1e-6)


@pytest.mark.parametrize(("prediction", "label"), [([0, 3], [0, 1]), ([0, 1], [0, 3]), ([0, 1], [0, 1, 1])])
def test_labels_out_of_range_and_differing_shapes_are_refused(prediction: list[int], label: list[int]):
    with pytest.raises(ValueError, match=r"reach 3|shape"):
        dice_per_class(np.array(prediction, np.uint8), np.array(label, np.uint8), 2)
