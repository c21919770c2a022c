from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossevo.cluster import Outcome, Status
from lossevo.comparison.scores import CaseScore, FalseAlarms, case_scores, false_alarms, subject_scores, to_csv
from lossevo.errors import LossevoError
from lossevo.metrics import FieldOfView, dice_per_class, parse_metrics, worst_values
from lossevo.training import Measurement
from lossevo.training.reference import ReferenceCase
from tests.metrics.masks import false_voxels

DICE = parse_metrics("dice")
VIEW = FieldOfView((10, 20), (3.0, 2.0))  # diagonal: 50 mm; a voxel: 0.006 ml
CLASSES = ("background", "L1", "L2")
FAILED = Outcome(Status.DIVERGED, None, "training loss is nan at step 3", 1.0, "here")


def case(name: str, subject: str, *classes: int) -> ReferenceCase:
    """A case whose label has these classes."""
    return ReferenceCase(name, subject, VIEW, {value: 0.3 * value for value in classes})


def scores_of(outcome: Outcome, cases: list[ReferenceCase], metrics=DICE, **given) -> list[CaseScore]:
    measurement = Measurement.from_payload(outcome.value) if outcome.value else None
    return case_scores(
        outcome.status,
        measurement,
        cases,
        CLASSES,
        metrics,
        **{"loss": "dice", "fold": 1, "seed": 0, "training_seed": 7, **given},
    )


def done(cases: dict[str, dict[str, float | None]], false_voxels: dict[str, dict[str, int]] | None = None) -> Outcome:
    measurement = Measurement({"dice": cases}, [], [], 1.0, false_voxels=false_voxels or {})
    return Outcome(Status.DONE, measurement.to_payload(), "", 1.0, "here")


def score(dice: float | None, *, loss="dice", seed=0, subject="s", case="s", class_name="L1") -> CaseScore:
    return CaseScore(loss, 1, seed, seed, subject, case, class_name, {"dice": dice}, Status.DONE, False)


class TestCaseScores:
    def test_one_row_per_case_and_class_in_order(self):
        outcome = done({"b": {"L1": 0.5, "L2": None}, "a": {"L1": 0.7, "L2": 0.9}}, {"b": {"L2": 31}})
        rows = scores_of(outcome, [case("b", "B", 1), case("a", "A", 1, 2)])
        assert [(row.case, row.subject, row.class_name, row.values["dice"], row.false_voxels) for row in rows] == [
            ("b", "B", "L1", 0.5, None),
            ("b", "B", "L2", None, 31),
            ("a", "A", "L1", 0.7, None),
            ("a", "A", "L2", 0.9, None),
        ]
        assert {row.status for row in rows} == {Status.DONE}

    @pytest.mark.parametrize("status", [status for status in Status if status is not Status.DONE])
    def test_a_failed_training_scores_0_for_each_class_that_the_case_has(self, status):
        outcome = Outcome(status, None, "training loss is nan at step 3", 1.0, "here")
        rows = scores_of(outcome, [case("a", "A", 1), case("b", "B", 1, 2), case("c", "C")])
        assert [row.values["dice"] for row in rows] == [0.0, None, 0.0, 0.0, None, None]
        assert [row.false_voxels for row in rows] == [None, 0, None, None, 0, 0]
        assert {row.status for row in rows} == {status}

    def test_leakage_is_of_the_subject(self):
        outcome = done({"a": {"L1": 0.5, "L2": 0.5}, "b": {"L1": 0.5, "L2": 0.5}})
        rows = scores_of(outcome, [case("a", "A", 1, 2), case("b", "B", 1, 2)], leaked=("B",))
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
            score(None, case="two", class_name="L2", seed=1),
        ]
        assert subject_scores(scores, "dice") == {"dice": {"s": pytest.approx((0.3 + 0.9 + 0.6 + 0.6) / 4)}}

    def test_a_subject_without_a_defined_dice_is_left_out(self):
        assert subject_scores([score(None, subject="a"), score(0.5, subject="b")], "dice") == {"dice": {"b": 0.5}}

    def test_losses_do_not_mix_and_order_does_not_matter(self):
        scores = [score(0.1 * n, loss=loss, subject=f"s{n}") for loss in ("a", "b") for n in range(1, 5)]
        assert subject_scores(scores, "dice") == subject_scores(scores[::-1], "dice")
        assert set(subject_scores(scores, "dice")) == {"a", "b"}


