from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from lossevo.cluster import Status
from lossevo.comparison import claim_rows, comparison_rows, markdown, summary_rows, to_document, verdicts
from lossevo.comparison.contenders import Contender
from lossevo.comparison.leakage import FoldPlan
from lossevo.comparison.protocol import Protocol
from lossevo.comparison.report import Report, make_report
from lossevo.comparison.result_files import comparisons_csv, pairs_csv, ranks_csv, summary_csv
from lossevo.comparison.ropes import parse_ropes
from lossevo.comparison.scores import CaseScore, FalseAlarms, seed_scores
from lossevo.comparison.statistics import statistics_of
from lossevo.metrics import IMPLEMENTATION, parse_metrics

SUBJECTS = ("a", "b", "c", "d", "e", "f", "g", "h")


def loss(name: str, *, evolved: bool = False) -> Contender:
    return Contender(name=name, spec={"name": name}, formula=f"formula of {name}", origin="here", evolved=evolved)


def protocol_of(subjects=SUBJECTS, *, metrics: str = "dice", **given) -> Protocol:
    measured = parse_metrics(metrics)
    fields = {
        **{"cohort": "balls", "class_names": ("background", "vertebra"), "spacing_mm": (4.0, 4.0, 4.0), "folds": 2},
        **{"steps": 150, "seeds": 1, "seed": 0, "tested": subjects, "train_only": ("z",)},
        **{"metrics": measured, "ropes": parse_ropes(None, measured)},
    }
    return Protocol(**{**fields, **given})


def report_of(
    dice: dict[str, list[float]],
    evolved: tuple[str, ...] = (),
    *,
    failed: tuple[str, ...] = (),
    leaked: dict[str, tuple[str, ...]] | None = None,
    metrics: str = "dice",
    others: dict[str, dict[str, list[float]]] | None = None,
) -> Report:
    """Two folds, one seed; ``dice`` gives each loss's score for each subject, ``others`` that in other metrics."""
    values = {"dice": dice, **(others or {})}
    subjects = SUBJECTS[: len(next(iter(dice.values())))]
    middle = len(subjects) // 2
    plan = FoldPlan((subjects[:middle], subjects[middle:]), ("z",), leaked or {})
    scores = [
        CaseScore(
            name,
            1 if number < middle else 2,
            0,
            0,
            subject,
            subject,
            "vertebra",
            {metric: of_losses[name][number] for metric, of_losses in values.items()},
            Status.DIVERGED if name in failed and number < middle else Status.DONE,
            subject in plan.leaked.get(name, ()),
        )
        for name in dice
        for number, subject in enumerate(subjects)
    ]
    protocol = protocol_of(subjects, metrics=metrics)
    failures = {(name, 1, 0): "diverged: loss is nan at step 3" for name in failed}
    return make_report(scores, [loss(name, evolved=name in evolved) for name in dice], plan, protocol, failures)


BASE = [0.6, 0.65, 0.7, 0.72, 0.74, 0.76, 0.8, 0.85]
DICE = {"dice": BASE, "evolved": [value + 0.02 for value in BASE], "focal": [value - 0.1 for value in BASE]}


