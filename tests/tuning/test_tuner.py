"""Real trainings on real Ray Tune: a cohort of balls, a few steps each."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lossevo.cluster import Status
from lossevo.data import MERGED
from lossevo.errors import LossevoError, ResumableError
from lossevo.experiment import CohortSource, Event, Ledger
from lossevo.training import TaskSettings, Trial
from lossevo.training.trainer import train
from lossevo.training.trial import identity_of
from lossevo.tuning import Tuning, TuningConfig, TuningSettings, Workers
from tests.cohorts import SPACING_MM, write_balls
from tests.packages import install

SMALL = TaskSettings(patch_size=(16, 24, 24), patches_per_volume=2, channels=(4, 8), strides=(2,))
FEW = TuningSettings(trials=6, finalists=2, seeds=2, window=3)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    return write_balls(tmp_path_factory.mktemp("data") / "balls")


@pytest.fixture(scope="module")
def make_tuning(cohort, tmp_path_factory) -> Callable[..., Tuning]:
    def make(*losses: str, **settings: Any) -> Tuning:
        config = TuningConfig(
            losses=losses or ("tversky", "dice"),
            settings=FEW.model_copy(update=settings),
            steps=8,
            task=SMALL,
            cohort=CohortSource(path=cohort),
            labels=MERGED,
            spacing_mm=SPACING_MM,
        )
        return Tuning.create(tmp_path_factory.mktemp("tunings") / "tuned", config)

    return make


@pytest.fixture(scope="module")
def finished(make_tuning, ray_of_the_tests) -> Tuning:
    """Two losses side by side, two workers, undisturbed."""
    tuning = make_tuning()
    tuning.run(Workers(2))
    return tuning


def outcomes(folder: Path) -> dict[str, tuple[str, Any, Any]]:
    """What every trial on record came to, by its identity, without times and places."""
    with Ledger(folder / "ledger.sqlite", read_only=True) as ledger:
        records = ledger.records()
    found = {}
    for record in records:
        if record.outcome is not None:
            value = {k: v for k, v in (record.outcome.value or {}).items() if k != "seconds"}
            found[identity_of(record.trial)] = (record.phase, record.outcome.status, value)
    return found


def texts(folder: Path) -> dict[str, str]:
    names = ("trials.csv", "confirmed.csv", "sensitivity.csv", "summary.json", "table.md", "tversky.yaml", "dice.yaml")
    return {name: (folder / name).read_text() for name in names}


def test_a_rung_is_the_training_up_to_there(finished):
    """Bit for bit what a training by itself reaches at that step of the whole schedule."""
    with Ledger(finished.folder / "ledger.sqlite", read_only=True) as ledger:
        records = [record for record in ledger.records() if record.phase == "tuning"]
    by_steps = {record.trial["steps"]: record for record in records}
    assert sorted(by_steps) == [2, 4, 8]
    for record in by_steps.values():
        assert record.outcome.status is Status.DONE
        alone = train(Trial.from_payload(record.trial), finished.data)
        assert alone.values == record.outcome.value["values"]


def test_it_trains_within_its_split_alone(finished):
    subjects = finished.subjects
    with Ledger(finished.folder / "ledger.sqlite", read_only=True) as ledger:
        trained, validated = ledger.subjects_used()
    assert trained == {*subjects.train}
    assert validated == {*subjects.validation}
    assert len(subjects.untouched) == 3


def test_its_files_say_what_came_of_it(finished):
    document = json.loads((finished.folder / "summary.json").read_text())
    assert [entry["loss"] for entry in document["losses"]] == ["tversky", "dice"]
    for entry in document["losses"]:
        assert len(entry["kept"]["utilities"]) == 2
        assert entry["kept"]["mean"] >= entry["untuned"]["mean"]
    assert "tuned_in: ." in (finished.folder / "tversky.yaml").read_text()


def test_what_was_stopped_goes_on_and_with_one_worker_comes_to_the_same(finished, make_tuning):
    """Stopped in mid-training, twice; what was on record is not trained again."""
    tuning = make_tuning()

    def stop_after(count: int) -> Callable[[Event], None]:
        """Ctrl-C once so many more outcomes have arrived."""
        left = count

        def listen(event: Event) -> None:
            nonlocal left
            left -= event.kind != "replayed"
            if left < 0:
                raise KeyboardInterrupt

        return listen

    for workers, count in ((2, 5), (1, 9)):
        with pytest.raises(KeyboardInterrupt):
            tuning.run(Workers(workers), listener=stop_after(count))
    before = outcomes(tuning.folder)
    assert 10 < len(before) < len(outcomes(finished.folder))
    told: list[Event] = []
    tuning.run(Workers(1), listener=told.append)
    assert any(event.kind == "replayed" for event in told)
    assert outcomes(tuning.folder) == outcomes(finished.folder)
    assert texts(tuning.folder) == texts(finished.folder)


def test_a_finished_one_needs_no_worker(finished):
    before = texts(finished.folder)
    finished.run(None)
    assert texts(finished.folder) == before


def test_an_unfinished_one_needs_workers(make_tuning):
    with pytest.raises(LossevoError, match="trains on Ray, not in process; leave --in-process out"):
        make_tuning("dice").run(None)


def test_a_training_whose_worker_is_killed_begins_again(finished, make_tuning):
    tuning = make_tuning()
    killed: list[int] = []

    def kill_one(event: Event) -> None:
        if event.kind == "training" and not killed:
            with Ledger(tuning.folder / "ledger.sqlite", read_only=True) as ledger:
                worker = ledger.records()[-1].outcome.worker
            killed.append(int(worker.rpartition(":")[2]))
            os.kill(killed[0], signal.SIGKILL)

    tuning.run(Workers(1), listener=kill_one)
    assert killed
    assert outcomes(tuning.folder) == outcomes(finished.folder)


def test_workers_that_cannot_be_made_are_no_result(make_tuning, monkeypatch, ray_of_the_tests):
    """Nothing is tuned by losing every training: here no worker has the lossevo of this machine."""
    monkeypatch.setattr("lossevo.tuning.tuner.installation", lambda: {"lossevo": "0.0.0"})
    monkeypatch.setattr("lossevo.tuning.courses.RETRIES", 1)  # how many there are is tested in test_courses.py
    tuning = make_tuning("dice")
    with pytest.raises(ResumableError, match=r"no training is to blame \(.*lossevo .*this machine 0\.0\.0"):
        tuning.run(Workers(1))
    assert outcomes(tuning.folder) == {}


def test_a_training_that_diverges_is_never_kept(make_tuning, ray_of_the_tests):
    """At a learning rate of 1e30 every loss does."""
    tuning = make_tuning("dice", bounds={"learning_rate": (0.001, 1e30)}, trials=5)
    (result,) = tuning.run(Workers(1))
    failed = [a for a in result.attempts if a.state == "failed"]
    assert failed
    assert all(a.utility == 0 for a in failed)
    assert result.kept.number not in {a.number for a in failed}


def test_all_workers_train_to_the_end(make_tuning, ray_of_the_tests):
    """Trainings here are shorter than the start of a worker: one that waits at the end of a wave must not be ended."""
    tuning = make_tuning("dice", trials=9, finalists=2, seeds=3)
    tuning.run(Workers(2))
    with Ledger(tuning.folder / "ledger.sqlite", read_only=True) as ledger:
        records = ledger.records()
    for phase in ("tuning", "confirmation"):
        workers = [record.outcome.worker for record in records if record.phase == phase]
        assert len({*workers}) == 2
        assert min(map(workers.count, {*workers})) > len(workers) / 5


def test_courses_share_the_workers(finished):
    """While one loss waits for the end of its wave the other is trained: their records are mixed."""
    with Ledger(finished.folder / "ledger.sqlite", read_only=True) as ledger:
        losses = [record.trial["loss"]["name"] for record in ledger.records()]
    assert losses.index("dice") < len(losses) - 1 - losses[::-1].index("tversky")


def test_a_worker_without_the_package_that_brings_a_loss_is_none(make_tuning, tmp_path, monkeypatch):
    """Else its trainings there would fail, and score the worst."""
    monkeypatch.syspath_prepend(tmp_path)
    code = """
from torch import nn

class Theirs(nn.Module):
    def forward(self, logits, labels):
        return logits.mean()
"""
    install(tmp_path, {"their_mean": "their_tuned:Theirs"}, code, name="their-tuned")
    tuning = make_tuning("dice", "their_mean")
    specs = [{"name": "their_mean", "distribution": "their-tuned 1.2"}]
    assert [dict(spec) for spec in tuning.data.foreign_losses] == specs
    assert [dict(spec) for spec in Tuning.open(tuning.folder).data.foreign_losses] == specs
