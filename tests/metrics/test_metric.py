from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossevo.errors import LossevoError
from lossevo.metrics import KINDS, FieldOfView, fine_tolerances, parse_metric, parse_metrics

VIEW = FieldOfView((30, 40, 120), (1.0, 1.0, 1.0))  # diagonal 130 mm


def every_kind() -> list[str]:
    return [f"{kind}@2mm" if kind == "nsd" else kind for kind in KINDS]


@pytest.mark.parametrize(
    ("name", "unit", "direction", "worst"),
    [
        ("dice", "", "higher", 0),
        ("nsd@2mm", "", "higher", 0),
        ("detection", "", "higher", 0),
        ("hd95", "mm", "lower", 130),
        ("hd", "mm", "lower", 130),
        ("assd", "mm", "lower", 130),
        ("volume_error", "ml", "lower", 7.5),
        ("volume_error_percent", "%", "lower", 100),
    ],
)
def test_what_each_metric_is(name: str, unit: str, direction: str, worst: float):
    metric = parse_metric(name)
    assert (metric.name, metric.unit, metric.direction) == (name, unit, direction)
    assert metric.worst_value(VIEW, reference_ml=7.5) == pytest.approx(worst)
    assert metric.is_bounded is not name.startswith("volume_error")
    assert metric.definition


def test_the_list_above_holds_every_kind():
    assert {parse_metric(name).kind for name in every_kind()} == set(KINDS)
    assert len(KINDS) == 8


@pytest.mark.parametrize(
    ("given_name", "name", "tolerance"),
    [
        ("nsd@1.5mm", "nsd@1.5mm", 1.5),
        ("nsd@1.50mm", "nsd@1.5mm", 1.5),
        (" nsd@ 2 mm ", "nsd@2mm", 2),
        ("nsd@.5mm", "nsd@0.5mm", 0.5),
        ("nsd@0.001mm", "nsd@0.001mm", 0.001),
        ("nsd@1000mm", "nsd@1000mm", 1000),
    ],
)
def test_equal_tolerances_have_equal_names(given_name: str, name: str, tolerance: float):
    metric = parse_metric(given_name)
    assert (metric.name, metric.tolerance_mm) == (name, tolerance)
    assert f"within {tolerance:g} mm" in metric.definition
    assert parse_metric(metric.name) == metric


@given(st.floats(0.001, 1000))
def test_a_name_is_parsed_to_the_metric_that_has_it(tolerance: float):
    metric = parse_metric(f"nsd@{tolerance:.12f}mm")
    assert metric.tolerance_mm == pytest.approx(tolerance, rel=1e-8)
    assert parse_metric(metric.name).name == metric.name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Dice", r"unknown metric 'Dice' \(did you mean 'dice'\?\); expected one of dice, "),
        ("HD95", "did you mean 'hd95'"),
        ("NSD@2mm", "did you mean 'nsd@2mm'"),
        ("nsd2mm", "did you mean 'nsd@2mm'"),
        ("__import__('os')", "unknown metric"),
        ("x" * 10_000, "unknown metric 'xxx"),
        ("", "unknown metric ''"),
        ("nsd", "needs a tolerance in mm, as in 'nsd@2mm'"),
        ("nsd@", "'' is no tolerance in mm"),
        ("nsd@mm", "'mm' is no tolerance in mm"),
        ("nsd@2", "has no unit; write 'nsd@2mm'"),
        ("nsd@2cm", "'2cm' is no tolerance in mm"),
        ("nsd@1_0mm", "'1_0mm' is no tolerance in mm"),
        ("nsd@٢mm", "is no tolerance in mm"),
        ("nsd@1e3mm", "is no tolerance in mm"),
        ("nsd@2mm@3mm", "is no tolerance in mm"),
        ("nsd@0mm", "the tolerance is '0', expected a number from 0.001 to 1000 mm"),
        ("nsd@-2mm", "the tolerance is '-2', expected"),
        ("nsd@nanmm", "the tolerance is 'nan', expected"),
        ("nsd@infmm", "the tolerance is 'inf', expected"),
        ("nsd@1000.1mm", "the tolerance is '1000.1', expected"),
        ("nsd@0.0009mm", "the tolerance is '0.0009', expected"),
        ("hd95@2mm", "hd95 takes no tolerance; write 'hd95'"),
        ("dice@", "dice takes no tolerance"),
    ],
)
def test_names_that_are_no_metric(name: str, message: str):
    with pytest.raises(LossevoError, match=message) as refusal:
        parse_metric(name)
    assert len(str(refusal.value)) < 300
    assert "\n" not in str(refusal.value)