class TestReport:
    def test_losses_by_falling_mean(self):
        assert [result.loss for result in report_of(DICE).losses] == ["evolved", "dice", "focal"]

    def test_the_evolved_loss_is_the_reference_even_if_it_is_not_the_best(self):
        report = report_of(DICE, evolved=("focal",))
        assert report.reference == "focal"
        assert [pair.loss for pair in report.main.pairs] == ["evolved", "dice"]
        assert all(pair.difference.difference < 0 for pair in report.main.pairs)

    def test_of_several_evolved_losses_the_first_named_is_the_reference(self):
        report = report_of(DICE, evolved=("evolved", "focal"))
        assert report.reference == "evolved"
        assert any("first evolved loss" in note for note in report.notes)

    def test_without_an_evolved_loss_the_best_is_and_a_note_says_so(self):
        report = report_of(DICE)
        assert report.reference == "evolved"
        assert any("after the fact" in note for note in report.notes)

    def test_p_is_adjusted_over_all_pairs(self):
        pairs = report_of(DICE, evolved=("evolved",)).main.pairs
        assert [pair.difference.p for pair in pairs] == [2**-7, 2**-7]
        assert [pair.p_holm for pair in pairs] == [2**-6, 2**-6]

    def test_a_single_loss_is_described_and_compared_with_none(self):
        report = report_of({"dice": BASE})
        assert report.main.pairs == ()
        assert "| dice |" in markdown(report)

    def test_failures_are_counted_and_told(self):
        report = report_of({**DICE, "focal": [0.0] * 4 + BASE[4:]}, failed=("focal",))
        failed = {result.loss: (result.failures, result.trainings) for result in report.losses}
        assert failed == {"evolved": (0, 2), "dice": (0, 2), "focal": (1, 2)}
        assert any("1 of 6 trainings failed" in note and "focal, fold 1" in note for note in report.notes)

    @pytest.mark.parametrize(("subjects", "told"), [(5, True), (8, False)])
    def test_says_when_no_p_can_be_small(self, subjects, told):
        report = report_of({name: values[:subjects] for name, values in DICE.items()})
        assert any("cannot find a difference" in note for note in report.notes) is told

    def test_two_losses_that_tie_do_not_make_other_pairs_hopeless(self):
        report = report_of({**DICE, "twin": DICE["evolved"]}, evolved=("evolved",))
        assert next(pair for pair in report.main.pairs if pair.loss == "twin").difference.p == 1.0
        assert not any("cannot find a difference" in note for note in report.notes)

    def test_an_evolved_loss_of_unknown_history_is_told(self):
        assert any("cannot be ruled out" in note for note in report_of(DICE, evolved=("evolved",)).notes)
        assert not any("cannot be ruled out" in note for note in report_of(DICE).notes)


class TestEmptyLabels:
    """Four subjects have a lesion, four have none; "eager" finds one in everybody, "careful" in the four alone."""

    @pytest.fixture
    def report(self) -> Report:
        dice = {"careful": [0.60, 0.61, 0.62, 0.63], "eager": [0.70, 0.71, 0.72, 0.73]}
        voxels = {"careful": 0, "eager": 25}
        scores = [
            CaseScore(
                *(name, 1 + number % 2, 0, 0, subject, subject, "lesion", {"dice": None}, Status.DONE, False),
                *(voxels[name], voxels[name] * 0.04),
            )
            if number >= 4
            else CaseScore(
                *(name, 1 + number % 2, 0, 0, subject, subject, "lesion", {"dice": dice[name][number]}, Status.DONE),
                False,
            )
            for name in dice
            for number, subject in enumerate(SUBJECTS)
        ]
        plan = FoldPlan((SUBJECTS[::2], SUBJECTS[1::2]), (), {})
        classes = ("background", "lesion", "cyst")
        protocol = protocol_of(cohort="livers", class_names=classes, train_only=(), unscored=SUBJECTS[4:])
        return make_report(scores, [loss(name) for name in dice], plan, protocol, {})

    def test_means_and_pairs_are_over_the_same_subjects(self, report):
        assert [(result.loss, result.score.subjects) for result in report.main.losses] == [("eager", 4), ("careful", 4)]
        assert [result.score.mean for result in report.main.losses] == pytest.approx([0.715, 0.615])
        assert report.main.pairs[0].difference.subjects == 4
        assert report.main.pairs[0].difference.difference == pytest.approx(0.1)

    def test_false_alarms_stand_beside(self, report):
        assert [result.alarms for result in report.losses] == [FalseAlarms(4, 4, 1.0), FalseAlarms(0, 4, 0.0)]
        assert [row["false alarms"] for row in summary_rows(report)] == ["4/4 (1 ml)", "0/4 (0 ml)"]
        assert comparison_rows(report, report.main)[0]["false alarms"] == "4 : 0"
        (eager, careful) = csv.DictReader(io.StringIO(summary_csv(report)))
        assert (eager["false_alarms"], eager["without_class"], eager["false_ml"]) == ("4", "4", "1.0")
        assert (careful["false_alarms"], careful["without_class"], careful["false_ml"]) == ("0", "4", "0.0")
        (pair,) = csv.DictReader(io.StringIO(comparisons_csv(report)))
        assert (pair["reference_false_alarms"], pair["false_alarms"]) == ("4", "0")
        assert to_document(report)["losses"][0]["false_alarms"] == 4
        assert "4/4 (1 ml)" in markdown(report)

    @pytest.mark.parametrize(
        ("ml", "told"), [(0.0, "0"), (0.0234, "0.023"), (9.94, "9.9"), (157.8, "158"), (2e4, "20000")]
    )
    def test_a_volume_is_a_plain_number(self, report, ml, told):
        result = replace(report.losses[0], alarms=FalseAlarms(1, 4, ml))
        (row,) = summary_rows(replace(report, losses=(result,)))
        assert row["false alarms"] == f"1/4 ({told} ml)"

    def test_who_has_no_score_is_told(self, report):
        assert "on 8 subjects of livers (4 of them without a label, so without a score)" in report.title
        told = "\n".join(report.notes)
        assert "4 of 8 tested subjects have no labelled structure (e, f, g, h)" in told
        assert "No tested subject has cyst" in told
        assert "False alarms: at least one voxel" in told
        assert to_document(report)["protocol"]["unscored"] == SUBJECTS[4:]

    def test_where_every_label_has_every_class_nothing_is_told(self):
        report = report_of(DICE)
        assert summary_rows(report)[0]["false alarms"] == comparison_rows(report, report.main)[0]["false alarms"] == "–"
        assert not any("alarm" in note or "No tested" in note for note in report.notes)


