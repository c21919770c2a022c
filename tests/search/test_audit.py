from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from lossevo.cluster import Executor, Status
from lossevo.errors import LossevoError
from lossevo.experiment import CohortSource
from lossevo.experiment.ledger import Ledger
from lossevo.experiment.study import retry_failures
from lossevo.expression import Expression
from lossevo.search import Run, RunConfig, give_budget
from lossevo.search.audit import FILE, KEPT, LEDGER, Audit, Rejects, read_audit
from lossevo.search.screening import Check
from lossevo.training import TaskSettings
from lossevo.training.seeds import CANDIDATES, audit_seed, selection_seed
from tests.cohorts import SPACING_MM, balls
from tests.search.synthetic import Killed, SyntheticExecutor, small_space

TASK = TaskSettings(patch_size=(8, 16, 16), patches_per_volume=2, channels=(4, 8), strides=(2,), budget_steps=3)
LOSSES = [Expression.parse(f"class_mean(mean(square(p - y))) * {number}.5") for number in range(100)]


def sample(seed: int = 0, losses: list[Expression] = LOSSES) -> Rejects:
    rejects = Rejects(seed)
    for number, loss in enumerate(losses):
        rejects.see(Check.FLAT if number % 3 else Check.DESCENT, loss)
    return rejects


class TestRejects:
    def test_a_few_of_each_check_are_kept_whatever_the_order(self):
        rejects = sample()
        assert len(rejects) == 2 * KEPT
        order = [*enumerate(LOSSES)]
        other = Rejects(0)
        for number, loss in [*reversed(order), *order]:
            other.see(Check.FLAT if number % 3 else Check.DESCENT, loss)
        assert other.drawn(99) == rejects.drawn(99)

    def test_the_seed_decides_which(self):
        assert sample(1).drawn(20) != sample(2).drawn(20)

    def test_each_check_has_its_turn_and_more_begin_with_the_same(self):
        rejects = sample()
        drawn = rejects.drawn(10)
        assert [reject.check for reject in drawn] == [Check.FLAT, Check.DESCENT] * 5
        assert rejects.drawn(40)[:10] == drawn
        assert len(rejects.drawn(500)) == 2 * KEPT

    @pytest.mark.parametrize("check", [Check.LIMITS, Check.INPUTS, Check.SEEN, Check.OVERFLOW])
    def test_what_cannot_be_trained_or_was_is_not_kept(self, check):
        rejects = Rejects(0)
        rejects.see(check, None if check is Check.LIMITS else LOSSES[0])
        assert len(rejects) == 0

    def test_a_ledger_keeps_them(self, tmp_path):
        with Ledger(tmp_path / "ledger.sqlite", create=True) as ledger:
            sample().keep(ledger)
            again = Rejects(0)
            again.restore(ledger)
            assert again.drawn(99) == sample().drawn(99)
            ledger.record_text("rejects", "[")
            with pytest.raises(LossevoError, match=r"ledger\.sqlite.*rejects"):
                Rejects(0).restore(ledger)


@pytest.fixture
def create(tmp_path, write_nnunet_cohort) -> Callable[[str], Run]:
    cohort = write_nnunet_cohort(balls(9), spacing_mm=SPACING_MM)

    def made(name: str) -> Run:
        space = small_space(trainings=32).model_copy(update={"simplify": False})  # which takes most of the time
        asked = RunConfig(space=space, task=TASK, cohort=CohortSource(path=cohort))
        return Run.create(tmp_path / name, asked)

    return made


def search(run: Run, audited: int | None = None, **settings) -> list[SyntheticExecutor]:
    """Search; returns the executors that were made: none, or one for search and audit."""
    made: list[SyntheticExecutor] = []

    def executor(spec: object) -> Executor:
        made.append(SyntheticExecutor(**settings))
        return made[-1]

    run.search(executor, audited=audited)
    return made


def audit_of(run: Run) -> Audit:
    found = read_audit(run.folder)
    assert found is not None
    return found


class TestAudit:
    def test_what_was_rejected_is_trained_and_the_search_knows_nothing_of_it(self, create):
        plain, audited = create("plain"), create("audited")
        (alone,) = search(plain)
        (both,) = search(audited, 6)
        of_search, of_audit = both.submitted[: len(alone.submitted)], both.submitted[len(alone.submitted) :]
        assert of_search == alone.submitted
        assert not (plain.folder / FILE).exists()
        for name in ("hall_of_fame.json", "hall_of_fame.csv"):
            assert (plain.folder / name).read_bytes() == (audited.folder / name).read_bytes()
        audit = audit_of(audited)
        assert len(audit.candidates) == len(of_audit) == 6
        assert {each.check for each in audit.candidates} >= {Check.EQUIVALENT, Check.DESCENT}
        assert all(each.in_top_half == (each.score > audit.median) for each in audit.candidates)
        assert all(not each.in_top_half for each in audit.of(Check.DESCENT))
        assert {payload["seed"] for payload in of_search}.isdisjoint({payload["seed"] for payload in of_audit})

    def test_killed_it_goes_on_where_it_was_without_being_asked_again(self, create):
        undisturbed, killed = create("undisturbed"), create("killed")
        search(undisturbed, 6)
        search(killed)
        with pytest.raises(Killed):
            search(killed, 6, kill_after=2)
        assert not (killed.folder / FILE).exists()
        (of_audit,) = search(killed)
        assert len(of_audit.submitted) == 4
        assert audit_of(killed) == audit_of(undisturbed)
        assert search(killed) == [], "nothing is left to train"

    def test_a_search_that_goes_on_is_audited_anew(self, create):
        run = create("run")
        search(run, 6)
        before = audit_of(run)
        give_budget(run.folder, 44)
        assert not (run.folder / FILE).exists(), "it says nothing of what comes now"
        assert not (run.folder / "findings.json").exists()
        larger = Run.open(run.folder)
        search(larger)
        assert len(audit_of(larger).candidates) == 6
        assert audit_of(larger) != before
        with Ledger(run.folder / LEDGER) as ledger:
            assert len(ledger.records()) == 6

    def test_a_training_that_fails_has_no_score(self, create):
        run = create("run")
        search(run)
        search(run, 3, fate=lambda payload: Status.DIVERGED)
        assert [(each.score, each.in_top_half) for each in audit_of(run).candidates] == [(None, False)] * 3

    def test_a_training_that_failed_without_its_fault_is_tried_again(self, create):
        run = create("run")
        search(run)
        search(run, 3, fate=lambda payload: Status.TIMEOUT)
        assert retry_failures(run.folder) == 3
        search(run)
        assert all(each.score is not None for each in audit_of(run).candidates)

    def test_no_other_training_has_its_seeds(self):
        seeds = [audit_seed(3, number) for number in range(KEPT)]
        assert len(set(seeds)) == KEPT
        last = {selection_seed(3, CANDIDATES - 1, repetition) for repetition in range(KEPT)}
        assert last.isdisjoint(seeds), "those of the loss that a search is measured by"

    def test_a_damaged_file_is_named(self, create):
        run = create("run")
        (run.folder / FILE).write_text(json.dumps({"format": "lossevo.audit/1", "steps": "many"}))
        with pytest.raises(LossevoError, match=r"audit\.json: "):
            read_audit(run.folder)
