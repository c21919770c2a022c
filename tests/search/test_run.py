from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lossevo.cluster import Status
from lossevo.data import MERGED, SEPARATE, LabelScheme
from lossevo.data.patches import StoredPatchBank
from lossevo.errors import LossevoError, ResumableError
from lossevo.experiment import CohortSource, Subjects, hall_of_fame
from lossevo.experiment.folder import locked
from lossevo.experiment.ledger import Ledger
from lossevo.experiment.study import retry_failures
from lossevo.search import Run, RunConfig, give_budget, read_config
from lossevo.training import TaskSettings
from tests.cohorts import SPACING_MM, balls
from tests.search.synthetic import Killed, SyntheticExecutor, run_search, small_space

IN_THE_END = {"findings.json", "hall_of_fame.csv", "hall_of_fame.json"}
FILES = {"ledger.sqlite", "preprocessing.json", "run.json", "subjects.json", *IN_THE_END}
MORE = 56
TASK = TaskSettings(patch_size=(8, 16, 16), patches_per_volume=2, channels=(4, 8), strides=(2,), budget_steps=3)


@pytest.fixture
def cohort(write_nnunet_cohort) -> Path:
    return write_nnunet_cohort(balls(9), spacing_mm=SPACING_MM)


def config(cohort: Path, *, seed: int = 0, **budget) -> RunConfig:
    return RunConfig(
        space=small_space(**{"trainings": 32, **budget}), task=TASK, cohort=CohortSource(path=cohort), seed=seed
    )


@pytest.fixture
def folder(tmp_path, cohort) -> Path:
    """A run folder that nobody has searched in yet."""
    return Run.create(tmp_path / "runs" / "new", config(cohort)).folder


class TestCreate:
    def test_it_writes_down_what_was_asked_and_who_is_who(self, folder, cohort):
        assert {path.name for path in folder.iterdir()} - {".lock"} == FILES - IN_THE_END
        prepared = json.loads((folder / "preprocessing.json").read_text())
        assert prepared["spacing_mm"] == [4.0, 4.0, 4.0]
        assert list(prepared["cases"]) == sorted(balls(9))
        assert read_config(folder) == config(cohort)
        subjects = Subjects.read(folder)
        parts = [*subjects.train, *subjects.validation, *subjects.untouched]
        assert sorted(parts) == sorted(balls(9))
        assert (len(subjects.train), len(subjects.validation), len(subjects.untouched)) == (4, 2, 3)
        assert subjects.hashes.keys() == set(parts)
        assert len(set(subjects.hashes.values())) == 9

    def test_the_seed_decides_who(self, folder, tmp_path, cohort):
        again = Run.create(tmp_path / "again", config(cohort))
        other = Run.create(tmp_path / "other", config(cohort, seed=1))
        assert again.subjects == Subjects.read(folder)
        assert other.subjects.untouched != again.subjects.untouched

    def test_an_empty_folder_may_be_used(self, tmp_path, cohort):
        (tmp_path / "empty").mkdir()
        Run.create(tmp_path / "empty", config(cohort))

    def test_the_memory_allowed_decides_nothing(self, folder, tmp_path, cohort):
        small = Run.create(tmp_path / "small", config(cohort), patch_cache_bytes=0)
        assert isinstance(small.data.bank, StoredPatchBank)
        assert small.data.fingerprint == Run.open(folder).data.fingerprint
        assert Run.open(folder, patch_cache_bytes=0).data.bank.files == small.data.bank.files

    def test_preparation_is_told_of(self, tmp_path, cohort):
        told = []
        Run.create(tmp_path / "run", config(cohort), progress=lambda *what: told.append(what))
        assert told == [(number + 1, 9, f"ball_{number:02d}") for number in range(9)]

    def test_a_run_is_not_overwritten(self, folder, cohort):
        before = {path: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(LossevoError, match=r"exists already; go on with 'lossevo search --resume .*/new', or give"):
            Run.create(folder, config(cohort))
        assert {path: path.read_bytes() for path in folder.iterdir()} == before

    def test_nor_is_anything_else(self, tmp_path, cohort):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.tex").write_text("…")
        for occupied in (tmp_path / "mine", tmp_path / "mine" / "thesis.tex"):
            with pytest.raises(LossevoError, match="exists already; nothing is overwritten; give another folder"):
                Run.create(occupied, config(cohort))
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]

    def test_a_folder_that_cannot_be_made(self, tmp_path, cohort):
        (tmp_path / "file").write_text("")
        with pytest.raises(LossevoError, match=r"file/run: cannot be written"):
            Run.create(tmp_path / "file" / "run", config(cohort))

    @pytest.mark.parametrize(
        ("cases", "budget", "complains"),
        [
            (0, {}, "the cohort is empty"),
            (2, {}, r"2 subject\(s\) cannot be split"),
            (9, {"trainings": 9}, "a budget of 9 trainings is too small"),
        ],
    )
    def test_nothing_is_made_when_anything_is_wrong(self, tmp_path, write_nnunet_cohort, cases, budget, complains):
        cohort = write_nnunet_cohort(balls(cases), name="wrong")
        with pytest.raises(LossevoError, match=complains):
            Run.create(tmp_path / "run", config(cohort, **budget))
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("part", ["train", "validation"])
    def test_a_part_without_foreground_is_refused(self, tmp_path, write_nnunet_cohort, folder, part):
        """Else each training would fail, or learn nothing."""
        emptied = getattr(Subjects.read(folder), part)
        cases = {
            name: (image, np.zeros_like(label) if name in emptied else label)
            for name, (image, label) in balls(9).items()
        }
        cohort = write_nnunet_cohort(cases, spacing_mm=SPACING_MM, name="partly")
        with pytest.raises(LossevoError, match=rf"none of the subjects to {part[:5]}.* has a labelled voxel"):
            Run.create(tmp_path / "run", config(cohort))
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("part", "told"),
        [("train", "train on has cyst: no network can"), ("validation", "validate on has cyst: no score tells")],
    )
    def test_a_class_that_a_part_lacks_is_told_before_any_training(
        self, tmp_path, write_nnunet_cohort, folder, part, told
    ):
        lacking = getattr(Subjects.read(folder), part)
        cases = {}
        for name, (image, label) in balls(9).items():
            cases[name] = image, label.copy()
            cases[name][1][:2, :2, :2] = 0 if name in lacking else 2
        labels = {"background": 0, "vertebra": 1, "cyst": 2}
        cohort = write_nnunet_cohort(cases, labels=labels, spacing_mm=SPACING_MM, name="partly")
        asked = config(cohort).model_copy(update={"labels": SEPARATE, "spacing_mm": SPACING_MM})
        with pytest.warns(UserWarning, match=f"none of the subjects to {told}"):
            Run.create(tmp_path / "run", asked)