class TestTables:
    def test_rows_for_people(self):
        report = report_of(DICE, evolved=("evolved",))
        assert [row["loss"] for row in summary_rows(report)] == ["evolved", "dice", "focal"]
        assert summary_rows(report)[1]["Dice mean ± SD"] == "0.728 ± 0.080"
        first = comparison_rows(report, report.main)[0]
        assert first["evolved better than"] == "dice"
        assert first["Δ Dice"] == "+0.0200"
        assert first["win/tie/loss"] == "8/0/0"
        assert first["p"] == "0.0078"
        assert first["r"] == "+1.00"

    def test_csv_tables_can_be_read_back(self):
        report = report_of(DICE, evolved=("evolved",))
        losses = list(csv.DictReader(io.StringIO(summary_csv(report))))
        pairs = list(csv.DictReader(io.StringIO(comparisons_csv(report))))
        assert float(losses[0]["mean"]) == report.main.losses[0].score.mean
        assert losses[0]["evolved"] == "true"
        assert float(pairs[1]["p_holm"]) == report.main.pairs[1].p_holm
        assert pairs[1]["loss"] == "focal"

    def test_all_pairs_and_ranks_can_be_read_back(self):
        report = report_of(DICE, evolved=("focal",))
        pairs = list(csv.DictReader(io.StringIO(pairs_csv(report))))
        assert [(row["better"], row["worse"]) for row in pairs] == [
            ("evolved", "dice"),
            ("evolved", "focal"),
            ("dice", "focal"),
        ]
        assert float(pairs[0]["p_better"]) == 1.0  # by 0.02 for every subject, and rope is 0.005
        assert float(pairs[0]["p_nemenyi"]) == report.main.statistics.friedman.nemenyi["dice"]["evolved"]
        ranks = list(csv.DictReader(io.StringIO(ranks_csv(report))))
        assert [(row["loss"], row["rank"], float(row["share_1"])) for row in ranks] == [
            ("evolved", "1", 1.0),
            ("dice", "2", 0.0),
            ("focal", "3", 0.0),
        ]
        assert [float(row["average_rank"]) for row in ranks] == [1, 2, 3]

    def test_the_claim_that_the_reference_is_better(self):
        report = report_of(DICE, evolved=("dice",))
        better, worse = claim_rows(report, report.main)[::-1]
        assert (better["dice against"], better["false claim"]) == ("focal", "<0.1 %")
        assert (worse["dice against"], worse["false claim"]) == ("evolved", ">99.9 %")
        assert worse["better / same / worse by 0.005"] == "0 / 0 / 100 %"
        (first, _) = csv.DictReader(io.StringIO(comparisons_csv(report)))
        assert (float(first["false_claim"]), float(first["p_worse"])) == (1.0, 1.0)

    def test_ranks_stand_with_the_losses(self):
        assert [row["rank"] for row in summary_rows(report_of(DICE))] == ["1 [1, 1]", "2 [2, 2]", "3 [3, 3]"]

    def test_the_verdict_is_in_every_output(self):
        report = report_of(DICE)
        assert report.main.findings[0] == "evolved is the best: it can be told apart from all others."
        assert report.main.findings[0] in markdown(report)
        assert to_document(report)["metrics"][0]["findings"][0] == report.main.findings[0]

    def test_one_loss_has_tables_too(self):
        report = report_of({"dice": BASE})
        assert list(csv.DictReader(io.StringIO(pairs_csv(report)))) == []
        assert list(csv.DictReader(io.StringIO(ranks_csv(report)))) == []
        assert summary_rows(report)[0]["rank"] == "–"
        assert report.main.findings == ()
        json.dumps(to_document(report), allow_nan=False)

    def test_the_document_is_json(self):
        document = to_document(report_of(DICE, evolved=("evolved",)))
        assert json.loads(json.dumps(document, allow_nan=False))["reference"] == "evolved"
        assert document["leakage"] is False

    def test_markdown_escapes_names(self):
        text = markdown(report_of({"cross_entropy": BASE, "a|b": BASE}))
        assert r"cross\_entropy" in text
        assert r"a\|b" in text
        widths = {line.replace(r"\|", "").count("|") for line in text.splitlines() if line.startswith("| ")}
        assert len(widths) == 3  # of the three tables


