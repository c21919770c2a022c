from __future__ import annotations

import csv
import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lossevo.comparison import Comparison
from lossevo.data import MERGED, SEPARATE, splits_json
from lossevo.errors import LossevoError
from lossevo.experiment import Event, Subjects
from lossevo.metrics import evaluate
from lossevo.search import read_config as read_run_config
from lossevo.training import Fidelity, TaskSettings, Trial
from lossevo.training.session import Session
from lossevo.training.trainer import Trainer
from tests.cohorts import write_balls
from tests.comparison.conftest import SPACING_MM, ball

OUTPUTS = (
    *("cases.csv", "summary.csv", "comparisons.csv", "pairs.csv", "ranks.csv", "challenger.csv"),
    *("claims_reloaded.csv", "summary.json", "table.md"),
)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "cases.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def outputs_of(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text(encoding="utf-8") for name in OUTPUTS}


class Stopped(Exception):
    """Ends a comparison in the middle."""


def stop_after(count: int):
    def listen(event: Event) -> None:
        if event.kind == "training" and event.progress.done == count:
            raise Stopped

    return listen


class TestProtocol:
    def test_every_subject_is_tested_once_per_loss_and_seed_and_never_trained_on(self, balls, configured, tmp_path):
        comparison = Comparison.create(tmp_path / "out", configured(balls(7), folds=3, seeds=2))
        assert len(comparison.schedule) == 2 * 3 * 2
        for seed in (0, 1):
            for loss in ("cross_entropy", "dice"):
                tested = [
                    subject
                    for planned in comparison.schedule
                    if (planned.seed, planned.contender.name) == (seed, loss)
                    for subject in planned.trial.fidelity.split.validate
                ]
                assert sorted(tested) == sorted({volume.subject for volume in comparison.data.volumes})
        for planned in comparison.schedule:
            split = planned.trial.fidelity.split
            assert set(split.train).isdisjoint(split.validate)
            assert len(split.train) + len(split.validate) == 7

    def test_losses_differ_in_nothing_but_the_loss(self, balls, configured, tmp_path):
        comparison = Comparison.create(tmp_path / "out", configured(balls(6), seeds=2))
        conditions: dict[tuple[int, int], set[Fidelity]] = {}
        for planned in comparison.schedule:
            conditions.setdefault((planned.seed, planned.fold), set()).add(planned.trial.fidelity)
        assert all(len(same) == 1 for same in conditions.values())
        seeds = [fidelity.seed for (fidelity,) in conditions.values()]
        assert len(set(seeds)) == len(seeds)
        assert min(seeds) >= 1_000_000  # no search uses these

    def test_fractions_differ_in_nothing_but_the_training_subjects(self, balls, configured, tmp_path):
        config = configured(balls(9), seeds=2, train_fraction="0.25,0.5")
        schedule = Comparison.create(tmp_path / "out", config).schedule
        assert [planned.fraction for planned in schedule] == [1.0] * 8 + [0.5] * 8 + [0.25] * 8
        whole, half, quarter = schedule[:8], schedule[8:16], schedule[16:]
        for one, two, three in zip(whole, half, quarter, strict=True):
            assert (one.contender, one.fold, one.seed) == (two.contender, two.fold, two.seed)
            for part in (two, three):
                assert part.trial.fidelity.seed == one.trial.fidelity.seed
                assert part.trial.fidelity.split.validate == one.trial.fidelity.split.validate
            trained = [{*each.trial.fidelity.split.train} for each in (three, two, one)]
            assert trained[0] < trained[1] < trained[2]
        for part in (half, quarter):  # for all losses and seeds of a fold
            assert len({(planned.fold, planned.trial.fidelity.split) for planned in part}) == 2

    def test_what_a_search_has_seen_is_only_trained_on(self, balls, searched_run, configured, tmp_path):
        cohort = balls(12)
        run = searched_run(cohort)
        comparison = Comparison.create(tmp_path / "out", configured(cohort, hof=[f"{run}:1"]))
        subjects = Subjects.read(run)
        assert comparison.plan.tested == subjects.untouched
        for planned in comparison.schedule:
            assert {*subjects.train, *subjects.validation} <= set(planned.trial.fidelity.split.train)

    def test_also_in_a_renamed_copy_of_the_cohort(self, balls, searched_run, configured, tmp_path):
        run = searched_run(balls(12))
        copy = balls({f"patient{number}": number for number in range(12)}, name="copy")
        comparison = Comparison.create(tmp_path / "out", configured(copy, hof=[f"{run}:1"]))
        untouched = {int(name.removeprefix("ball_")) for name in Subjects.read(run).untouched}
        assert {int(name.removeprefix("patient")) for name in comparison.plan.tested} == untouched

    def test_labels_and_spacing_are_those_of_the_run_unless_given(self, balls, searched_run, configured):
        cohort = balls(8)
        run = searched_run(cohort)
        assert configured(cohort, hof=[run], spacing_mm=None).spacing_mm == (4.0, 4.0, 4.0)
        assert configured(cohort, hof=[run], spacing_mm=(8.0, 8.0, 8.0)).spacing_mm == (8.0, 8.0, 8.0)
        assert configured(cohort, spacing_mm=None).spacing_mm is None
        assert configured(cohort, hof=[run]).labels == MERGED
        assert configured(cohort, hof=[run], labels="separate").labels == SEPARATE

    def test_the_task_is_that_of_the_run_unless_given(self, balls, searched_run, configured):
        cohort = balls(8)
        run = searched_run(cohort)
        searched = read_run_config(run).task
        assert searched != TaskSettings()
        assert configured(cohort, hof=[run], task=None, steps=None).task == searched.model_copy(
            update={"validations": 1, "budget_steps": 2 * searched.budget_steps}
        )
        assert configured(cohort, hof=[run], task=TaskSettings(), steps=9).task == TaskSettings(
            budget_steps=9, validations=1
        )
        assert configured(cohort, task=None, steps=9).task == TaskSettings(budget_steps=9, validations=1)

    def test_runs_with_different_tasks_need_a_decision(self, balls, searched_run, configured):
        cohort = balls(8)
        one, two = searched_run(cohort, name="one"), searched_run(cohort, name="two", evolved="class_mean(mean(y / p))")
        change(two / "run.json", task=json.loads((two / "run.json").read_text())["task"] | {"budget_steps": 77})
        with pytest.raises(LossevoError, match=r"different task \(.*budget_steps.*; say which with --task"):
            configured(cohort, hof=[one, two], task=None, steps=None)
        assert configured(cohort, hof=[one, two], task=None, steps=9).task.budget_steps == 9


