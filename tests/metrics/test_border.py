"""Predictions that the border cuts off."""

from __future__ import annotations

import numpy as np
import pytest

from lossevo.metrics import evaluate, measure
from lossevo.metrics.border import is_cut_off

FIELD = (slice(0, 6), slice(0, 8))
INNER = (slice(2, 4), slice(3, 5))


def box(x: tuple[int, int], y: tuple[int, int]) -> tuple[slice, slice]:
    return slice(*x), slice(*y)


@pytest.mark.parametrize(
    ("prediction", "reference", "is_cut"),
    [
        (INNER, INNER, False),
        (box((0, 4), (3, 5)), INNER, True),
        (box((2, 6), (3, 5)), INNER, True),
        (box((2, 4), (0, 5)), INNER, True),
        (box((2, 4), (3, 8)), INNER, True),
        (box((1, 5), (1, 7)), INNER, False),
        (box((0, 4), (3, 5)), box((0, 3), (3, 5)), False),  # the image ends within the structure
        (box((0, 6), (3, 5)), box((0, 3), (3, 5)), True),  # and at the other end it does not
        (INNER, box((0, 6), (0, 8)), False),
        (None, INNER, False),
        (box((0, 6), (0, 8)), None, False),
    ],
)
def test_a_face_that_the_prediction_alone_reaches(prediction, reference, is_cut):
    assert is_cut_off(prediction, reference, FIELD) is is_cut


def test_an_axis_of_one_voxel_cuts_nothing_off():
    assert not is_cut_off(box((0, 1), (2, 3)), box((0, 1), (3, 4)), (slice(0, 1), slice(0, 8)))


def test_the_field_may_be_a_part_of_the_image():
    field = box((1, 5), (1, 7))
    assert is_cut_off(box((1, 4), (3, 5)), INNER, field)
    assert is_cut_off(box((2, 4), (3, 7)), INNER, field)
    assert not is_cut_off(box((1, 4), (3, 5)), box((1, 4), (3, 5)), field)
    assert not is_cut_off(box((1, 4), (3, 5)), box((0, 4), (3, 5)), field)  # the label goes on beyond
    assert not is_cut_off(box((2, 4), (3, 5)), INNER, field)


def test_each_class_alone_and_no_value_depends_on_it():
    reference = np.zeros((6, 8), np.uint8)
    reference[2:4, 1:3], reference[2:4, 5:7] = 1, 2
    prediction = reference.copy()
    prediction[4:6, 1:3] = 1  # to the border
    prediction[5, 7] = 3  # a false alarm in the corner
    found = measure(prediction, reference, (1, 2), "dice,hd95", classes=[1, 2, 3, 4])
    assert [result.cut_off for result in found.values()] == [True, False, False, False]
    assert evaluate(prediction, reference, (1, 2), "dice,hd95", [1, 2, 3, 4]) == {
        name: result.values for name, result in found.items()
    }
    inner = measure(prediction, reference, (1, 2), "dice", classes=[1, 2], field=box((0, 6), (1, 7)))
    assert [result.cut_off for result in inner.values()] == [True, False]
    assert not measure(prediction[:5], reference[:5], (1, 2), "dice", classes=[1], field=box((0, 6), (0, 8)))[1].cut_off