def test_says_what_was_measured_how_and_on_which_grid():
    report = report_of(DICE)
    assert report.title.startswith("Dice of 3 losses on labels of vertebra at 4 × 4 × 4 mm: 2-fold")
    told = "\n".join(report.notes)
    assert "(vertebra), cases and seeds, measured on labels resampled to the working spacing, 4 × 4 × 4 mm, not" in told
    assert "dice: 2|P ∩ R| / (|P| + |R|). Implementation: " + IMPLEMENTATION in told
    assert to_document(report)["implementation"] == IMPLEMENTATION
    own = replace(report, protocol=protocol_of(grid="original"))
    assert "on labels of vertebra on each image's own grid: 2-fold" in own.title
    assert "measured on each image's own grid" in own.protocol.measuring


def test_many_classes_are_counted_in_the_title():
    names = ("background", *(f"L{level}" for level in range(1, 6)))
    protocol = protocol_of(class_names=names, spacing_mm=(4.0, 1.0, 1.5))
    assert protocol.measured_on == "labels of 5 classes at 4 × 1 × 1.5 mm"


def test_leakage_is_repeated_by_every_output():
    report = report_of(DICE, evolved=("evolved",), leaked={"evolved": ("a", "b")})
    assert "LEAKAGE" in report.title
    assert "evolved on 2 of 8 subjects" in report.title
    assert "LEAKAGE" in markdown(report).splitlines()[0]
    assert summary_rows(report)[0]["loss"] == "evolved (leakage)"
    assert [row["evolved (leakage) better than"] for row in comparison_rows(report, report.main)] == ["dice", "focal"]
    other = report_of(DICE, evolved=("evolved", "focal"), leaked={"focal": ("a", "b")})
    assert [row["evolved better than"] for row in comparison_rows(other, other.main)] == ["dice", "focal (leakage)"]
    flags = {row["loss"]: row["leakage"] for row in csv.DictReader(io.StringIO(summary_csv(report)))}
    assert flags == {"evolved": "true", "dice": "false", "focal": "false"}
    assert {row["leakage"] for row in csv.DictReader(io.StringIO(comparisons_csv(report)))} == {"true"}
    document = to_document(report)
    assert document["leakage"] is True
    assert "LEAKAGE" in document["notes"][0]


HD95 = {
    "dice": [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0],
    "evolved": [5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0],
    "focal": [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.5],
}