class TestGivenSplits:
    """Folds from nnU-Net's ``splits_final.json`` in place of drawn ones."""

    FOLDS = (("ball_00", "ball_03"), ("ball_01",), ("ball_04", "ball_05"))

    @pytest.fixture
    def splits(self, tmp_path) -> Path:
        file = tmp_path / "splits_final.json"
        file.write_text(splits_json(self.FOLDS, {f"ball_{number:02d}": f"ball_{number:02d}" for number in range(6)}))
        return file

    def test_are_the_folds(self, balls, configured, splits, tmp_path):
        folder = tmp_path / "out"
        comparison = Comparison.create(folder, configured(balls(6), splits=splits))
        assert comparison.plan.test == self.FOLDS
        assert comparison.plan.train_only == ("ball_02",)
        assert len(comparison.schedule) == 3 * 2
        assert (folder / "splits_final.json").read_text() == splits.read_text()
        splits.unlink()
        assert Comparison.open(folder).plan == comparison.plan

    def test_drawn_folds_are_written_and_can_be_given(self, balls, configured, tmp_path):
        cohort = balls(6)
        drawn = Comparison.create(tmp_path / "drawn", configured(cohort, folds=3, seed=4))
        splits = tmp_path / "drawn" / "splits_final.json"
        assert Comparison.create(tmp_path / "again", configured(cohort, splits=splits)).plan == drawn.plan

    def test_of_another_cohort_write_nothing(self, balls, configured, splits, tmp_path):
        with pytest.raises(LossevoError, match=r"fold 0 leaves out 1 case\(s\) of the cohort: ball_06"):
            Comparison.create(tmp_path / "out", configured(balls(7), splits=splits))
        assert not (tmp_path / "out").exists()

    def test_what_a_search_has_seen_is_not_tested(self, balls, searched_run, configured, tmp_path):
        cohort = balls(12)
        run = searched_run(cohort)
        everyone = [f"ball_{number:02d}" for number in range(12)]
        untouched = {*Subjects.read(run).untouched}
        folds = (everyone[:6], everyone[6:])
        assert all(untouched & {*fold} for fold in folds)
        splits = tmp_path / "splits.json"
        splits.write_text(splits_json(folds, {name: name for name in everyone}))
        comparison = Comparison.create(tmp_path / "out", configured(cohort, hof=[f"{run}:1"], splits=splits))
        assert comparison.plan.test == tuple(tuple(sorted(untouched & {*fold})) for fold in folds)
        assert {*comparison.plan.train_only} == {*everyone} - untouched

        seen = [name for name in everyone if name not in untouched]
        splits.write_text(splits_json((sorted(untouched), seen), {name: name for name in everyone}))
        with pytest.raises(LossevoError, match="2 folds need in each a subject that no compared search"):
            Comparison.create(tmp_path / "refused", configured(cohort, hof=[f"{run}:1"], splits=splits))


