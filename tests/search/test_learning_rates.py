"""Whether a winner leads at the learning rate of its rival, too."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from lossevo.errors import LossevoError
from lossevo.experiment import CohortSource, hall_of_fame
from lossevo.search import Run, RunConfig
from lossevo.search.learning_rates import FILE, LEDGER, AtRate, Sweep, Swept, read_sweep
from lossevo.training import TaskSettings
from tests.cohorts import SPACING_MM, balls
from tests.search import synthetic
from tests.search.synthetic import Killed, SyntheticExecutor, small_space

RATES = [0.003, 0.01, 0.03]
TASK = TaskSettings(patch_size=(8, 16, 16), patches_per_volume=2, channels=(4, 8), strides=(2,), budget_steps=3)


def swept(name: str, **utilities: list[float]) -> Swept:
    rates = tuple(AtRate(rate=float(rate[1:]) / 1000, utilities=tuple(found)) for rate, found in utilities.items())
    return Swept(id=name[:8], name=name, rates=rates)


def sweep(evolved: Swept, hand_crafted: Swept) -> Sweep:
    return Sweep(steps=75, evolved=evolved, hand_crafted=hand_crafted)


class TestSweep:
    def test_the_lead_is_that_of_each_at_its_best_rate(self):
        found = sweep(
            swept("e", _3=[0.7, 0.72, 0.71], _10=[0.6, 0.6, 0.6]), swept("dice", _3=[0.5] * 3, _10=[0.69] * 3)
        )
        lead, error = found.lead
        assert lead == pytest.approx(0.02)
        assert error == pytest.approx(0.01 / math.sqrt(3))
        assert found.evolved.best.rate == 0.003
        assert found.hand_crafted.best.rate == 0.01

    @pytest.mark.parametrize(
        ("ours", "verdict"),
        [
            ([0.80, 0.81, 0.82], "the lead is not the learning rate's"),
            ([0.70, 0.71, 0.705], "the lead is within two standard errors there"),
            ([0.60, 0.61, 0.62], "the lead vanishes there"),
        ],
    )
    def test_it_is_told(self, ours, verdict):
        found = sweep(swept("3fa9c1d2", _10=ours), swept("dice_ce", _10=[0.705, 0.70, 0.70]))
        first, second, last = found.texts("", lambda utility: utility)
        assert first.startswith("Learning rates, 75 steps, 3 seeds: 3fa9c1d2 0.")
        assert "dice_ce 0.7017 at 0.01." in second
        assert last.endswith(f"(SE): {verdict}.")

    def test_one_seed_has_no_error_and_proves_nothing(self):
        lead, error = sweep(swept("e", _10=[0.8]), swept("dice", _10=[0.7])).lead
        assert lead == pytest.approx(0.1)
        assert math.isnan(error)
        last = sweep(swept("e", _10=[0.8]), swept("dice", _10=[0.7])).texts("", lambda utility: utility)[-1]
        assert "within two standard errors" in last

    def test_in_the_unit_of_the_objective(self):
        found = sweep(swept("e", _10=[-4.0, -5.0]), swept("dice", _10=[-6.0, -7.5]))
        first, _, last = found.texts("mm", lambda utility: -utility)
        assert "e 4.5000 mm at 0.01." in first
        assert "leads by +2.2500 ± 0.2500 mm (SE)" in last


@pytest.fixture
def run(tmp_path, write_nnunet_cohort) -> Run:
    cohort = write_nnunet_cohort(balls(9), spacing_mm=SPACING_MM)
    space = small_space(trainings=32).model_copy(update={"simplify": False})
    return Run.create(tmp_path / "run", RunConfig(space=space, task=TASK, cohort=CohortSource(path=cohort)))


@pytest.fixture
def scores(monkeypatch) -> None:
    """Ten points more at 0.03."""
    plain = synthetic.score
    monkeypatch.setattr(
        synthetic, "score", lambda payload: plain(payload) + 0.1 * (payload.get("learning_rate") == 0.03)
    )


def search(run: Run, rates: list[float] | None = None, **settings) -> list[SyntheticExecutor]:
    """Search; returns the executors that were made."""
    made: list[SyntheticExecutor] = []

    def executor(spec: object) -> SyntheticExecutor:
        made.append(SyntheticExecutor(**settings))
        return made[-1]

    run.search(executor, learning_rates=rates)
    return made


def found_in(folder: Path) -> Sweep:
    found = read_sweep(folder)
    assert found is not None
    return found


class TestRun:
    def test_the_best_of_both_kinds_are_trained_at_each_rate_with_the_seeds_of_the_confirmation(self, run, scores):
        search(run, RATES)
        found = found_in(run.folder)
        entries = [entry for entry in hall_of_fame.read(run.folder) if entry.confirmed]
        assert found.evolved.id == next(entry.id for entry in entries if not entry.literature)
        assert found.hand_crafted.id == next(entry.id for entry in entries if entry.literature)
        assert found.evolved.best.rate == 0.03
        at = next(at for at in found.evolved.rates if at.rate == 0.01)
        confirmed = next(entry for entry in entries if entry.id == found.evolved.id)
        assert at.mean == pytest.approx(confirmed.score), "0.01 is the task's rate"

    def test_killed_it_goes_on_without_being_asked_again(self, run, scores):
        search(run)
        before = (run.folder / "hall_of_fame.json").read_bytes()
        with pytest.raises(Killed):
            search(run, RATES, kill_after=5)
        assert not (run.folder / FILE).exists()
        (rest,) = search(run)
        assert len(rest.submitted) == 2 * 3 * 3 - 5
        assert found_in(run.folder).evolved.best.rate == 0.03
        assert search(run) == []
        assert (run.folder / "hall_of_fame.json").read_bytes() == before
        assert (run.folder / LEDGER).is_file()

    def test_a_damaged_file_is_named(self, run):
        (run.folder / FILE).write_text('{"steps": "many"}')
        with pytest.raises(LossevoError, match=r"learning_rates\.json: "):
            read_sweep(run.folder)
