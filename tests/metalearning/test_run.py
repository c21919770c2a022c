"""A meta-training as a whole: what it leaves behind, and that it can be stopped and resumed anywhere."""

from __future__ import annotations

import csv
import json
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lossevo.cluster import Executor, Job, Outcome, Status, WorkerSpec
from lossevo.cluster.inprocess import InProcessExecutor
from lossevo.comparison import contenders_from
from lossevo.errors import LossevoError
from lossevo.experiment import CohortSource, Event, Ledger, Subjects, hall_of_fame, read_study
from lossevo.experiment.folder import locked
from lossevo.experiment.kinds import SEARCH
from lossevo.experiment.origin import HandCrafted, MetaLearned
from lossevo.losses import from_spec
from lossevo.losses.neural import LearnedLoss
from lossevo.metalearning import MetaConfig, MetaRun
from lossevo.report.metalearning_figures import metalearning_pictures
from lossevo.training.seeds import comparison_seed, confirmation_seed, selection_seed
from tests.cohorts import write_balls
from tests.metalearning.conftest import SETTINGS, refuse

MakeExecutor = Callable[[WorkerSpec], Executor]
FILES = {
    "checkpoint.pt",
    "distillation.json",
    "evaluations.csv",
    "hall_of_fame.csv",
    "hall_of_fame.json",
    "ledger.sqlite",
    "metalearning.csv",
    "preprocessing.json",
    "run.json",
    "subjects.json",
}


class Stop(Exception):
    pass


def learn(folder: Path, config: MetaConfig, executor: MakeExecutor, *, stop_after: int | None = None) -> list[Event]:
    """Learn in a folder, or go on there; a number of events later it is as if killed."""
    run = MetaRun.open(folder) if folder.exists() else MetaRun.create(folder, config)
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if len(events) == stop_after:
            raise Stop

    if stop_after is None:
        run.learn(executor, listener=listen)
    else:
        with pytest.raises(Stop):
            run.learn(executor, listener=listen)
    return events


def results(folder: Path) -> dict[str, str]:
    """What a run has found, as text."""
    names = ("hall_of_fame.json", "evaluations.csv", "metalearning.csv", "distillation.json")
    return {name: (folder / name).read_text() for name in names}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, balls_folder: Path) -> Path:
    from lossevo.cluster import open_executor
    from lossevo.experiment import CohortSource
    from tests.metalearning.conftest import TASK

    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    config = MetaConfig(settings=SETTINGS, task=TASK, cohort=CohortSource(path=balls_folder))
    learn(folder, config, lambda spec: open_executor(spec, in_process=True))
    return folder


def test_it_leaves_a_run_folder_like_a_search_s(finished: Path, balls_folder: Path) -> None:
    assert {path.name for path in finished.iterdir() if not path.name.startswith((".", "ledger.sqlite-"))} == FILES
    study = read_study(finished)
    assert study.cohort.path == balls_folder
    assert study.seed == 0
    parts = Subjects.read(finished)
    assert not {*parts.train} & {*parts.validation} | {*parts.train} & {*parts.untouched}


def test_the_hall_of_fame_ranks_new_seeds_and_every_loss_in_it_can_be_trained(finished: Path) -> None:
    entries = hall_of_fame.read(finished)
    origins = [str(entry.origin) for entry in entries]
    assert sum(origin.startswith("metalearned: ") for origin in origins) == 1
    assert sum(origin.startswith("distilled: ") for origin in origins) == 1
    assert {"hand-crafted: dice", "hand-crafted: cross_entropy"} < {*origins}
    assert [entry.rank for entry in entries] == [*range(1, len(entries) + 1)]
    assert [entry.score for entry in entries] == sorted((entry.score for entry in entries), reverse=True)
    for entry in entries:
        assert entry.confirmed
        assert entry.seeds == SETTINGS.confirmation_seeds
        from_spec(entry.loss)
    learned = next(entry for entry in entries if isinstance(entry.origin, MetaLearned))
    assert isinstance(from_spec(learned.loss), LearnedLoss)
    assert learned.complexity == 4 * 2 + 4


def test_its_losses_enter_a_comparison_with_what_they_have_seen(finished: Path) -> None:
    rank = next(e.rank for e in hall_of_fame.read(finished) if isinstance(e.origin, MetaLearned))
    (contender,) = contenders_from(hof=[f"{finished}:{rank}"])
    assert contender.evolved
    assert contender.search is not None
    assert contender.search.subjects == Subjects.read(finished)


def test_its_seeds_are_no_search_s_and_no_comparison_s(finished: Path, config: MetaConfig) -> None:
    with Ledger(finished / "ledger.sqlite", read_only=True) as ledger:
        seeds = {record.trial["seed"] for record in ledger.records()}
    assert len(seeds) == SETTINGS.evaluation_seeds + SETTINGS.confirmation_seeds
    for other in (selection_seed, confirmation_seed, comparison_seed):
        assert seeds.isdisjoint(other(config.seed, number) for number in range(500))