class TestRun:
    def test_end_to_end(self, balls, searched_run, configured, in_process, tmp_path):
        cohort = balls(12)
        run = searched_run(cohort)
        folder = tmp_path / "out"
        events: list[Event] = []
        config = configured(cohort, hof=[f"{run}:1"], steps=30)
        report = Comparison.create(folder, config).run(in_process, listener=events.append)

        rows = rows_of(folder)
        untouched = Subjects.read(run).untouched
        assert [row["loss"] for row in rows if row["subject"] == untouched[0]] == ["cross_entropy", "dice", "myo:1"]
        assert len(rows) == 3 * len(untouched)
        assert {row["status"] for row in rows} == {"done"}
        assert all(0 <= float(row["dice"]) <= 1 for row in rows)
        assert {row["leakage"] for row in rows} == {"false"}
        assert {row["class"] for row in rows} == {"vertebra"}

        assert report.reference == "myo:1"
        assert [pair.loss for pair in report.main.pairs] == [r.loss for r in report.losses if r.loss != "myo:1"]
        for result in report.results:
            for found in result.losses:
                values = [float(row[result.metric.name]) for row in rows if row["loss"] == found.loss]
                assert found.score.mean == pytest.approx(sum(values) / len(values), abs=1e-6)
        # Bright balls are easy: whatever is wrong with folds, patches or seeds shows here.
        assert max(found.score.mean for found in report.main.losses) > 0.5

        done = [event.progress.done for event in events if event.kind == "training"]
        assert done == list(range(1, 7))
        assert events[-1].progress.total == 6
        document = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        assert document["protocol"]["tested"] == list(untouched)
        assert "myo:1" in (folder / "table.md").read_text(encoding="utf-8")

    def test_a_finished_comparison_is_evaluated_again_without_training(self, balls, configured, in_process, tmp_path):
        folder = tmp_path / "out"
        Comparison.create(folder, configured(balls(4))).run(in_process)
        before = outputs_of(folder)
        for name in OUTPUTS:
            (folder / name).unlink()

        def no_executor(spec):
            raise AssertionError("nothing is left to train")

        kinds = []
        Comparison.open(folder).run(no_executor, listener=lambda event: kinds.append(event.kind))
        assert outputs_of(folder) == before
        assert kinds == ["replayed"] * 4

    def test_a_folder_of_before_fractions_and_external_tests(self, balls, configured, in_process, tmp_path):
        folder = tmp_path / "out"
        Comparison.create(folder, configured(balls(4))).run(in_process)
        before = outputs_of(folder)
        for name, keys in (("comparison.json", ("fractions", "test_cohort")), ("folds.json", ("left_out", "cohorts"))):
            document = json.loads((folder / name).read_text(encoding="utf-8"))
            kept = {key: value for key, value in document.items() if key not in keys}
            assert len(kept) == len(document) - 2
            (folder / name).write_text(json.dumps(kept), encoding="utf-8")
        kinds = []
        Comparison.open(folder).run(in_process, listener=lambda event: kinds.append(event.kind))
        assert (kinds, outputs_of(folder)) == (["replayed"] * 4, before)

    def test_a_diverging_loss_scores_the_worst_values_and_is_counted(
        self, balls, configured, in_process, write_loss, tmp_path
    ):
        # 10^48 is infinite in float32.
        path = write_loss("wild", "1e12 * 1e12 * 1e12 * 1e12 * class_mean(mean(y / p))")
        config = configured(balls(4), loss_files=[path], metrics="hd95,dice,nsd@2mm,volume_error")
        told = []
        report = Comparison.create(tmp_path / "out", config).run(
            in_process, listener=lambda event: told.append(event.message)
        )
        wild = next(result for result in report.losses if result.loss == "wild")
        assert (wild.failures, wild.trainings) == (2, 2)
        assert report.losses[-1] is wild
        rows = [row for row in rows_of(tmp_path / "out") if row["loss"] == "wild"]
        diagonal = (32**2 + 64**2 + 64**2) ** 0.5  # of 8 × 16 × 16 voxels of 4 mm
        assert [(row["dice"], row["nsd@2mm"], row["status"]) for row in rows] == [
            ("0.000000", "0.000000", "diverged")
        ] * 4
        assert [float(row["hd95"]) for row in rows] == pytest.approx([diagonal] * 4, abs=1e-6)
        volumes = {f"ball_{number:02d}": int(ball(number)[1].sum()) * 0.064 for number in range(4)}
        assert {row["case"]: float(row["volume_error"]) for row in rows} == pytest.approx(volumes, abs=1e-6)
        assert any("2 of 6 trainings failed and score the worst values (hd95 = diagonal" in n for n in report.notes)
        assert sum("wild" in message and "diverged: " in message and "step" in message for message in told) == 2

    def test_values_are_those_of_the_metrics_on_predictions_made_by_hand(self, balls, configured, in_process, tmp_path):
        config = configured(balls(4), losses=["dice"], steps=20, metrics="dice,nsd@2mm,hd95")
        comparison = Comparison.create(tmp_path / "out", config)
        comparison.run(in_process)
        rows = {row["case"]: row for row in rows_of(tmp_path / "out")}
        labels = {volume.case_id: np.asarray(volume.label) for volume in comparison.data.volumes}
        for planned in comparison.schedule:
            for case, prediction in predictions_of(planned.trial, comparison).items():
                expected = evaluate(prediction, labels[case], SPACING_MM, ["dice", "nsd@2mm", "hd95"], classes=[1])[1]
                assert {name: float(rows[case][name]) for name in expected} == pytest.approx(expected, abs=1e-6)

    def test_a_fine_tolerance_is_warned_of_once_and_before_any_training(
        self, balls, configured, in_process, tmp_path, recwarn
    ):
        config = configured(balls(4), losses=["dice"], metrics="nsd@0.9mm,nsd@1mm")
        comparison = Comparison.create(tmp_path / "out", config)
        told = [str(warning.message) for warning in recwarn if "tolerance" in str(warning.message)]
        assert len(told) == 1
        assert told[0].startswith("the tolerance of nsd@0.9mm is below a quarter of the voxel size (4 mm)")
        comparison.run(in_process)
        assert len([warning for warning in recwarn if "tolerance" in str(warning.message)]) == 1

    def test_allowed_leakage_is_marked_where_it_is(self, balls, searched_run, configured, in_process, tmp_path):
        cohort = balls(6)
        run = searched_run(cohort)
        config = configured(cohort, hof=[f"{run}:1"], losses=["dice"], test_on="all", allow_leakage=True)
        report = Comparison.create(tmp_path / "out", config).run(in_process)
        subjects = Subjects.read(run)
        marked = {(row["loss"], row["subject"]) for row in rows_of(tmp_path / "out") if row["leakage"] == "true"}
        assert marked == {("myo:1", subject) for subject in (*subjects.train, *subjects.validation)}
        assert "LEAKAGE" in report.title
        for name in ("summary.json", "table.md"):
            assert "LEAKAGE" in (tmp_path / "out" / name).read_text(encoding="utf-8")