class TestOpen:
    def test_it_is_as_it_was_made(self, folder, cohort):
        opened = Run.open(folder)
        assert opened.config == config(cohort)
        assert opened.subjects == Subjects.read(folder)

    def test_a_changed_image_is_noticed(self, folder, cohort):
        file = cohort / "imagesTr" / "ball_03_0000.nii.gz"
        image = nib.load(file)
        voxels = image.get_fdata(dtype=np.float32)
        voxels[4, 4, 4] += 0.5
        nib.save(nib.Nifti1Image(voxels, image.affine), file)
        with pytest.raises(LossevoError, match=r"the cohort .* has changed since this run began"):
            Run.open(folder)

    def test_a_missing_case_is_noticed(self, folder, cohort):
        for file in (cohort / "imagesTr" / "ball_03_0000.nii.gz", cohort / "labelsTr" / "ball_03.nii.gz"):
            file.unlink()
        with pytest.raises(LossevoError):
            Run.open(folder)

    def test_a_moved_cohort_is_named(self, folder, cohort):
        cohort.rename(cohort.with_name("elsewhere"))
        with pytest.raises(LossevoError, match=r"cohort: no such folder"):
            Run.open(folder)

    def test_what_is_no_run_folder(self, tmp_path):
        for path in (tmp_path, tmp_path / "absent"):
            with pytest.raises(LossevoError, match=r"not a run folder \(it has no run\.json\)"):
                Run.open(path)

    @pytest.mark.parametrize(
        ("change", "complains"),
        [
            ({"format": "lossevo.run/9"}, r"run\.json: format 'lossevo\.run/9', but this lossevo reads"),
            ({"format": None}, r"run\.json: format None"),
            ({"labels": "both"}, r"run\.json: labels\.classes: "),
            ({"surprise": 1}, r"run\.json: unknown key 'surprise'"),
            ({"space": {}}, r"run\.json: key 'space\.name' is missing"),
            ({"seed": "x"}, r"run\.json: seed: "),
        ],
    )
    def test_a_changed_configuration(self, folder, change, complains):
        document = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps({**document, **change}))
        with pytest.raises(LossevoError, match=complains):
            Run.open(folder)

    @pytest.mark.parametrize("name", ["run.json", "subjects.json"])
    @pytest.mark.parametrize("content", ["", "{", "[]", "7"])
    def test_a_damaged_file_is_named(self, folder, name, content):
        (folder / name).write_text(content)
        with pytest.raises(LossevoError, match=f"{name}: (cannot be read|damaged)"):
            Run.open(folder)

    @pytest.mark.parametrize(
        "change", [{"train": 1}, {"train": "a"}, {"train": [1]}, {"validation": [["a"]]}, {"hashes": {"a": 1}}, None]
    )
    def test_damaged_subjects_are_no_subjects(self, folder, change):
        whole = json.loads((folder / "subjects.json").read_text())
        (folder / "subjects.json").write_text(json.dumps({} if change is None else {**whole, **change}))
        with pytest.raises(LossevoError, match=r"subjects\.json: damaged .* leakage cannot be ruled out"):
            Subjects.read(folder)