class TestSameSubjects:
    """Whether there is a value is the label's affair, so all losses have it in the same cells."""

    def test_a_false_alarm_that_scores_0_where_another_loss_has_none_is_refused(self):
        scores = [
            score(dice, loss=loss, subject=subject)
            for loss, of_subject in (("careful", {"a": 0.6, "b": None}), ("trigger-happy", {"a": 0.7, "b": 0.0}))
            for subject, dice in of_subject.items()
        ]
        with pytest.raises(LossevoError, match=r"subject b, .*class L1: trigger-happy .* careful .* has none"):
            subject_scores(scores, "dice")
        with pytest.raises(LossevoError, match=r"subject b, .*class L1: trigger-happy .* careful .* has none"):
            subject_scores(scores[::-1], "dice")

    def test_so_is_a_repetition_that_has_fewer(self):
        scores = [score(0.5, seed=0), score(0.6, seed=1), score(0.5, seed=0, class_name="L2")]
        with pytest.raises(LossevoError, match=r"class L2: dice \(seed 0\) has a value of dice there, dice \(seed 1\)"):
            subject_scores(scores, "dice")

    def test_losses_that_no_case_tells_apart_have_no_subject(self):
        assert subject_scores([score(None, loss="a"), score(None, loss="b")], "dice") == {"a": {}, "b": {}}

    @given(seed=st.integers(0, 2**16))
    def test_of_any_labels_and_predictions_every_loss_has_the_same_subjects(self, seed):
        rng = np.random.default_rng(seed)
        labels = [rng.integers(0, 3, size=rng.integers(1, 4), dtype=np.uint8) for _ in range(5)]
        cases = [
            ReferenceCase.of(f"c{n}", f"s{n // 2}", label, FieldOfView((label.size, 1), (1.0, 1.0)))
            for n, label in enumerate(labels)
        ]
        rows = []
        for loss in ("one", "other", "failing"):
            predictions = [rng.integers(0, 3, size=label.shape, dtype=np.uint8) for label in labels]
            measured = {
                measure: {
                    case.case_id: dict(zip(CLASSES[1:], measure(prediction, label, 3), strict=True))
                    for case, prediction, label in zip(cases, predictions, labels, strict=True)
                }
                for measure in (dice_per_class, false_voxels)
            }
            outcome = done(measured[dice_per_class], measured[false_voxels])
            rows += scores_of(FAILED if loss == "failing" else outcome, cases, loss=loss)
        subjects = {loss: [*scores] for loss, scores in subject_scores(rows, "dice").items()}
        labelled = sorted({case.subject for case in cases if case.classes})
        assert subjects == {"one": labelled, "other": labelled, "failing": labelled}
        assert len({alarms.without_class for alarms in false_alarms(rows).values()}) == 1


class TestFalseAlarms:
    def test_are_counted_where_the_label_lacks_the_class(self):
        rows = scores_of(
            done(
                {"a": {"L1": 0.5, "L2": None}, "b": {"L1": None, "L2": None}}, {"a": {"L2": 0}, "b": {"L1": 3, "L2": 1}}
            ),
            [case("a", "A", 1), case("b", "B")],
        )
        assert false_alarms(rows) == {"dice": FalseAlarms(2, 3, pytest.approx(4 * 0.006 / 3))}

    def test_a_failed_training_raises_none_of_as_many(self):
        assert false_alarms(scores_of(FAILED, [case("a", "A", 1)])) == {"dice": FalseAlarms(0, 1, 0.0)}

    def test_where_every_label_has_every_class_there_is_nothing_to_count(self):
        assert false_alarms([score(0.5)]) == {"dice": FalseAlarms(0, 0, None)}


class TestWorstValues:
    """What a failed training scores, metric by metric."""

    METRICS = parse_metrics("dice,nsd@2mm,hd95,hd,assd,volume_error,volume_error_percent,detection")

    def test_by_hand(self):
        (present, absent) = scores_of(FAILED, [case("a", "A", 1)], self.METRICS)
        assert present.values == {
            **{"dice": 0, "nsd@2mm": 0, "hd95": 50, "hd": 50, "assd": 50},
            **{"volume_error": 0.3, "volume_error_percent": 100, "detection": 0},
        }
        assert set(absent.values.values()) == {None}
        assert (absent.false_voxels, absent.false_ml) == (0, 0.0)

    def test_are_those_of_a_prediction_of_nothing(self):
        label = np.zeros((5, 7, 6), np.uint8)
        label[1:3, 2:5, 2:4] = 1
        reference = ReferenceCase.of("a", "A", label, FieldOfView(label.shape, (1.5, 0.7, 2.0)))
        (row, _) = scores_of(FAILED, [reference], self.METRICS)
        assert row.values == worst_values(label, (1.5, 0.7, 2.0), self.METRICS, classes=CLASSES[1:])["L1"]

    def test_each_case_has_its_own_field_of_view_and_voxel_volume(self):
        large = replace(case("b", "B", 1), view=FieldOfView((10, 20), (6.0, 4.0)))
        outcome = done({"a": {"L1": 0.5, "L2": None}, "b": {"L1": 0.5, "L2": None}}, {"a": {"L2": 5}, "b": {"L2": 5}})
        alarms = [row.false_ml for row in scores_of(outcome, [case("a", "A", 1), large]) if row.class_name == "L2"]
        assert alarms == pytest.approx([5 * 0.006, 5 * 0.024])
        rows = scores_of(FAILED, [case("a", "A", 1), large], parse_metrics("hd95"))
        assert [row.values["hd95"] for row in rows if row.class_name == "L1"] == [50, 100]


class TestCsv:
    def test_columns_and_values(self):
        metrics = parse_metrics("hd95,dice")
        lacking = replace(score(None, class_name="L2"), values={"dice": None, "hd95": None}, false_voxels=7)
        rows = [
            replace(score(0.5), values={"dice": 0.5, "hd95": 2.0}),
            replace(lacking, false_ml=0.042),
            replace(score(None, loss="a,b"), values={"dice": 1 / 3, "hd95": 41.56921938}),
        ]
        text = to_csv(rows, metrics)
        header = "loss,fold,seed,training_seed,subject,case,class,hd95,dice,false_voxels,false_ml,status,leakage"
        assert text.splitlines()[0] == header
        read = list(csv.DictReader(io.StringIO(text)))
        assert [row["dice"] for row in read] == ["0.500000", "", "0.333333"]
        assert [row["hd95"] for row in read] == ["2.000000", "", "41.569219"]
        assert [row["false_voxels"] for row in read] == ["", "7", ""]
        assert [row["false_ml"] for row in read] == ["", "0.042000", ""]
        assert read[2]["loss"] == "a,b"
        assert read[0]["status"] == "done"
        assert read[0]["leakage"] == "false"
        assert "\r" not in text