class TestEmptyLabels:
    """A cohort of which only some subjects have a structure, and a class that few have."""

    @pytest.fixture
    def cohort(self, write_nnunet_cohort) -> Path:
        cases = {}
        for number in range(8):
            rng = np.random.default_rng(number)
            image, label = rng.normal(10, 1, size=(8, 16, 16)), np.zeros((8, 16, 16), np.uint8)
            if number % 2 == 0:
                label[2:6, 4:9, 4:9] = 1
            if number in (0, 2):
                label[2:6, 10:14, 10:14] = 2
            cases[f"case{number}"] = ((image + 4 * (label > 0)).astype(np.float32), label)
        return write_nnunet_cohort(cases, labels={"background": 0, "cyst": 1, "tumour": 2}, spacing_mm=(4.0, 4.0, 4.0))

    def test_every_loss_is_judged_on_the_same_subjects(self, cohort, configured, in_process, write_loss, tmp_path):
        diverging = write_loss("wild", "1e12 * 1e12 * 1e12 * 1e12 * class_mean(mean(y / p))")
        config = configured(
            cohort, ["dice", "cross_entropy"], loss_files=[diverging], seeds=2, seed=1, labels="separate", steps=8
        )
        comparison = Comparison.create(tmp_path / "out", config)
        assert comparison.unscored == ("case1", "case3", "case5", "case7")
        report = comparison.run(in_process)
        assert {found.score.subjects for result in report.results for found in result.losses} == {4}
        assert {pair.difference.subjects for result in report.results for pair in result.pairs} == {4}
        # Of 8 cases with 2 classes 6 labels have a class, and 10 lack one, in 2 repetitions.
        assert {result.alarms.without_class for result in report.losses} == {20}
        rows = rows_of(tmp_path / "out")
        scored = {
            loss: {(row["case"], row["class"], row["seed"]) for row in rows if row["loss"] == loss and row["dice"]}
            for loss in ("dice", "cross_entropy", "wild")
        }
        assert scored["dice"] == scored["cross_entropy"] == scored["wild"]
        assert len(scored["dice"]) == 12
        for name in ("dice", "nsd@2mm", "hd95"):
            assert all((row[name] == "") != (row["false_voxels"] == "") for row in rows)
        found = [(float(row["false_ml"]), 0.064 * int(row["false_voxels"])) for row in rows if row["false_voxels"]]
        assert [ml for ml, _ in found] == pytest.approx([ml for _, ml in found])
        # So few steps paint whole volumes: what a false alarm is shows in real trainings.
        alarms = {result.loss: result.alarms for result in report.losses}
        assert alarms["dice"].false_alarms > 0
        assert alarms["wild"].false_alarms == 0

    def test_a_class_that_cannot_be_scored_or_learned_is_told_before_any_training(self, cohort, configured, tmp_path):
        splits = tmp_path / "splits.json"
        everyone = [f"case{number}" for number in range(8)]
        splits.write_text(splits_json((everyone[:4], everyone[4:]), {name: name for name in everyone}))
        with pytest.warns(UserWarning, match="fold 1 tests tumour, which no subject that it trains on has"):
            Comparison.create(tmp_path / "one", configured(cohort, splits=splits, labels="separate"))
        change(cohort / "dataset.json", labels={"background": 0, "cyst": 1, "tumour": 2, "meniscus": 3})
        with pytest.warns(UserWarning, match="no tested subject has meniscus: there is no score of it"):
            Comparison.create(tmp_path / "two", configured(cohort, labels="separate", seed=1))


