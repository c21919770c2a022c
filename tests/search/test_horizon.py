"""The horizon that a search finds itself."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from lossevo.cluster import Status, open_executor
from lossevo.errors import ResumableError
from lossevo.experiment import CohortSource
from lossevo.experiment.events import Event
from lossevo.experiment.ledger import Ledger
from lossevo.experiment.scoring import DICE
from lossevo.experiment.study import retry_failures
from lossevo.search import Run, RunConfig, read_config
from lossevo.search.horizon import FLAT, Flattening, affordable, find_flattening
from lossevo.search.plan import Plan
from lossevo.training import TaskSettings
from tests.cohorts import SPACING_MM, balls
from tests.search import synthetic
from tests.search.synthetic import Killed, SyntheticExecutor, small_space

TASK = TaskSettings(
    patch_size=(8, 16, 16),
    patches_per_volume=2,
    channels=(4, 8),
    strides=(2,),
    budget_steps=4,
    schedule="constant",
    weights="ema",
)


class TestFlattening:
    @pytest.mark.parametrize("unit", [1.0, 200.0])
    @pytest.mark.parametrize(
        ("gains", "steps", "flat"),
        [([0.5], 10, True), ([5, 0.9], 20, True), ([5, 3, 1.1, -2], 80, True), ([5, 4, 3, 2, 1.5], 320, False)],
    )
    def test_it_is_where_twice_the_steps_bring_less_than_a_hundredth(self, gains, steps, flat, unit):
        asked: list[tuple[int, int | None]] = []

        def measure(length: int, continues: int | None) -> Sequence[float]:
            asked.append((length, continues))
            score = 0.5 + sum(gains[: len(asked) - 1]) * FLAT
            return [unit * (score - 0.1), unit * (score + 0.1)]

        found = find_flattening(measure, 10, unit=unit)
        assert (found.steps, found.flat) == (steps, flat)
        assert asked == [(10, None), *((10 * 2 ** (n + 1), 10 * 2**n) for n in range(len(gains)))]

    def test_it_is_told(self):
        flat = Flattening({75: 0.7, 150: 0.7012}, 75, flat=True)
        assert flat.told(DICE) == "dice_ce gains little beyond 75 steps: dice 0.7000 after 75, dice 0.7012 after 150"
        assert "still gains at 150 steps, the longest" in Flattening({75: 0.5, 150: 0.7}, 150, flat=False).told(DICE)


class TestAffordable:
    def test_half_of_the_budget_is_left_to_find_losses(self):
        for trainings in (40, 100, 400, 2000):
            space = small_space(trainings=trainings)
            found = affordable(space, 10, 320)
            plan = Plan.of_space(space, shortest=10, horizon=found)
            assert plan.confirmation <= plan.selection
            if found < 320:
                total, each = trainings * 10, 3 * 2 * found
                assert 2 * each > total / 2, "twice as long a horizon would leave too little for two finalists"

    def test_what_is_affordable_stays(self):
        assert affordable(small_space(trainings=4000), 10, 160) == 160
        assert affordable(small_space(trainings=40), 10, 10) == 10


@pytest.fixture
def cohort(write_nnunet_cohort) -> Path:
    return write_nnunet_cohort(balls(9), spacing_mm=SPACING_MM)


def config(cohort: Path, trainings: int = 60) -> RunConfig:
    source = CohortSource(path=cohort)
    return RunConfig(space=small_space(trainings=trainings), task=TASK, cohort=source, horizon="auto")


class TestRun:
    @pytest.fixture
    def scores(self, monkeypatch) -> None:
        """Twice the steps bring 14, 3.5, 0.9 points."""
        monkeypatch.setattr(synthetic, "score", lambda payload: 0.8 - 3 / payload["steps"] ** 2)

    def test_it_is_found_first_and_written_down(self, cohort, tmp_path, scores):
        run = Run.create(tmp_path / "run", config(cohort))
        events: list[Event] = []
        run.search(lambda spec: SyntheticExecutor(2), listener=events.append)
        assert read_config(run.folder).horizon == 16
        assert read_config(run.folder).lengths == (4, 8, 16)
        (told,) = [event.message for event in events if event.message.startswith("horizon: ")]
        assert told.startswith("horizon: 16 steps; dice_ce gains little beyond 16 steps: dice 0.6125 after 4")
        with Ledger(run.folder / "horizon.sqlite", read_only=True) as ledger:
            asked = [(record.trial["steps"], record.trial.get("continues")) for record in ledger.records()]
        assert asked == [(4, None)] * 3 + [(8, 4)] * 3 + [(16, 8)] * 3 + [(32, 16)] * 3
        assert not (run.folder / "states").exists()

    def test_killed_at_any_moment_it_ends_the_same(self, cohort, tmp_path, scores):
        expected = Run.create(tmp_path / "a", config(cohort)).search(lambda spec: SyntheticExecutor())
        folder = Run.create(tmp_path / "b", config(cohort)).folder
        for life in itertools.count():
            executor = SyntheticExecutor(3, random.Random(life), kill_after=5)
            try:
                found = Run.open(folder).search(lambda spec, made=executor: made)
            except Killed:
                assert executor.closed
                continue
            break
        assert life > 3
        assert found == expected

    def test_a_budget_too_small_for_it_is_told(self, cohort, tmp_path, scores):
        run = Run.create(tmp_path / "run", config(cohort, trainings=24))
        events: list[Event] = []
        run.search(lambda spec: SyntheticExecutor(), listener=events.append)
        assert read_config(run.folder).horizon == 8
        assert any("; the budget is enough for a horizon of 8" in event.message for event in events)

    def test_a_reference_that_fails_is_no_course_that_has_flattened(self, cohort, tmp_path, scores):
        run = Run.create(tmp_path / "run", config(cohort))

        def fate(payload) -> Status:
            return Status.TIMEOUT if payload["steps"] == 8 else Status.DONE

        with pytest.raises(
            ResumableError, match=r"horizon\.sqlite: a training of dice_ce .* failed after at most 8 steps"
        ):
            run.search(lambda spec: SyntheticExecutor(fate=fate))
        assert read_config(run.folder).horizon == "auto"
        assert retry_failures(run.folder) == 3
        Run.open(run.folder).search(lambda spec: SyntheticExecutor())
        assert read_config(run.folder).horizon == 16

    def test_with_real_trainings_that_continue(self, cohort, tmp_path):
        run = Run.create(tmp_path / "run", config(cohort, trainings=40))
        entries = run.search(lambda spec: open_executor(spec, in_process=True))
        assert isinstance(read_config(run.folder).horizon, int)
        assert any(entry.confirmed for entry in entries)
        document = json.loads((run.folder / "run.json").read_text())
        assert document["horizon"] == entries[0].steps
