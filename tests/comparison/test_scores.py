from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from lossevo.cluster import Outcome, Status
from lossevo.comparison.scores import CaseScore, case_scores, subject_scores, to_csv
from lossevo.data import Volume

CLASSES = ("background", "L1", "L2")


def volume(case: str, subject: str, *values: int) -> Volume:
    """A case whose label holds ``values``."""
    label = np.zeros((4, 4, 4), np.uint8)
    label.flat[: len(values)] = values
    return Volume(case, subject, np.zeros((1, 4, 4, 4), np.float32), label, (1.0, 1.0, 1.0))


def scores_of(outcome: Outcome, volumes: list[Volume], **given) -> list[CaseScore]:
    return case_scores(outcome, volumes, CLASSES, **{"loss": "dice", "fold": 1, "seed": 0, "training_seed": 7, **given})


def done(cases: dict[str, dict[str, float | None]]) -> Outcome:
    return Outcome(Status.DONE, {"cases": cases}, "", 1.0, "here")


def score(dice: float | None, *, loss="dice", seed=0, subject="s", case="s", class_name="L1") -> CaseScore:
    return CaseScore(loss, 1, seed, seed, subject, case, class_name, dice, Status.DONE, False)


class TestCaseScores:
    def test_one_row_per_case_and_class_in_order(self):
        outcome = done({"b": {"L1": 0.5, "L2": None}, "a": {"L1": 0.7, "L2": 0.9}})
        rows = scores_of(outcome, [volume("b", "B", 1), volume("a", "A", 1, 2)])
        assert [(row.case, row.subject, row.class_name, row.dice) for row in rows] == [
            ("b", "B", "L1", 0.5),
            ("b", "B", "L2", None),
            ("a", "A", "L1", 0.7),
            ("a", "A", "L2", 0.9),
        ]
        assert {row.status for row in rows} == {Status.DONE}

    @pytest.mark.parametrize("status", [status for status in Status if status is not Status.DONE])
    def test_a_failed_training_scores_0_for_each_class_that_the_case_has(self, status):
        outcome = Outcome(status, None, "training loss is nan at step 3", 1.0, "here")
        rows = scores_of(outcome, [volume("a", "A", 1), volume("b", "B", 1, 2)])
        assert [row.dice for row in rows] == [0.0, None, 0.0, 0.0]
        assert {row.status for row in rows} == {status}

    def test_leakage_is_of_the_subject(self):
        outcome = done({"a": {"L1": 0.5, "L2": 0.5}, "b": {"L1": 0.5, "L2": 0.5}})
        rows = scores_of(outcome, [volume("a", "A", 1), volume("b", "B", 1)], leaked=("B",))
        assert [(row.subject, row.leakage) for row in rows if row.class_name == "L1"] == [("A", False), ("B", True)]


class TestSubjectScores:
    def test_averages_classes_then_cases_and_seeds(self):
        scores = [
            score(0.2, case="one", class_name="L1"),
            score(0.4, case="one", class_name="L2"),
            score(0.9, case="two", class_name="L1"),
            score(None, case="two", class_name="L2"),
            score(0.5, case="one", class_name="L1", seed=1),
            score(0.7, case="one", class_name="L2", seed=1),
            score(0.6, case="two", class_name="L1", seed=1),
            score(0.6, case="two", class_name="L2", seed=1),
        ]
        assert subject_scores(scores) == {"dice": {"s": pytest.approx((0.3 + 0.9 + 0.6 + 0.6) / 4)}}

    def test_a_subject_without_a_defined_dice_is_left_out(self):
        assert subject_scores([score(None, subject="a"), score(0.5, subject="b")]) == {"dice": {"b": 0.5}}

    def test_losses_do_not_mix_and_order_does_not_matter(self):
        scores = [score(0.1 * n, loss=loss, subject=f"s{n}") for loss in ("a", "b") for n in range(1, 5)]
        assert subject_scores(scores) == subject_scores(scores[::-1])
        assert set(subject_scores(scores)) == {"a", "b"}


class TestCsv:
    def test_columns_and_values(self):
        text = to_csv([score(0.5), score(None, class_name="L2"), score(1 / 3, loss="a,b")])
        rows = list(csv.DictReader(io.StringIO(text)))
        assert {"loss", "fold", "seed", "subject", "case", "class", "dice", "status", "leakage"} <= rows[0].keys()
        assert [row["dice"] for row in rows] == ["0.500000", "", "0.333333"]
        assert rows[2]["loss"] == "a,b"
        assert rows[0]["status"] == "done"
        assert rows[0]["leakage"] == "false"
        assert "\r" not in text