def predictions_of(trial: Trial, comparison: Comparison) -> dict[str, np.ndarray]:
    """Train as a worker does it, and take the largest output: a ball is no larger than the network's window."""
    session = Session(trial, Trainer(comparison.data))
    session.advance(trial.fidelity.steps)
    tested = [volume for volume in comparison.data.volumes if volume.subject in trial.fidelity.split.validate]
    with torch.inference_mode():
        images = ((volume.case_id, torch.from_numpy(volume.image.copy())[None]) for volume in tested)
        return {case: session._network(image).argmax(dim=1)[0].numpy() for case, image in images}


@pytest.fixture(scope="module")
def undisturbed(configured, in_process, tmp_path_factory):
    """The configuration of a comparison, and its outputs when nothing stops it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    config = configured(write_balls(folder / "balls", 5), losses=["cross_entropy", "dice", "focal"])
    Comparison.create(folder / "out", config).run(in_process)
    return config, outputs_of(folder / "out")


class TestResume:
    def test_after_a_stop_the_outputs_are_the_same(self, undisturbed, in_process, tmp_path):
        config, expected = undisturbed
        folder = tmp_path / "stopped"
        with pytest.raises(Stopped):
            Comparison.create(folder, config).run(in_process, listener=stop_after(2))
        assert expected["cases.csv"].startswith((folder / "cases.csv").read_text(encoding="utf-8"))
        with pytest.raises(Stopped):
            Comparison.open(folder).run(in_process, listener=stop_after(5))
        assert expected["cases.csv"].startswith((folder / "cases.csv").read_text(encoding="utf-8"))
        Comparison.open(folder).run(in_process)
        assert outputs_of(folder) == expected

    def test_after_a_stop_among_the_fractions_the_outputs_are_the_same(self, balls, configured, in_process, tmp_path):
        config = configured(balls(5), seeds=2, train_fraction="0.5")
        comparison = Comparison.create(tmp_path / "through", config)
        comparison.run(in_process)
        files = (*OUTPUTS, "fractions.csv", "fraction_cases.csv")
        expected = {name: (tmp_path / "through" / name).read_text(encoding="utf-8") for name in files}
        folder = tmp_path / "stopped"
        with pytest.raises(Stopped):
            Comparison.create(folder, config).run(in_process, listener=stop_after(11))  # 8 with all, then 8 with half
        assert (folder / "cases.csv").read_text(encoding="utf-8") == expected["cases.csv"]
        assert expected["fraction_cases.csv"].startswith((folder / "fraction_cases.csv").read_text(encoding="utf-8"))
        reopened = Comparison.open(folder)
        assert reopened.schedule == comparison.schedule
        reopened.run(in_process)
        assert {name: (folder / name).read_text(encoding="utf-8") for name in files} == expected

    def test_after_kill_9_the_outputs_are_the_same(self, undisturbed, in_process, tmp_path):
        config, expected = undisturbed
        folder = tmp_path / "killed"
        Comparison.create(folder, config)
        killed = subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False, timeout=120)
        assert killed.returncode == -signal.SIGKILL
        with sqlite3.connect(folder / "ledger.sqlite") as ledger:
            (finished,) = ledger.execute("SELECT COUNT(*) FROM trials WHERE status IS NOT NULL").fetchone()
        assert finished == 3
        replayed = []
        Comparison.open(folder).run(in_process, listener=lambda event: replayed.append(event.kind == "replayed"))
        assert sum(replayed) == 3
        assert outputs_of(folder) == expected


KILLED = """
import os, signal, sys
from pathlib import Path
from lossevo.cluster import open_executor
from lossevo.comparison import Comparison