def test_the_course_is_on_record(finished: Path) -> None:
    with (finished / "metalearning.csv").open() as stream:
        steps = list(csv.DictReader(stream))
    assert [int(row["outer_step"]) for row in steps] == [*range(1, 7)]
    assert all(0 < float(row["outer_loss_after"]) < 10 and row["failed_tasks"] == "0" for row in steps)
    with (finished / "evaluations.csv").open() as stream:
        assert [int(row["outer_step"]) for row in csv.DictReader(stream)] == [3, 6]
    formulas = json.loads((finished / "distillation.json").read_text())["formulas"]
    assert sum(found["recommended"] for found in formulas) == 1


@pytest.mark.parametrize(
    ("events", "replayed", "steps"),
    [
        pytest.param(2, 1, 10, id="amid the baselines"),
        pytest.param(6, 2, 10, id="before the first checkpoint"),
        pytest.param(9, 3, 7, id="after it"),
        pytest.param(20, 5, 0, id="amid the confirmation"),
    ],
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    events: int,
    replayed: int,
    steps: int,
    finished: Path,
    tmp_path: Path,
    config: MetaConfig,
    in_process: MakeExecutor,
) -> None:
    folder = tmp_path / "killed"
    learn(folder, config, in_process, stop_after=events)
    again = [event.kind for event in learn(folder, config, in_process)]
    assert results(folder) == results(finished)
    assert again.count("replayed") == replayed, "trainings taken from the ledger"
    assert again.count("step") == steps, "6 outer steps and 4 of the distillation, less those before the checkpoint"


def test_a_finished_run_is_looked_up(finished: Path, config: MetaConfig) -> None:
    before = results(finished)
    events = learn(finished, config, refuse)
    assert not {"step", "training"} & {event.kind for event in events}
    assert results(finished) == before


def test_another_seed_learns_another_loss(
    finished: Path, tmp_path: Path, config: MetaConfig, in_process: MakeExecutor
) -> None:
    folder = tmp_path / "other"
    learn(folder, config.model_copy(update={"seed": 1}), in_process, stop_after=7)
    assert Subjects.read(folder).train != Subjects.read(finished).train


def test_a_damaged_checkpoint_is_told_and_can_be_removed(
    finished: Path, tmp_path: Path, config: MetaConfig, in_process: MakeExecutor
) -> None:
    folder = tmp_path / "damaged"
    learn(folder, config, in_process, stop_after=12)
    (folder / "checkpoint.pt").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(LossevoError, match=r"checkpoint.pt: damaged .*remove it to learn again"):
        learn(folder, config, in_process)
    (folder / "checkpoint.pt").unlink()
    learn(folder, config, in_process)
    assert results(folder) == results(finished)


def test_a_checkpoint_that_would_run_code_is_not_read(
    tmp_path: Path, config: MetaConfig, in_process: MakeExecutor
) -> None:
    import pickle

    class Harm:
        def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
            return Path.touch, (tmp_path / "harm",)  # type: ignore[return-value]

    folder = tmp_path / "run"
    MetaRun.create(folder, config)
    (folder / "checkpoint.pt").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(LossevoError, match="damaged"):
        learn(folder, config, in_process)
    assert not (tmp_path / "harm").exists()


def test_a_folder_in_use_or_of_a_search_is_refused(tmp_path: Path, config: MetaConfig) -> None:
    run = MetaRun.create(tmp_path / "run", config)
    with locked(run.folder), pytest.raises(LossevoError, match="another process works in this folder"):
        run.learn(refuse)
    with pytest.raises(LossevoError, match="go on with 'lossevo metalearn --resume"):
        MetaRun.create(run.folder, config)
    document = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps({**document, "format": SEARCH.format}))
    with pytest.raises(LossevoError, match=r"'lossevo search --resume .*' goes on with it"):
        MetaRun.open(run.folder)


TRAINED = {
    "values": {"dice": {"b": {"vertebra": 0.5}}},
    "curve": [[6, 0.5]],
    "validation_curve": [[6, 0.5]],
    "seconds": 0.1,
}


class Failing:
    """Trainings succeed with a score that depends on nothing; every task of an outer step fails."""

    workers = 1

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Outcome]] = []
        self._count = 0

    def submit(self, job: Job) -> int:
        failed = "meta" in job.payload
        status = Status.DIVERGED if failed else Status.DONE
        value = None if failed else TRAINED
        error = "outer loss is nan after step 2" if failed else ""
        outcome = Outcome(status, value=value, error=error, seconds=0.1, worker="w", attempts=1)
        self._waiting.append((self._count, outcome))
        self._count += 1
        return self._count - 1

    def completed(self):
        while self._waiting:
            yield self._waiting.pop()

    def busy_share(self) -> float:
        return 1.0

    def close(self) -> None:
        return


