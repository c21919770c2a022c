from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.metrics import compute_hausdorff_distance

import lossevo
from lossevo.errors import LossevoError
from lossevo.metrics import (
    ClassResult,
    MetricWarning,
    dice_per_class,
    evaluate,
    false_alarms,
    mean_over_cases,
    measure,
    parse_metrics,
    surface_distances,
    worst_values,
)
from tests.metrics.masks import false_voxels
from tests.metrics.test_metric import every_kind

SPACING = (1.0, 2.0, 5.0)  # a voxel is 0.01 ml
DIAGONAL = float(np.hypot(np.hypot(10 * 1, 10 * 2), 4 * 5))


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Class 1 in both, 2 in the reference alone, 3 in the prediction alone."""
    prediction, reference = np.zeros((2, 10, 10, 4), np.uint8)
    reference[1:5, 1:5, 1:3] = 1
    prediction[2:6, 1:5, 1:3] = 1
    reference[7:9, 7:9, 0] = 2
    prediction[8:, 0:2, :] = 3
    return prediction, reference


def random_labels(seed: int, shape: tuple[int, ...] = (6, 5, 4), classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    pair = np.random.default_rng(seed).integers(0, classes, (2, *shape), dtype=np.uint8)
    return pair[0], pair[1]


def test_every_metric_of_a_class_that_both_have():
    prediction, reference = scene()
    found = evaluate(prediction, reference, SPACING, every_kind())
    distances = surface_distances(prediction == 1, reference == 1, SPACING)
    assert found[1] == pytest.approx(
        {
            "dice": 2 * 24 / (32 + 32),
            "nsd@2mm": 1.0,
            "hd95": 1.0,
            "hd": 1.0,
            "assd": distances.assd(),
            "volume_error": 0.0,
            "volume_error_percent": 0.0,
            "detection": 1.0,
        }
    )


def test_volume_errors_are_in_ml_and_percent_of_the_reference():
    reference, prediction = np.zeros((2, 10, 10, 4), int)
    reference[:4, 0, 0], prediction[:9, 0, 0] = 1, 1
    found = evaluate(prediction, reference, SPACING, "volume_error,volume_error_percent")[1]
    assert found == pytest.approx({"volume_error": 5 * 0.01, "volume_error_percent": 125.0})
    swapped = evaluate(reference, prediction, SPACING, "volume_error,volume_error_percent")[1]
    assert swapped == pytest.approx({"volume_error": 5 * 0.01, "volume_error_percent": 100 * 5 / 9})


@pytest.mark.parametrize(("common", "predicted", "detected"), [(1, 1, 1.0), (1, 2, 0.0), (2, 12, 1.0), (0, 5, 0.0)])
def test_a_structure_is_detected_from_an_intersection_over_union_of_a_tenth(
    common: int, predicted: int, detected: float
):
    # 10 voxels in the reference: IoU 1/10, 1/11, 2/20, 0
    reference, prediction = np.zeros((2, 40, 1), np.uint8)
    reference[:10] = 1
    prediction[10 - common : 10 - common + predicted] = 1
    assert evaluate(prediction, reference, (1, 1), ["detection"])[1]["detection"] == detected


def test_a_class_that_the_prediction_lacks_has_the_worst_value():
    found = evaluate(*scene(), SPACING, every_kind())
    assert found[2] == pytest.approx(
        {
            "dice": 0,
            "nsd@2mm": 0,
            "hd95": DIAGONAL,
            "hd": DIAGONAL,
            "assd": DIAGONAL,
            "volume_error": 0.04,
            "volume_error_percent": 100,
            "detection": 0,
        }
    )
    # MONAI has no finite value there.
    empty, full = torch.zeros(1, 1, 5, 5), torch.ones(1, 1, 5, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert not compute_hausdorff_distance(empty, full, include_background=True, percentile=95).isfinite().any()


def test_a_class_that_the_reference_lacks_has_no_value_and_counts_as_a_false_alarm():
    prediction, reference = scene()
    found = measure(prediction, reference, SPACING, every_kind(), classes=[1, 2, 3, 4])
    nothing = dict.fromkeys(every_kind())
    assert found[3] == ClassResult(nothing, 16, pytest.approx(0.16))
    assert found[4] == ClassResult(nothing, 0, 0.0)
    assert found[1].false_voxels is found[1].false_ml is found[2].false_voxels is None
    assert false_alarms(prediction, reference, SPACING) == {3: {"voxels": 16, "ml": pytest.approx(0.16)}}
    assert false_alarms(prediction, reference, SPACING, [4]) == {4: {"voxels": 0, "ml": 0}}


def test_a_failed_training_scores_what_a_prediction_of_nothing_scores():
    _, reference = scene()
    nothing = np.zeros_like(reference)
    assert worst_values(reference, SPACING, every_kind(), [1, 2, 3]) == evaluate(
        nothing, reference, SPACING, every_kind(), [1, 2, 3]
    )
    assert worst_values(reference, SPACING, ["hd95"], [1, 3]) == {
        1: {"hd95": pytest.approx(DIAGONAL)},
        3: {"hd95": None},
    }


@given(seed=st.integers(0, 2**16))
def test_dice_and_false_voxels_are_those_of_a_search(seed: int):
    prediction, reference = random_labels(seed, shape=(2, 3), classes=5)
    found = measure(prediction, reference, (1, 1), ["dice"], range(1, 5))
    assert [result.values["dice"] for result in found.values()] == pytest.approx(
        dice_per_class(prediction, reference, 5)
    )
    assert tuple(result.false_voxels for result in found.values()) == false_voxels(prediction, reference, 5)


@given(seed=st.integers(0, 2**16))
def test_boxes_around_classes_lose_nothing(seed: int):
    prediction, reference = random_labels(seed, classes=3)
    prediction, reference = (np.where(np.arange(4) > seed % 3, label, 0) for label in (prediction, reference))
    for label, of_class in evaluate(prediction, reference, SPACING, "hd,hd95,assd,nsd@2.5mm").items():
        whole = surface_distances(prediction == label, reference == label, SPACING)
        expected = {"hd": whole.hd(), "hd95": whole.hd95(), "assd": whole.assd(), "nsd@2.5mm": whole.nsd(2.5)}
        assert of_class == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", ">i2", "uint16", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_integer_type_and_order_gives_the_same(kind: str, order: str):
    pair = random_labels(3)
    expected = evaluate(*pair, SPACING, every_kind())
    cast = [np.asarray(array, dtype=kind, order=order) for array in pair]
    assert evaluate(*cast, SPACING, every_kind()) == expected
    assert evaluate(cast[0], pair[1], SPACING, every_kind()) == expected
    for array in cast:
        array.flags.writeable = False
    assert evaluate(cast[0][::-1], cast[1][::-1], SPACING, every_kind())[1] == pytest.approx(expected[1], rel=1e-6)


def test_booleans_lists_and_images_with_two_axes():
    prediction, reference = [[False, True, True]], [[False, True, False]]
    found = evaluate(prediction, reference, (1.0, 1.0), ["dice", "hd"])
    assert found == {1: {"dice": pytest.approx(2 / 3), "hd": 1.0}}
    assert evaluate(np.array(prediction).T, np.array(reference).T, (1.0, 1.0), ["dice", "hd"]) == found


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (None, [1, 2, 3]),
        ([2, 1], [2, 1]),
        (range(1, 5), [1, 2, 3, 4]),
        (np.array([1, 3]), [1, 3]),
        (["L1", "L2"], ["L1", "L2"]),
        ({"lowest": 2, "other": 1}, ["lowest", "other"]),
    ],
)
def test_classes_and_their_names(classes: object, names: list[object]):
    found = evaluate(*scene(), SPACING, ["dice"], classes)
    assert list(found) == names
    labels = classes if isinstance(classes, Mapping) else {"L1": 1, "L2": 2}
    for name, values in found.items():
        assert values["dice"] == {1: 0.75, 2: 0.0}.get(labels.get(name, name))


def test_without_classes_there_is_no_row():
    assert evaluate(np.zeros((3, 3), int), np.zeros((3, 3), int), (1, 1), ["dice", "hd95"]) == {}


ONE = np.ones((2, 2), np.uint8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ONE, np.ones((2, 3), int), (1, 1), ["dice"]), r"prediction has shape \(2, 2\), reference \(2, 3\)"),
        ((ONE * 1.0, ONE, (1, 1), ["dice"]), "prediction has type float64, expected integer labels"),
        ((ONE, ONE * 1j, (1, 1), ["dice"]), "reference has type complex128"),
        ((ONE, [["a", "b"]], (1, 1), ["dice"]), "reference has type <U1"),
        ((ONE, [[1, 2], [3]], (1, 1), ["dice"]), "reference is no array"),
        ((ONE, -ONE.astype(int), (1, 1), ["dice"]), "reference has label -1, expected labels from 0"),
        ((ONE * np.uint32(65_536), ONE, (1, 1), ["dice"]), "prediction has label 65536"),
        ((ONE, ONE, (1, 1, 1), ["dice"]), "expected 2 distances, one per axis"),
        ((ONE, ONE, (1, 0), ["dice"]), "above 0"),
        ((ONE, ONE, (1, np.nan), ["dice"]), "above 0"),
        ((ONE[0], ONE[0], (1,), ["dice"]), "expected 2 or 3 axes"),
        ((ONE[:0], ONE[:0], (1, 1), ["dice"]), "no voxel"),
        ((ONE, ONE, (1, 1), ["nsd"]), "needs a tolerance"),
        ((ONE, ONE, (1, 1), []), "no metric"),
        ((ONE, ONE, (1, 1), ["dice"], [0]), "class 0 has label 0, expected an integer above 0"),
        ((ONE, ONE, (1, 1), ["dice"], [1.5]), "has label 1.5"),
        ((ONE, ONE, (1, 1), ["dice"], [True]), "has label True"),
        ((ONE, ONE, (1, 1), ["dice"], {"a": "b"}), "class 'a' has label 'b'"),
        ((ONE, ONE, (1, 1), ["dice"], [1, 1]), "given twice"),
        ((ONE, ONE, (1, 1), ["dice"], {"a": 1, "b": 1}), r"class 'b' \(label 1\) is given twice"),
        ((ONE, ONE, (1, 1), ["dice"], ["a", "a"]), "given twice"),
        ((ONE, ONE, (1, 1), ["dice"], []), "classes is empty"),
        ((ONE, ONE, (1, 1), ["dice"], "L1"), "expected a list"),
    ],
)
def test_arguments_that_are_refused(arguments: tuple[object, ...], message: str):
    with pytest.raises(LossevoError, match=message):
        evaluate(*arguments)


def test_a_tolerance_that_the_voxels_cannot_show_is_warned_of_once():
    prediction, reference = random_labels(0)
    with pytest.warns(MetricWarning, match=r"nsd@0.1mm, nsd@0.2mm is below a quarter") as caught:
        evaluate(prediction, reference, SPACING, ["nsd@0.1mm", "nsd@0.2mm", "nsd@2mm"])
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_means_are_over_classes_then_cases_and_skip_the_undefined():
    assert mean_over_cases([(1.0, 0.5), (None, 0.25), (None, None)]) == pytest.approx((0.75 + 0.25) / 2)
    with pytest.raises(ValueError, match="no case has a labelled foreground class"):
        mean_over_cases([(None, None)])


def test_arguments_stay_as_they_were():
    prediction, reference = scene()
    copies = prediction.copy(), reference.copy()
    evaluate(prediction, reference, SPACING, parse_metrics(every_kind()))
    np.testing.assert_array_equal((prediction, reference), copies)


def test_neither_torch_nor_monai_is_imported():
    program = (
        "import sys, lossevo; lossevo.metrics.evaluate([[1]], [[1]], (1, 1), 'dice,hd95');"
        "print(sorted({'torch', 'monai', 'ray', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert lossevo.metrics.evaluate is evaluate