arrived = 0
def listen(event):
    global arrived
    arrived += event.kind == "arrived"
    if arrived == 3:
        os.kill(os.getpid(), signal.SIGKILL)

Comparison.open(Path(sys.argv[1])).run(lambda spec: open_executor(spec, in_process=True), listener=listen)
"""


class TestRefused:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"steps": 0}, "--steps is 0; give at least 1"),
            ({"folds": 1}, "--folds is 1; give at least 2"),
            ({"seeds": 0}, "--seeds is 0; give at least 1"),
            ({"seed": -1}, "--seed is -1; give at least 0"),
            ({"seed": 2**31}, "--seed is 2147483648; give at most 2147483647"),
            ({"metrics": "dise"}, r"--metrics: unknown metric 'dise' \(did you mean 'dice'\?\)"),
            ({"metrics": "dice,nsd"}, "--metrics: metric 'nsd' needs a tolerance in mm, as in 'nsd@2mm'"),
            ({"metrics": "nsd@2mm,hd,nsd@2.0mm"}, "--metrics: metric 'nsd@2mm' is given twice"),
            ({"rope": "much"}, "--rope of dice is 'much'; give a difference from 0 to 1, such as 'dice=0.005'"),
            ({"rope": "nan"}, "--rope of dice is 'nan'; give a difference from 0 to 1"),
            ({"rope": "1.5"}, "--rope of dice is '1.5'; give a difference from 0 to 1"),
            ({"rope": "hd95=-1"}, "--rope of hd95 is '-1'; give a difference in mm from 0 up, such as 'hd95=0.5'"),
            ({"rope": "assd=1"}, "--rope names assd, which is not among --metrics dice,nsd@2mm,hd95; leave it out"),
            ({"rope": "nsd=1"}, "--rope: metric 'nsd' needs a tolerance in mm"),
            ({"rope": "0.01,dice=0.02"}, "--rope states dice twice; state it once"),
            ({"folds": 4, "seeds": 251}, "4 folds with 251 seeds are 1004 trainings of each loss; give at most 1000"),
        ],
    )
    def test_numbers_out_of_range(self, balls, configured, given, message):
        with pytest.raises(LossevoError, match=message):
            configured(balls(4), **given)

    def test_more_folds_than_subjects_writes_nothing(self, balls, configured, tmp_path):
        with pytest.raises(LossevoError, match="5 folds need at least 5 subjects"):
            Comparison.create(tmp_path / "out", configured(balls(4), folds=5))
        assert not (tmp_path / "out").exists()

    def test_a_missing_cohort(self, configured, tmp_path):
        with pytest.raises(LossevoError, match="nowhere"):
            Comparison.create(tmp_path / "out", configured(tmp_path / "nowhere"))

    def test_a_folder_that_exists(self, balls, configured, tmp_path):
        config = configured(balls(4))
        Comparison.create(tmp_path / "out", config)
        with pytest.raises(LossevoError, match=r"exists already; go on with 'lossevo evaluate --resume .*out'"):
            Comparison.create(tmp_path / "out", config)
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "thesis.tex").touch()
        with pytest.raises(LossevoError, match="exists already; nothing is overwritten"):
            Comparison.create(tmp_path / "other", config)

    def test_not_a_comparison_folder(self, tmp_path):
        with pytest.raises(LossevoError, match=r"not a comparison folder \(it has no comparison.json\)"):
            Comparison.open(tmp_path)

    @pytest.mark.parametrize("other", ["lossevo.comparison/2", "lossevo.comparison/4"])
    def test_another_format(self, balls, configured, tmp_path, other):
        """In the first, Dice alone was measured."""
        Comparison.create(tmp_path / "out", configured(balls(4)))
        change(tmp_path / "out" / "comparison.json", format=other)
        with pytest.raises(LossevoError, match=rf"comparison.json: format '{other}', but this lossevo reads"):
            Comparison.open(tmp_path / "out")

    def test_a_damaged_configuration(self, balls, configured, tmp_path):
        Comparison.create(tmp_path / "out", configured(balls(4)))
        change(tmp_path / "out" / "comparison.json", folds="many")
        with pytest.raises(LossevoError, match=r"comparison\.json: folds: Input should be a valid integer"):
            Comparison.open(tmp_path / "out")

    def test_a_newer_ledger(self, balls, configured, in_process, tmp_path):
        comparison = Comparison.create(tmp_path / "out", configured(balls(4)))
        with sqlite3.connect(tmp_path / "out" / "ledger.sqlite") as ledger:
            ledger.execute("PRAGMA user_version = 99")
        with pytest.raises(LossevoError, match="written by a newer lossevo"):
            comparison.run(in_process)

    def test_a_cohort_that_changed(self, balls, configured, tmp_path):
        cohort = balls(5)
        Comparison.create(tmp_path / "out", configured(cohort))
        for file in cohort.rglob("ball_04*"):
            file.unlink()
        change(cohort / "dataset.json", numTraining=4)
        with pytest.raises(LossevoError, match="has changed since this comparison began"):
            Comparison.open(tmp_path / "out")

    def test_a_second_process(self, balls, configured, in_process, tmp_path):
        comparison = Comparison.create(tmp_path / "out", configured(balls(4)))

        def again(event: Event) -> None:
            if event.kind == "training":
                comparison.run(in_process)

        with pytest.raises(LossevoError, match="another process works in this folder"):
            comparison.run(in_process, listener=again)

    def test_runs_that_disagree_about_the_spacing(self, balls, searched_run, configured):
        cohort = balls(8)
        one, two = searched_run(cohort, "one"), searched_run(cohort, "two", evolved="class_mean(mean(y / p))")
        change(two / "run.json", spacing_mm=[8.0, 8.0, 8.0])
        with pytest.raises(LossevoError, match=r"different spacing_mm .*one:1.*two:1.*--spacing"):
            configured(cohort, hof=[one, two], spacing_mm=None)

    def test_a_fold_without_any_label(self, balls, configured, tmp_path, write_nnunet_cohort):
        rng = np.random.default_rng(0)
        cases = {}
        for number in range(4):
            label = np.zeros((8, 16, 16), np.uint8)
            label[2:6, 4:9, 4:9] = number == 0
            cases[f"case{number}"] = (rng.normal(10, 1, size=(8, 16, 16)).astype(np.float32), label)
        cohort = write_nnunet_cohort(cases, spacing_mm=(4.0, 4.0, 4.0))
        with pytest.raises(LossevoError, match=r"no test subject of fold [12] .* has a labelled voxel"):
            Comparison.create(tmp_path / "out", configured(cohort))


def change(path: Path, **entries: object) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**document, **entries}), encoding="utf-8")