class FailingStep(InProcessExecutor):
    """The tasks of one outer step fail."""

    def __init__(self, spec: WorkerSpec, step: int) -> None:
        super().__init__(spec)
        self._tasks: list[int] = []
        self._failing = range((step - 1) * SETTINGS.tasks, step * SETTINGS.tasks)

    def submit(self, job: Job) -> int:
        ticket = super().submit(job)
        if "meta" in job.payload:
            self._tasks.append(ticket)
        return ticket

    def completed(self) -> Iterator[tuple[int, Outcome]]:
        failing = [self._tasks[place] for place in self._failing if place < len(self._tasks)]
        for ticket, outcome in super().completed():
            yield ticket, replace(outcome, status=Status.DIVERGED, value=None) if ticket in failing else outcome


def test_a_meta_training_that_only_fails_ends_with_advice(tmp_path: Path, config: MetaConfig) -> None:
    settings = SETTINGS.model_copy(update={"outer_steps": 60, "evaluate_every": 60})
    long = config.model_copy(update={"settings": settings})
    with pytest.raises(LossevoError, match=r"last 10 outer steps succeeded \(diverged: outer loss is nan.*learning_r"):
        learn(tmp_path / "run", long, lambda spec: Failing())  # type: ignore[arg-type, return-value]
    with pytest.raises(LossevoError, match="last 10 outer steps succeeded"):
        learn(tmp_path / "run", long, lambda spec: Failing())  # type: ignore[arg-type, return-value]


def test_what_was_never_learned_is_not_evaluated(tmp_path: Path, config: MetaConfig) -> None:
    with pytest.raises(LossevoError, match="no task of the last 3 outer steps succeeded"):
        learn(tmp_path / "run", config, lambda spec: Failing())  # type: ignore[arg-type, return-value]


def test_a_loss_that_has_diverged_is_no_success(tmp_path: Path, config: MetaConfig, in_process: MakeExecutor) -> None:
    """The first step succeeds, with the loss as it began; none does with what it made of it."""
    settings = SETTINGS.model_copy(update={"learning_rate": 1e30, "outer_steps": 4, "evaluate_every": 4})
    short = config.model_copy(update={"settings": settings})
    with pytest.raises(
        LossevoError, match=r"run: no task of the last 3 outer steps succeeded .*a new run a lower lear"
    ):
        learn(tmp_path / "run", short, in_process)
    assert not (tmp_path / "run" / "evaluations.csv").exists()


def test_a_step_that_fails_before_an_evaluation_is_passed_over(tmp_path: Path, config: MetaConfig) -> None:
    folder = tmp_path / "run"
    learn(folder, config, lambda spec: FailingStep(spec, step=3))
    with (folder / "metalearning.csv").open() as stream:
        assert [row["failed_tasks"] for row in csv.DictReader(stream)] == ["0", "0", "2", "0", "0", "0"]


def test_a_run_goes_on_from_before_its_failures_when_their_cause_is_gone(
    finished: Path, tmp_path: Path, config: MetaConfig, in_process: MakeExecutor
) -> None:
    """As without them: a node without memory, say, is nothing that the loss could help."""
    folder = tmp_path / "run"
    learn(folder, config, in_process, stop_after=3)
    with pytest.raises(LossevoError, match="outer steps succeeded"):
        learn(folder, config, lambda spec: Failing())  # type: ignore[arg-type, return-value]
    learn(folder, config, in_process)
    assert results(folder) == results(finished)


def test_a_table_that_is_gone_and_a_damaged_distillation_are_made_again(finished: Path, config: MetaConfig) -> None:
    before = results(finished)
    (finished / "metalearning.csv").unlink()
    (finished / "distillation.json").write_text('{"network"')
    learn(finished, config, refuse)
    assert results(finished) == before


def test_it_is_drawn_without_baselines_and_without_a_warning(finished: Path) -> None:
    entries = [entry for entry in hall_of_fame.read(finished) if not isinstance(entry.origin, HandCrafted)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(metalearning_pictures(finished, entries)) == 2


def test_what_cannot_be_put_on_record_makes_no_folder(tmp_path: Path, config: MetaConfig) -> None:
    endless = config.model_copy(update={"settings": SETTINGS.model_copy(update={"learning_rate": math.inf})})
    with pytest.raises(ValueError, match="JSON"):
        MetaRun.create(tmp_path / "run", endless)
    assert not (tmp_path / "run").exists()


def test_one_subject_cannot_be_learned_on_and_judged_by(tmp_path: Path, config: MetaConfig) -> None:
    few = config.model_copy(update={"cohort": CohortSource(path=write_balls(tmp_path / "few", 3))})
    with pytest.raises(LossevoError, match=r"3 cases leave 1 subject to train on.*needs at least 2"):
        MetaRun.create(tmp_path / "run", few)
    assert not (tmp_path / "run").exists()
