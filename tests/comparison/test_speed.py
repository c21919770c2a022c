from __future__ import annotations

import csv
import io

import pytest

from lossevo.comparison.speed import LearningCurve, curves_csv, speed_csv, speeds


def curve(loss: str, *dice: float, fold: int = 1, every: int = 10) -> LearningCurve:
    return LearningCurve(loss, fold, 0, tuple((every * number, value) for number, value in enumerate(dice, start=1)))


def test_by_hand():
    slow, fast = speeds([curve("slow", 0.0, 0.4, 0.8), curve("fast", 0.7, 0.75, 0.79)], {"slow", "fast"})[::-1]
    assert (fast.loss, slow.loss) == ("fast", "slow")
    # trapezoids of 10 steps: (0 + 0.7)/2 + (0.7 + 0.75)/2 + (0.75 + 0.79)/2, by 30 steps
    assert fast.area == pytest.approx(10 * (0.35 + 0.725 + 0.77) / 30)
    assert slow.area == pytest.approx(10 * (0 + 0.2 + 0.6) / 30)
    # 90 % of 0.8 is 0.72: between steps 10 and 20 at 10 + 10 · 0.02 / 0.05
    assert fast.steps_to == {0.9: 14, 0.95: 23, 0.99: None}
    # at 20 + 10 · 0.32 / 0.4, of 0.76 at 29, of 0.792 at 29.8
    assert slow.steps_to == {0.9: 28, 0.95: 29, 0.99: 30}


def test_the_mean_is_over_trainings_and_a_failed_one_has_0():
    (found,) = speeds([curve("dice", 0.4, 0.8), curve("dice", 0.6, 0.8, fold=2), LearningCurve("dice", 3, 0, ())], {})
    assert found.curve == ((10, pytest.approx(1 / 3)), (20, pytest.approx(1.6 / 3)))
    assert found.steps_to[0.99] == 20


def test_the_target_is_that_of_hand_crafted_losses():
    curves = [curve("evolved", 0.5, 1.0), curve("dice", 0.4, 0.5)]
    evolved, dice = speeds(curves, {"dice"})
    assert evolved.steps_to == {0.9: 9, 0.95: 10, 0.99: 10}
    assert dice.steps_to[0.99] == 20
    assert speeds(curves, set())[1].steps_to == dict.fromkeys((0.9, 0.95, 0.99))


def test_a_curve_that_falls_again_has_reached_it():
    (found,) = speeds([curve("dice", 0.9, 0.8)], {"dice"})
    assert found.steps_to == {0.9: 8, 0.95: 9, 0.99: 9}


@pytest.mark.parametrize("curves", [[], [curve("dice", 0.5)], [LearningCurve("dice", 1, 0, ())]])
def test_without_validations_on_the_way_there_is_no_speed(curves):
    assert speeds(curves, {"dice"}) == ()


def test_a_loss_that_learns_nothing_is_told_all_the_same():
    (found,) = speeds([curve("dice", 0.0, 0.0)], {"dice"})
    assert (found.area, found.steps_to[0.9]) == (0.0, 10)


def test_files():
    curves = [curve("a", 0.5, 0.9), curve("b", 0.1, 0.2)]
    rows = list(csv.DictReader(io.StringIO(speed_csv(speeds(curves, {"a"})))))
    assert [(row["loss"], row["final_dice"], row["steps_to_90_percent"]) for row in rows] == [
        ("a", "0.900000", "18"), ("b", "0.200000", ""),
    ]  # fmt: skip
    points = list(csv.DictReader(io.StringIO(curves_csv(curves))))
    assert [(row["loss"], row["step"], row["dice"]) for row in points][:2] == [
        ("a", "10", "0.500000"),
        ("a", "20", "0.900000"),
    ]