class TestSearch:
    def test_it_writes_the_hall_of_fame_and_can_be_resumed(self, folder):
        specs = []
        entries = Run.open(folder).search(lambda spec: specs.append(spec) or SyntheticExecutor())
        assert {path.name for path in folder.iterdir()} - {".lock"} == FILES
        assert hall_of_fame.read(folder) == entries
        (spec,) = specs
        assert spec.factory == "lossevo.training.worker:TrainingWorker"
        resumed = Run.open(folder).search(lambda spec: pytest.fail("nothing is left to train"))
        assert resumed == entries

    def test_trainings_keep_to_the_subjects_of_the_search(self, folder):
        Run.open(folder).search(lambda spec: SyntheticExecutor())
        subjects = Subjects.read(folder)
        with Ledger(folder / "ledger.sqlite", read_only=True) as ledger:
            for record in ledger.records():
                assert record.trial["split"]["train"] == list(subjects.train)
                assert record.trial["split"]["validate"] == list(subjects.validation)
                assert record.trial["steps"] == 3

    def test_only_one_process_at_a_time(self, folder):
        run = Run.open(folder)
        with locked(folder), pytest.raises(LossevoError, match="another process works in this folder"):
            run.search(lambda spec: SyntheticExecutor())
        run.search(lambda spec: SyntheticExecutor())

    @pytest.mark.parametrize("kill_after", [None, 0, 5])
    def test_workers_are_stopped_whatever_happens(self, folder, kill_after):
        executor = SyntheticExecutor(kill_after=kill_after)
        with pytest.raises(Killed) if kill_after is not None else nullcontext():
            Run.open(folder).search(lambda spec: executor)
        assert executor.closed

    def test_a_ledger_of_another_run_is_refused(self, folder, tmp_path):
        (folder / "ledger.sqlite").unlink()
        run_search(folder / "ledger.sqlite", small_space(trainings=24), seed=9)
        with pytest.raises(LossevoError, match="trainings on record are not those of this search"):
            Run.open(folder).search(lambda spec: SyntheticExecutor())


def trained(folder: Path) -> list:
    with Ledger(folder / "ledger.sqlite", read_only=True) as ledger:
        return [(record.phase, record.candidate, record.trial) for record in ledger.records()]


def statuses(folder: Path) -> list[Status]:
    with Ledger(folder / "ledger.sqlite", read_only=True) as ledger:
        return [record.outcome.status for record in ledger.records()]