class TestSeveralMetrics:
    """``evolved`` has the best Dice; ``focal`` the smallest, so the best, HD95 for all subjects but one."""

    @pytest.fixture
    def report(self) -> Report:
        return report_of(DICE, metrics="dice,hd95", others={"hd95": HD95})

    def test_the_first_orders_the_losses_and_chooses_the_reference(self, report):
        assert [result.loss for result in report.losses] == ["evolved", "dice", "focal"]
        assert (report.reference, report.main.metric.name) == ("evolved", "dice")
        swapped = report_of(DICE, metrics="hd95,dice", others={"hd95": HD95})
        assert [result.loss for result in swapped.losses] == ["focal", "evolved", "dice"]
        assert swapped.reference == "focal"
        assert any("best mean HD95, focal" in note for note in swapped.notes)
        assert swapped.title.startswith("HD95, Dice of 3 losses")

    def test_where_lower_is_better_lower_is_better_everywhere(self, report):
        result = report.results[1]
        assert [(found.loss, found.score.mean) for found in result.losses] == [
            ("focal", 9.5 / 8),
            ("evolved", 5.0),
            ("dice", 5.5),
        ]
        to_focal, to_dice = result.pairs  # evolved is the reference
        assert (to_focal.loss, to_dice.loss) == ("focal", "dice")
        assert to_focal.difference.difference == pytest.approx(9.5 / 8 - 5.0)  # it is worse: below 0
        assert (to_focal.difference.wins, to_focal.difference.losses) == (0, 8)
        assert to_focal.difference.rank_biserial == -1
        assert to_dice.difference.difference == pytest.approx(0.5)
        assert (to_dice.difference.wins, to_dice.difference.ties, to_dice.difference.losses) == (4, 1, 3)
        assert (to_focal.against.false_claim or 0) > 0.99
        assert verdicts(report) == ["By HD95: focal is the best: it can be told apart from all others."]

    def test_rows_for_people_have_units_and_the_right_sign(self, report):
        (first, *_) = summary_rows(report)
        assert (first["Dice mean ± SD"], first["HD95 (mm)"]) == ("0.748 ± 0.080", "5.00 ± 0.00")
        to_focal, to_dice = comparison_rows(report, report.results[1])
        assert (to_focal["Δ HD95 (mm)"], to_focal["win/tie/loss"]) == ("-3.812", "0/0/8")
        assert (to_dice["evolved better than"], to_dice["Δ HD95 (mm)"]) == ("dice", "+0.500")
        (claim, _) = claim_rows(report, report.results[1])
        assert claim["better / same / worse by 0.5 mm"] == "0 / 0 / 100 %"
        assert claim["smallest difference"].endswith(" mm")

    def test_statistics_are_those_of_each_metric_alone(self, report):
        scores = [
            CaseScore(name, 1, 0, 0, subject, subject, "vertebra", {"hd95": values[number]}, Status.DONE, False)
            for name, values in HD95.items()
            for number, subject in enumerate(SUBJECTS)
        ]
        assert report.results[1].statistics == statistics_of(
            seed_scores(scores, "hd95"),
            reference="evolved",
            rope=0.5,
            seed=0,
            higher_is_better=False,
            folds={subject: number // 4 for number, subject in enumerate(SUBJECTS)},
        )
        assert report.main == report_of(DICE).main

    def test_every_table_names_the_metric(self, report):
        for table, rows in ((summary_csv, 6), (comparisons_csv, 4), (pairs_csv, 6), (ranks_csv, 6)):
            read = list(csv.DictReader(io.StringIO(table(report))))
            assert [row["metric"] for row in read] == ["dice"] * (rows // 2) + ["hd95"] * (rows // 2)
            assert next(iter(read[0])) == "metric"
        pairs = [row for row in csv.DictReader(io.StringIO(pairs_csv(report))) if row["metric"] == "hd95"]
        assert [(row["better"], row["worse"], float(row["difference"])) for row in pairs] == [
            ("focal", "evolved", 3.8125),
            ("focal", "dice", 4.3125),
            ("evolved", "dice", 0.5),
        ]
        document = json.loads(json.dumps(to_document(report), allow_nan=False))
        assert [(found["metric"], found["unit"], found["better"]) for found in document["metrics"]] == [
            ("dice", "", "higher"),
            ("hd95", "mm", "lower"),
        ]
        assert document["protocol"]["ropes"] == {"dice": 0.005, "hd95": 0.5}

    def test_markdown_has_a_section_per_metric(self, report):
        text = markdown(report)
        assert "## Dice, the main metric" in text
        assert "## HD95 (mm)" in text
        assert text.count("| evolved better than | ") == 2

    def test_how_many_metrics_are_measured_is_told(self, report):
        told = "\n".join(report.notes)
        assert "2 metrics are measured (dice, hd95), and dice was named as the main one before. p values of" in told
        assert "adjusted by Holm over all pairs of one metric" in told
        assert "Ropes: dice 0.005, hd95 0.5 mm." in told
        assert "metrics are measured" not in "\n".join(report_of(DICE).notes)

    def test_failures_name_the_worst_values(self):
        report = report_of(
            DICE,
            failed=("focal",),
            metrics="dice,hd95,volume_error_percent",
            others=dict.fromkeys(("hd95", "volume_error_percent"), HD95),
        )
        told = "\n".join(report.notes)
        assert (
            "score the worst values (dice 0, hd95 = diagonal of the field of view, volume_error_percent 100 %)" in told
        )
        assert "A prediction that is too large can have a worse volume_error_percent." in told
