from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossevo.errors import LossevoError
from lossevo.metrics import FieldOfView, Objective, parse_metric

VIEW = FieldOfView((3, 4), (10.0, 10.0))  # diagonal 50 mm
VALUES = {"dice": 0.8, "nsd@2mm": 0.9, "hd95": 6.0}


@pytest.mark.parametrize(
    ("text", "name", "unit", "direction", "utility", "worst"),
    [
        ("dice", "dice", "", "higher", 0.8, 0),
        ("nsd@2.0mm", "nsd@2mm", "", "higher", 0.9, 0),
        ("hd95", "hd95", "mm", "lower", -6, -50),
        (" 0.5 * dice + .5*nsd@2mm", "0.5*dice+0.5*nsd@2mm", "", "higher", 0.85, 0),
        ("dice+0.01*hd95", "dice+0.01*hd95", "", "higher", 0.8 - 0.06, -0.5),
        ("2*dice+3*nsd@2mm", "2*dice+3*nsd@2mm", "", "higher", 4.3, 0),
    ],
)
def test_objectives(text: str, name: str, unit: str, direction: str, utility: float, worst: float):
    objective = Objective.parse(text)
    assert (objective.name, objective.unit, objective.direction) == (name, unit, direction)
    assert objective.utility(VALUES) == pytest.approx(utility)
    assert objective.worst(VIEW) == pytest.approx(worst)
    assert Objective.parse(objective.name) == objective


def test_one_metric_is_shown_as_its_value_and_a_sum_as_its_utility():
    assert Objective.parse("hd95").displayed(-6.0) == 6.0
    assert Objective.parse("dice").displayed(0.8) == 0.8
    assert Objective.parse("dice+0.01*hd95").displayed(0.74) == 0.74
    assert Objective.parse("hd95+2*assd").unit == "mm"
    assert Objective.parse("hd95+2*assd").displayed(-9.0) == -9.0


def test_a_class_that_the_reference_lacks_has_no_utility():
    objective = Objective.parse("0.5*dice+0.5*nsd@2mm")
    assert objective.utility({"dice": None, "nsd@2mm": None}) is None
    with pytest.raises(KeyError, match="nsd@2mm"):
        objective.utility({"dice": 0.5})


def test_the_mean_is_over_classes_then_cases():
    objective = Objective.parse("hd95")
    cases = [[{"hd95": 2.0}, {"hd95": 4.0}], [{"hd95": None}, {"hd95": 9.0}], [{"hd95": None}]]
    assert objective.mean_utility(cases) == pytest.approx(-(3 + 9) / 2)
    with pytest.raises(ValueError, match="no case has a labelled foreground class"):
        objective.mean_utility([[{"hd95": None}]])


@given(dice=st.floats(0, 1), hd=st.floats(0, 50), weights=st.tuples(*[st.floats(1e-3, 1e3)] * 2))
def test_no_prediction_has_less_utility_than_a_failed_training(dice: float, hd: float, weights: tuple[float, float]):
    objective = Objective.parse(f"{weights[0]:.12f}*dice+{weights[1]:.12f}*hd")
    utility = objective.utility({"dice": dice, "hd": hd})
    assert utility is not None
    assert utility >= objective.worst(VIEW) * (1 + 1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has a term ''"),
        ("dice+", "has a term ''"),
        ("+dice", "has a term ''"),
        ("0.5*", "has a term '0.5\\*'"),
        ("0.5*dice*hd", "has a term '0.5\\*dice\\*hd'"),
        ("dice-0.01*hd95", "minus sign; join terms by '\\+'"),
        ("-0.5*dice+hd", "minus sign"),
        ("0*dice+hd", "has weight '0', expected a number from 0.000001 to 1000000"),
        ("nan*dice+hd", "has weight 'nan', expected"),
        ("inf*dice+hd", "has weight 'inf', expected"),
        ("1e3*dice+hd", "has weight '1e3', expected"),
        ("9999999*dice+hd", "has weight '9999999', expected"),
        ("dice*0.5+hd", "has weight 'dice', expected"),
        ("2*dice", "one metric with a weight; write 'dice'"),
        ("0.5*dice+0.5*dice", "has dice twice"),
        ("0.5*nsd@2mm+0.5*nsd@2.0mm", "has nsd@2mm twice"),
        ("nsd", "needs a tolerance"),
        ("0.5*dice+0.5*nsd", "needs a tolerance"),
        ("nsd@-2mm", "the tolerance is '-2'"),
        ("0.5*dise+hd", "did you mean 'dice'"),
        ("volume_error", "knows the size of a structure and not its place"),
        ("dice+volume_error_percent", "knows the size of a structure and not its place"),
        ("__import__('os').system('true')", "unknown metric"),
    ],
)
def test_texts_that_are_no_objective(text: str, message: str):
    with pytest.raises(LossevoError, match=message) as refusal:
        Objective.parse(text)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("weight", [1e-6, 0.00005, 0.1, 1 / 3, 123456.789, 1e6])
def test_the_name_of_any_weight_is_an_objective(weight: float) -> None:
    objective = Objective.parse(f"dice+{weight:.15f}*hd95")
    (one, dice), (read, hd95) = Objective.parse(objective.name).terms
    assert (one, dice, hd95) == (1.0, parse_metric("dice"), parse_metric("hd95"))
    assert read == pytest.approx(weight)
    assert Objective.parse(objective.name).name == objective.name


def test_a_distance_of_nothing_is_no_negative_number() -> None:
    assert str(Objective.parse("hd95").displayed(-0.0)) == "0.0"