class TestMoreBudget:
    @pytest.mark.parametrize("before", [0, 10, 32])
    def test_a_search_goes_on_and_keeps_all_that_it_did(self, folder, before):
        executor = SyntheticExecutor(kill_after=before if before < 32 else None)
        with pytest.raises(Killed) if before < 32 else nullcontext():
            Run.open(folder).search(lambda spec: executor)
        done = trained(folder)
        confirmed = {entry.id for entry in hall_of_fame.read(folder) if entry.confirmed} if before == 32 else set()
        give_budget(folder, MORE)
        more = SyntheticExecutor(workers=2)
        entries = Run.open(folder).search(lambda spec: more)
        assert trained(folder)[: len(done)] == done
        selecting = [phase for phase, _, _ in trained(folder) if phase != "confirmation"]
        assert len(selecting) == read_config(folder).plan.selection // TASK.budget_steps
        asked = [json.dumps(payload, sort_keys=True) for payload in (*executor.submitted, *more.submitted)]
        finished = {asked[ticket] for ticket in executor.delivered}
        assert not finished & {json.dumps(p, sort_keys=True) for p in more.submitted}, "it was trained before"
        assert confirmed <= {entry.id for entry in entries if entry.confirmed}

    def test_killed_on_the_way_it_can_be_resumed(self, folder, tmp_path, cohort):
        for place in (folder, other := Run.create(tmp_path / "other", config(cohort)).folder):
            Run.open(place).search(lambda spec: SyntheticExecutor())
            give_budget(place, MORE)
        for _ in range(3):
            with pytest.raises(Killed):
                Run.open(folder).search(lambda spec: SyntheticExecutor(kill_after=4))
        expected = Run.open(other).search(lambda spec: SyntheticExecutor(workers=3))
        assert Run.open(folder).search(lambda spec: SyntheticExecutor()) == expected
        assert trained(folder) == trained(other)

    def test_less_is_refused_and_the_same_changes_nothing(self, folder):
        with pytest.raises(LossevoError, match=r"--budget is 31, but .*new was begun with 32 trainings; give at least"):
            give_budget(folder, 31)
        before = (folder / "run.json").read_bytes()
        give_budget(folder, 32)
        assert (folder / "run.json").read_bytes() == before

    def test_who_has_opened_it_before_cannot_go_on_in_the_old_course(self, folder):
        opened = Run.open(folder)
        give_budget(folder, MORE)
        with pytest.raises(ResumableError, match=r"run\.json: another process has changed it meanwhile"):
            opened.search(lambda spec: SyntheticExecutor())

    def test_of_two_at_once_the_larger_counts(self, folder, monkeypatch):
        """The other one gets in after the budget was looked at."""

        @contextmanager
        def later(path: Path) -> Iterator[None]:
            monkeypatch.undo()
            give_budget(path, MORE)
            with locked(path):
                yield

        monkeypatch.setattr("lossevo.search.run.locked", later)
        with pytest.raises(LossevoError, match=r"--budget is 50, but .*new was begun with 56 trainings"):
            give_budget(folder, 50)
        assert read_config(folder).space.budget.trainings == MORE

    def test_not_while_somebody_searches(self, folder):
        with locked(folder), pytest.raises(LossevoError, match="another process works in this folder"):
            give_budget(folder, MORE)


class TestRetry:
    def test_failures_are_tried_again(self, folder):
        """What was decided stands; the scores change, and the ranking with them. New finalists are confirmed, too."""
        kinds = {Status.DIED, Status.TIMEOUT, Status.OUT_OF_MEMORY, Status.ERROR}
        endings = itertools.cycle([*sorted(kinds), *8 * [Status.DONE]])
        failing = SyntheticExecutor(fate=lambda payload: next(endings))
        before = Run.open(folder).search(lambda spec: failing)
        decided, failures = trained(folder), sum(status_ is not Status.DONE for status_ in statuses(folder))
        assert {*statuses(folder)} == kinds | {Status.DONE}
        assert retry_failures(folder) == failures
        again = SyntheticExecutor()
        entries = Run.open(folder).search(lambda spec: again)
        assert entries != before
        assert trained(folder)[: len(decided)] == decided
        assert {phase for phase, _, _ in trained(folder)[len(decided) :]} <= {"confirmation"}
        assert len(again.submitted) == failures + len(trained(folder)) - len(decided)
        assert {*statuses(folder)} == {Status.DONE}
        assert retry_failures(folder) == 0

    def test_those_that_diverged_stay(self, folder):
        Run.open(folder).search(lambda spec: SyntheticExecutor(fate=lambda payload: Status.DIVERGED))
        assert retry_failures(folder) == 0


class TestCohortSource:
    def test_a_folder_or_the_phantom(self, cohort):
        assert str(CohortSource(path=cohort)) == str(cohort)
        assert len(CohortSource(path=cohort).open().cases) == 9
        assert CohortSource(path=cohort).open(labels=MERGED).class_names == ("background", "vertebra")
        phantom = CohortSource(phantom_cases=3)
        assert str(phantom) == "embedded phantom, 3 cases"
        assert len(phantom.open(SPACING_MM).cases) == 3
        levels = LabelScheme(classes="separate", levels="L1-L2")
        assert phantom.open(SPACING_MM, levels).class_names == ("background", "L1", "L2")