def test_several_metrics():
    names = ["dice", "nsd@2mm", "hd95"]
    assert [metric.name for metric in parse_metrics("dice, nsd@2mm,hd95")] == names
    assert parse_metrics(names) == parse_metrics([parse_metric("dice"), "nsd@2.0mm", "hd95"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("nsd@2mm,nsd@2.0mm", "'nsd@2mm' is given twice"),
        ([], "no metric is given"),
        ("", "unknown metric ''"),
        ("dice,", "unknown metric ''"),
        ([2], "metric 2 is no name"),
    ],
)
def test_lists_that_are_refused(names: object, message: str):
    with pytest.raises(LossevoError, match=message):
        parse_metrics(names)


def test_a_tolerance_below_a_quarter_of_the_smallest_side_is_warned_of():
    metrics = parse_metrics("dice,nsd@0.24mm,nsd@0.1mm,nsd@0.25mm,nsd@2mm")
    warning = fine_tolerances(metrics, (4.0, 1.0, 2.0))
    assert warning is not None
    assert "nsd@0.24mm, nsd@0.1mm is below a quarter of the voxel size (1 mm)" in warning
    assert fine_tolerances(metrics, (4.0, 0.4, 2.0)) is None


@pytest.mark.parametrize(
    ("shape", "spacing", "message"),
    [
        ((4, 4), (1.0, 1.0, 1.0), "expected 2 distances, one per axis"),
        ((4, 4, 4), (1.0, 1.0), "expected 3 distances, one per axis"),
        ((4, 4, 4), (1.0, 0.0, 1.0), "above 0"),
        ((4, 4, 4), (1.0, -1.0, 1.0), "above 0"),
        ((4, 4, 4), (1.0, math.nan, 1.0), "above 0"),
        ((4, 4, 4), (1.0, math.inf, 1.0), "above 0"),
        ((4, 4, 4), ("x", 1.0, 1.0), "expected one number of mm per axis"),
        ((4, 4, 4), 1.0, "expected one number of mm per axis"),
        ((4, 4, 4), None, "expected one number of mm per axis"),
        ((4,), (1.0,), "expected 2 or 3 axes"),
        ((1, 4, 4, 4), (1.0,) * 4, "expected 2 or 3 axes"),
        ((4, 0, 4), (1.0,) * 3, "no voxel"),
    ],
)
def test_images_that_have_no_field_of_view(shape: tuple[int, ...], spacing: object, message: str):
    with pytest.raises(LossevoError, match=message):
        FieldOfView.of(shape, spacing)


def test_extent_of_an_image():
    assert FieldOfView((3, 4), (2.0, 2.0)).diagonal_mm == pytest.approx(10)
    assert VIEW.diagonal_mm == pytest.approx(130)
    assert FieldOfView((9, 9, 9), (1.0, 2.0, 3.0)).voxel_ml == pytest.approx(0.006)


@pytest.mark.parametrize(
    ("name", "heading", "rope"),
    [
        ("dice", "Dice", 0.005),
        ("nsd@1.5mm", "NSD@1.5mm", 0.005),
        ("detection", "detection", 0.005),
        ("hd95", "HD95 (mm)", 0.5),
        ("hd", "HD (mm)", 0.5),
        ("assd", "ASSD (mm)", 0.5),
        ("volume_error", "volume error (ml)", 0.1),
        ("volume_error_percent", "relative volume error (%)", 1.0),
    ],
)
def test_how_a_column_names_it_and_what_difference_matters(name, heading, rope):
    metric = parse_metric(name)
    assert (metric.heading, metric.rope) == (heading, rope)


def test_every_kind_has_a_label_and_a_rope():
    for metric in parse_metrics(every_kind()):
        assert metric.label
        assert metric.rope > 0
