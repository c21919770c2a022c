"""Losses tuned inside the folds of a comparison, with real trainings on Ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lossevo.comparison import Comparison, contenders_with_specs, read_specs
from lossevo.comparison.leakage import plan_folds
from lossevo.comparison.protocol import Protocol
from lossevo.comparison.tuned import courses, spaces
from lossevo.data import MERGED
from lossevo.errors import LossevoError
from lossevo.experiment import CohortSource, Ledger, Subjects
from lossevo.metrics import parse_metrics
from lossevo.tuning import Tuning, TuningConfig, TuningSettings, Workers
from tests.cohorts import SPACING_MM, write_balls
from tests.comparison.conftest import SMALL

FEW = TuningSettings(trials=3, finalists=1, seeds=1, window=3)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    return write_balls(tmp_path_factory.mktemp("data") / "balls")


@pytest.fixture(scope="module")
def tuned(cohort, configured, in_process, ray_of_the_tests, tmp_path_factory) -> Comparison:
    folder = tmp_path_factory.mktemp("comparisons") / "tuned"
    config = configured(cohort, ("dice", "tversky"), steps=4, tuning=FEW, metrics="dice")
    Comparison.create(folder, config).run(in_process, tuners=Workers(1))
    return Comparison.open(folder)


def records(file: Path) -> list[dict[str, Any]]:
    with Ledger(file, read_only=True) as ledger:
        return [{**record.trial, "candidate": record.candidate} for record in ledger.records()]


def test_no_loss_is_tuned_on_whom_its_fold_tests(tuned):
    tested = [{*subjects} for subjects in tuned.plan.test]
    seen: dict[int, set[str]] = {}
    for trial in records(tuned.folder / "tuning" / "ledger.sqlite"):
        fold = int(trial["candidate"].partition(", fold ")[2].partition(":")[0])
        split = trial["split"]
        assert set(split["train"]).isdisjoint(split["validate"])
        seen.setdefault(fold - 1, set()).update(split["train"], split["validate"])
    assert {*seen} == {0, 1}
    for fold, subjects in seen.items():
        assert subjects == {*tuned.plan.train(fold)}
        assert subjects.isdisjoint(tested[fold])


def test_each_fold_is_trained_with_what_was_kept_in_it(tuned):
    document = json.loads((tuned.folder / "tuning" / "summary.json").read_text())
    kept = {(entry["loss"], entry["fold"]): (entry["spec"], entry["learning_rate"]) for entry in document["losses"]}
    assert {*kept} == {(loss, fold) for loss in ("dice", "tversky") for fold in (1, 2)}
    trials = records(tuned.folder / "ledger.sqlite")
    assert len(trials) == 4
    for trial in trials:
        fold = next(f for f, subjects in enumerate(tuned.plan.test, 1) if [*subjects] == trial["split"]["validate"])
        assert (trial["loss"], trial["learning_rate"]) == kept[trial["candidate"], fold]


def test_a_finished_one_needs_neither_ray_nor_training(tuned, monkeypatch):
    before = {name: (tuned.folder / name).read_text() for name in ("summary.csv", "table.md", "cases.csv")}
    report = Comparison.open(tuned.folder).run(lambda spec: pytest.fail("trained again"))
    assert {name: (tuned.folder / name).read_text() for name in before} == before
    assert report.protocol.tuning == FEW


def test_outputs_say_that_losses_are_tuned(tuned):
    table = (tuned.folder / "table.md").read_text()
    assert "Tuned in each fold, on its training subjects alone: the learning rate and bounded parameters" in table
    document = json.loads((tuned.folder / "summary.json").read_text())
    assert document["protocol"]["tuning"]["trials"] == 3


def test_an_unfinished_one_refuses_to_tune_in_process(cohort, configured, in_process, tmp_path):
    comparison = Comparison.create(tmp_path / "out", configured(cohort, tuning=FEW, metrics="dice"))
    with pytest.raises(LossevoError, match="a tuning trains on Ray, not in process"):
        comparison.run(in_process)


def test_losses_without_anything_to_tune_stay_as_they_are(cohort, configured):
    contenders = contenders_with_specs(["dice", "tversky"])
    parameters = TuningSettings(what=("parameters",))
    assert [*spaces(contenders, 2, parameters, 0.01)] == [("tversky", 0), ("tversky", 1)]
    with pytest.raises(LossevoError, match="none of the losses has a bounded parameter to tune"):
        spaces(contenders[:1], 2, parameters, 0.01)


def test_a_learning_rate_of_its_own_is_trained_with_where_parameters_alone_are_tuned(tmp_path):
    file = tmp_path / "losses.yaml"
    file.write_text("slow: {name: tversky, learning_rate: 0.002}\n")
    found = spaces(read_specs(file), 2, TuningSettings(what=("parameters",)), 0.01)
    assert found["slow", 0].placed(found["slow", 0].start) == ({"name": "tversky"}, 0.002)


def test_a_note_says_where_losses_are_tuned_and_with_which_part_of_the_subjects():
    folds = Protocol(
        cohort="B", class_names=("background", "ball"), spacing_mm=(4.0, 4.0, 4.0), folds=3, steps=4, seeds=1, seed=0,
        tested=("b",), train_only=(), metrics=parse_metrics("dice"), ropes={"dice": 0.005}, tuning=FEW,
    )  # fmt: skip
    assert folds.tuned.startswith("Tuned in each fold, on its training subjects alone: ")
    assert "A part of the training subjects" not in folds.tuned
    external = replace(folds, trained_on="A", fractions=(0.5,))
    assert external.tuned.startswith("Tuned on the training subjects alone: ")
    assert "A part of the training subjects is trained with the same values" in external.tuned


def test_the_ledger_of_the_tunings_is_there_from_the_beginning(cohort, configured, tmp_path):
    """Made later, it could be left half made by a crash, and the comparison could never go on."""
    folder = tmp_path / "out"
    Comparison.create(folder, configured(cohort, tuning=FEW, metrics="dice"))
    assert records(folder / "tuning" / "ledger.sqlite") == []
    Comparison.create(tmp_path / "plain", configured(cohort, metrics="dice"))
    assert not (tmp_path / "plain" / "tuning").exists()


def test_a_volume_error_cannot_be_tuned_by(cohort, configured, tmp_path):
    config = configured(cohort, tuning=FEW, metrics="volume_error,dice")
    with pytest.raises(LossevoError, match="--tune: losses are tuned by the first of --metrics, but volume_error"):
        Comparison.create(tmp_path / "out", config)


def test_a_fold_with_one_training_subject_cannot_be_tuned_in(balls, configured, tmp_path):
    config = configured(balls(2), folds=2, tuning=FEW, metrics="dice")
    with pytest.raises(LossevoError, match=r"--tune: fold 1: 1 subject\(s\) cannot be split"):
        Comparison.create(tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


def test_all_losses_of_a_fold_are_tuned_on_the_same_split_with_the_same_seeds(tuned):
    found = courses(tuned.config, tuned.plan, tuned.data)
    for fold in (1, 2):
        same = [course.problem for course in found if course.problem.fold == fold]
        assert len({(problem.split, problem.seed, problem.place) for problem in same}) == 1


@pytest.fixture(scope="module")
def tuned_folder(cohort, ray_of_the_tests, tmp_path_factory) -> Path:
    config = TuningConfig(
        losses=("tversky", "dice"),
        settings=FEW,
        steps=4,
        task=SMALL,
        cohort=CohortSource(path=cohort),
        labels=MERGED,
        spacing_mm=SPACING_MM,
    )
    tuning = Tuning.create(tmp_path_factory.mktemp("tuned") / "tuned", config)
    tuning.run(Workers(1))
    return tuning.folder


class TestTunedFiles:
    """``lossevo tune``, then ``lossevo evaluate --specs``."""

    @pytest.fixture
    def evaluated(self, tuned_folder, cohort) -> Callable[..., Any]:
        def plan(**given: Any):
            (contender,) = read_specs(tuned_folder / "tversky.yaml")
            subjects = Subjects.read(tuned_folder)
            return plan_folds([contender], subjects.hashes, cohort=CohortSource(path=cohort), folds=2, seed=0, **given)

        return plan

    def test_nobody_is_tested_with_a_loss_that_was_tuned_on_him(self, tuned_folder, evaluated):
        subjects = Subjects.read(tuned_folder)
        plan = evaluated()
        assert {*plan.tested} == {*subjects.untouched}
        assert {*plan.train_only} == {*subjects.train, *subjects.validation}
        with pytest.raises(LossevoError, match="the search of tversky_tuned has seen 6"):
            evaluated(test_on="all")

    def test_it_has_the_learning_rate_and_the_settings_of_its_tuning(self, tuned_folder, cohort):
        (contender,) = read_specs(tuned_folder / "dice.yaml")
        document = json.loads((tuned_folder / "summary.json").read_text())["losses"][1]
        assert contender.learning_rate == document["learning_rate"]
        assert contender.tuned
        assert contender.search.cohort.path == cohort
        assert contender.search.task == SMALL
        (plain,) = contenders_with_specs(["dice"])
        assert contender.identity != plain.identity

    def test_a_file_without_the_folder_of_its_tuning_is_refused(self, tuned_folder, tmp_path):
        lonely = tmp_path / "tversky.yaml"
        lonely.write_text((tuned_folder / "tversky.yaml").read_text())
        with pytest.raises(LossevoError, match=r"not a tuning folder \(it has no tuning.json\)"):
            read_specs(lonely)

    def test_a_file_of_a_loss_that_was_not_tuned_there_is_refused(self, tuned_folder, tmp_path):
        file = tmp_path / "focal.yaml"
        file.write_text(f"focal_tuned: {{name: focal, learning_rate: 0.02, tuned_in: {tuned_folder}}}\n")
        with pytest.raises(LossevoError, match=r"a loss focal is said to be tuned there, but ledger\.sqlite has no"):
            read_specs(file)
