from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

import lossevo
from lossevo.cluster import Status
from lossevo.configuration_file import checked
from lossevo.errors import LossevoError
from lossevo.experiment.ledger import Ledger, Record
from lossevo.experiment.origin import Evolved, HandCrafted, Seed, Tuned
from lossevo.experiment.states import States
from lossevo.search import engine, proposals
from lossevo.search.plan import EVOLUTION, TUNING
from lossevo.search.space import Preselection, SearchSpace
from lossevo.search.strategy_settings import RandomSearch
from lossevo.training.seeds import confirmation_seed, selection_seed
from lossevo.training.trial import KEEPS, STATE
from tests.search.synthetic import (
    NOISE,
    SEEDS,
    Killed,
    Searched,
    SyntheticExecutor,
    outcome_of,
    run_search,
    score,
    small_space,
)

SPACES = {
    "steady_state": small_space(trainings=36, tuning_share=0.25),
    "generational": small_space("glo", trainings=36, tuning_share=0.25),
}


def requests(path: Path) -> list[Record]:
    with Ledger(path, read_only=True) as ledger:
        return ledger.records()


@pytest.fixture(scope="module", params=SPACES)
def undisturbed(request, tmp_path_factory) -> tuple[str, Path, Searched]:
    """A search that ran through with one worker: the name of its space, its ledger, itself."""
    path = tmp_path_factory.mktemp(request.param) / "ledger.sqlite"
    return request.param, path, run_search(path, SPACES[request.param], seed=3)


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> tuple[Path, Searched]:
    """A steady-state search of 96 trainings."""
    path = tmp_path_factory.mktemp("searched") / "ledger.sqlite"
    return path, run_search(path, small_space(trainings=96), seed=2)


class TestCourse:
    """The course of a search depends on its configuration and seed alone."""

    def test_neither_the_number_of_workers_nor_who_ends_first_matters(self, undisturbed, tmp_path):
        """Two workers are those of the tests of resuming."""
        name, path, expected = undisturbed
        executor = SyntheticExecutor(4, random.Random(2))
        found = run_search(tmp_path / "ledger.sqlite", SPACES[name], seed=3, executor=executor)
        assert executor.delivered != sorted(executor.delivered)
        assert found.entries == expected.entries
        assert [(t.phase, t.candidate, t.trial) for t in requests(tmp_path / "ledger.sqlite")] == [
            (t.phase, t.candidate, t.trial) for t in requests(path)
        ]

    def test_another_seed_is_another_search(self, searched, tmp_path):
        _, one = searched
        other = run_search(tmp_path / "ledger.sqlite", small_space(trainings=24), seed=2)
        assert [entry.formula for entry in other.entries[:5]] != [entry.formula for entry in one.entries[:5]]

    def test_global_generators_are_neither_read_nor_moved(self, tmp_path):
        def states() -> tuple:
            return (
                random.getstate(),
                tuple(np.random.get_state()[1]),  # noqa: NPY002 - the global generator is what is tested
                tuple(torch.get_rng_state().tolist()),
            )

        space = small_space(trainings=24)
        found = []
        for name, seed in (("a", 1), ("b", 2)):
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            torch.manual_seed(seed)
            before = states()
            found.append(run_search(tmp_path / name, space).entries)
            assert states() == before
        assert found[0] == found[1]

    def test_processes_with_other_hashes_of_strings_find_the_same(self, tmp_path):
        """Sets of strings iterate in another order in each process unless PYTHONHASHSEED is fixed."""
        program = (
            "import sys, pathlib\n"
            "from tests.search.synthetic import run_search, small_space\n"
            "found = run_search(pathlib.Path(sys.argv[1]), small_space(trainings=24), seed=4)\n"
            "print(*(entry.formula for entry in found.entries), sep='\\n')\n"
        )
        other = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
        environment = {**os.environ, "PYTHONHASHSEED": other, "PYTHONPATH": str(Path(lossevo.__file__).parents[1])}
        command = [sys.executable, "-c", program, str(tmp_path / "there")]
        there = subprocess.check_output(command, env=environment, text=True).splitlines()
        here = run_search(tmp_path / "here", small_space(trainings=24), seed=4)
        assert there == [entry.formula for entry in here.entries]
        assert len(there) > len(SEEDS)


class TestResuming:
    """Whenever a search is killed, going on ends in the hall of fame of an undisturbed one."""

    @pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.chaos), 7])
    def test_killed_after_every_kth_outcome(self, undisturbed, tmp_path, every):
        name, expected_path, expected = undisturbed
        path = tmp_path / "ledger.sqlite"
        delivered, lives = 0, 0
        while True:
            executor = SyntheticExecutor(2, random.Random(lives), kill_after=every)
            lives += 1
            try:
                found = run_search(path, SPACES[name], seed=3, executor=executor)
            except Killed:
                delivered += len(executor.delivered)
                continue
            break
        delivered += len(executor.delivered)
        assert lives == math.ceil(len(requests(expected_path)) / every)
        assert delivered == len(requests(expected_path)), "a finished training was done again"
        assert found.entries == expected.entries
        assert [t.trial for t in requests(path)] == [t.trial for t in requests(expected_path)]

    @pytest.mark.parametrize("undisturbed", ["steady_state"], indirect=True)
    @pytest.mark.parametrize(("write", "done"), [(1, True), (2, False), (40, True), (77, False)])
    def test_killed_while_something_is_written_down(self, undisturbed, tmp_path, monkeypatch, write, done):
        """Just before or just after a record: candidate, screening result, request or outcome."""
        name, _, expected = undisturbed
        writes, original = itertools.count(1), Ledger._transaction

        @contextmanager
        def dying(self):
            number = next(writes)
            if number == write and not done:
                raise Killed
            with original(self) as connection:
                yield connection
            if number == write:
                raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(Ledger, "_transaction", dying)
            with pytest.raises(Killed):
                run_search(tmp_path / "ledger.sqlite", SPACES[name], seed=3)
        assert run_search(tmp_path / "ledger.sqlite", SPACES[name], seed=3).entries == expected.entries

    def test_a_finished_search_is_replayed_without_workers(self, undisturbed):
        name, path, expected = undisturbed
        executor = SyntheticExecutor(kill_after=0)
        found = run_search(path, SPACES[name], seed=3, executor=executor)
        assert executor.submitted == []
        assert found.entries == expected.entries
        kinds = Counter(event.kind for event in found.events)
        assert kinds["replayed"] == len(requests(path))
        assert kinds.keys() == {"replayed", "phase"}

    @pytest.mark.parametrize(
        "change",
        [
            {"seed": 4},
            {"space": small_space(trainings=96, window=3)},
            {"space": SPACES["generational"]},
            {"lengths": (10, 20)},
            {"classes": 3},
        ],
    )
    def test_a_ledger_of_another_search_is_refused(self, searched, change):
        path, _ = searched
        before = len(requests(path))
        with pytest.raises(LossevoError, match=r"trainings on record are not those of this search.* new run"):
            run_search(path, **{"space": small_space(trainings=96), "seed": 2, **change})
        assert len(requests(path)) == before


class TestFailures:
    """A training that fails counts 0 and never ends the search."""

    def test_some(self, tmp_path):
        endings = itertools.cycle([Status.DONE, *Status])
        executor = SyntheticExecutor(fate=lambda payload: next(endings))
        found = run_search(tmp_path / "ledger.sqlite", SPACES["steady_state"], executor=executor)
        failed = [t for t in requests(tmp_path / "ledger.sqlite") if t.outcome.status is not Status.DONE]
        assert {t.outcome.status for t in failed} == set(Status) - {Status.DONE}
        assert found.events[-1].progress.failed == len(failed)
        by_id = {candidate.id: candidate for candidate in found.search.archive}
        for training in failed:
            candidate = by_id[training.candidate]
            scores = candidate.confirmations if training.phase == "confirmation" else candidate.scores
            assert scores[10][training.trial["seed"]] == 0.0
        told = [event.message for event in found.events if event.kind == "training"]
        assert any("diverged: it diverged" in message for message in told)

    @pytest.mark.parametrize("name", SPACES)
    def test_all(self, tmp_path, name):
        executor = SyntheticExecutor(fate=lambda payload: Status.DIVERGED)
        found = run_search(tmp_path / "ledger.sqlite", SPACES[name], executor=executor)
        assert {entry.score for entry in found.entries} == {0.0}
        assert found.events[-1].progress.failed == len(requests(tmp_path / "ledger.sqlite")) > 20

    def test_a_score_that_is_no_number(self, tmp_path, monkeypatch):
        monkeypatch.setattr("tests.search.synthetic.score", lambda payload: float("nan"))
        found = run_search(tmp_path / "ledger.sqlite", small_space(trainings=32))
        assert {entry.score for entry in found.entries} == {0.0}

    def test_an_exhausted_space_is_said_to_be(self, tmp_path, monkeypatch):
        monkeypatch.setattr(proposals, "MAX_REJECTED_IN_A_ROW", 200)
        space = checked(
            SearchSpace,
            {
                "name": "tiny",
                "terminals": {"p": 1, "y": 1},
                "primitives": {"mul": 1, "mean": 1, "class_mean": 1},
                "limits": {"nodes": 6, "depth": 4, "initial_depth": [3, 4]},
                "budget": {"trainings": 40},
            },
            "tiny",
        )
        with pytest.raises(LossevoError, match=r"search space 'tiny': the screening rejected 200 candidates in a row"):
            run_search(tmp_path / "ledger.sqlite", space)


class TestBudget:
    def test_each_part_keeps_to_its_share(self, undisturbed):
        _, path, found = undisturbed
        plan = found.search.plan
        steps = Counter()
        for training in requests(path):
            steps[training.phase] += training.trial["steps"]
        assert 0 < steps["tuning"] <= plan.tuning
        assert steps.total() - steps["confirmation"] == plan.selection
        assert steps["confirmation"] == plan.confirmation
        phases = [training.phase for training in requests(path)]
        assert set(phases[phases.index("confirmation") :]) == {"confirmation"}

    @pytest.mark.parametrize("tuning", [{}, {"structures": 0}])
    def test_in_the_end_all_is_done(self, tmp_path, tuning):
        space = small_space(trainings=48)
        space = space.model_copy(update={"tuning": space.tuning.model_copy(update=tuning)})
        found = run_search(tmp_path / "ledger.sqlite", space)
        progress = found.events[-1].progress
        assert (progress.done, progress.total) == (48, 48)
        assert progress.eta_s == 0
        phases = Counter(training.phase for training in requests(tmp_path / "ledger.sqlite"))
        assert (phases["tuning"] == 0) is bool(tuning)

    @pytest.mark.parametrize("trainings", [25, 33])
    def test_a_share_too_small_for_a_generation_goes_to_new_candidates(self, tmp_path, trainings):
        found = run_search(tmp_path / "ledger.sqlite", small_space(trainings=trainings))
        assert 0 < int(trainings * found.search.space.budget.tuning_share) < 5
        assert found.search.plan.tuning == 0
        assert found.search.plan.total == 10 * len(requests(tmp_path / "ledger.sqlite")) == 10 * trainings
        assert found.events[-1].progress.done == trainings

    def test_progress_never_goes_back(self, undisturbed):
        _, _, found = undisturbed
        for figure in ("done", "proposed", "failed"):
            course = [getattr(event.progress, figure) for event in found.events]
            assert course == sorted(course)
        assert all(event.progress.done <= event.progress.total for event in found.events)

    def test_never_more_in_flight_than_the_window(self, tmp_path):
        in_flight = []

        class Watching(SyntheticExecutor):
            def submit(self, job):
                in_flight.append(len(self._waiting) + 1)
                return super().submit(job)

        run_search(tmp_path / "ledger.sqlite", small_space(trainings=32, window=5), executor=Watching(workers=5))
        assert max(in_flight) == 5


class TestEvolution:
    def test_every_seed_is_trained_first(self, searched):
        path, found = searched
        new = list(dict.fromkeys(training.candidate for training in requests(path)))
        by_id = {candidate.id: candidate for candidate in found.search.archive}
        assert [by_id[subject].origin.name for subject in new[: len(SEEDS)]] == list(SEEDS)

    def test_it_finds_better_losses_than_it_started_from(self, searched):
        _, found = searched
        literature = max(entry.score for entry in found.entries if isinstance(entry.origin, HandCrafted))
        assert found.entries[0].confirmed
        assert not isinstance(found.entries[0].origin, HandCrafted)
        assert found.entries[0].score > literature

    def test_every_operator_contributes(self, searched):
        _, found = searched
        operators = {str(candidate.origin).split()[0].rstrip(":") for candidate in found.search.archive}
        assert operators >= {"hand-crafted", "random", "crossover", "subtree", "coefficients", "cma-es"}

    def test_parents_were_trained_before_their_children(self, searched):
        _, found = searched
        number = {candidate.id: candidate.number for candidate in found.search.archive}
        for candidate in found.search.archive:
            assert all(number[parent] < candidate.number for parent in candidate.origin.parents)

    def test_every_candidate_has_seeds_of_its_own(self, searched):
        """With one for all, luck with that seed would be inherited and selected for."""
        path, _ = searched
        evolution = [t for t in requests(path) if t.phase in ("evolution", "tuning")]
        first = {t.candidate: t.trial["seed"] for t in reversed(evolution)}
        assert len(set(first.values())) == len(first)
        pairs = {(t.candidate, t.trial["seed"]) for t in requests(path) if t.phase != "confirmation"}
        assert len({seed for _, seed in pairs}) == len(pairs), "no two candidates share a seed"
        of_run = range(selection_seed(2, 0), confirmation_seed(2, 0))
        assert all(seed in of_run for _, seed in pairs)

    def test_elites_are_trained_again_with_further_seeds(self, searched):
        _, found = searched
        candidates = found.search.archive
        several = [c for c in candidates if len(c.scores[10]) > 1]
        assert several
        assert max(len(c.scores[10]) for c in several) == found.search.space.allocation.elite_seeds
        once = [c.score for c in candidates if len(c.scores[10]) == 1]
        assert np.median([next(iter(c.scores[10].values())) for c in several]) > np.median(once)

    def test_elites_take_no_more_than_their_share(self, searched):
        path, found = searched
        phases = Counter(training.phase for training in requests(path))
        selecting = phases.total() - phases["confirmation"]
        assert 0 < phases["repetition"] <= found.search.space.allocation.elite_share * selecting

    def test_no_elites_are_trained_again_when_one_seed_is_enough(self, tmp_path):
        run_search(tmp_path / "ledger.sqlite", small_space(trainings=32, allocation={"elite_seeds": 1}))
        assert "repetition" not in {t.phase for t in requests(tmp_path / "ledger.sqlite")}


class TestTuning:
    def test_what_was_trained_before_is_not_trained_again(self, undisturbed):
        _, path, _ = undisturbed
        asked = Counter((t.candidate, t.trial["seed"]) for t in requests(path))
        assert set(asked.values()) == {1}

    def test_evolution_does_not_propose_what_was_tuned(self, searched):
        """The screening knows it, though it is trained unscreened."""
        path, found = searched
        begun = Counter(t.candidate for t in requests(path) if t.phase in (EVOLUTION, TUNING))
        assert set(begun.values()) == {1}
        tuned = [c.expression for c in found.search.archive if isinstance(c.origin, Tuned)]
        assert tuned
        assert not any(found.search.screening.screen(expression) for expression in tuned)

    def test_it_tunes_the_best_structures(self, searched):
        _, found = searched
        tuned = [c for c in found.search.archive if isinstance(c.origin, Tuned)]
        parents = {parent for candidate in tuned for parent in candidate.origin.parents}
        assert 1 <= len(parents) <= found.search.space.tuning.structures
        evolved = [c for c in found.search.archive if isinstance(c.origin, Seed | Evolved)]
        scores = {c.id: c.score for c in evolved}
        assert min(scores[parent] for parent in parents) > np.quantile(list(scores.values()), 0.6)


class TestConfirmation:
    def test_its_seeds_were_never_selected_on(self, undisturbed):
        name, path, _ = undisturbed
        seeds = {t.trial["seed"] for t in requests(path) if t.phase == "confirmation"}
        assert len(seeds) == SPACES[name].budget.confirmation_seeds
        assert not seeds & {t.trial["seed"] for t in requests(path) if t.phase != "confirmation"}

    def test_confirmed_losses_are_ranked_by_it_alone(self, undisturbed):
        _, _, found = undisturbed
        by_id = {candidate.id: candidate for candidate in found.search.archive}
        for entry in found.entries:
            candidate = by_id[entry.id]
            assert entry.confirmed is bool(candidate.confirmations)
            values = list((candidate.confirmations or candidate.scores)[10].values())
            assert entry.score == pytest.approx(np.mean(values))
            assert entry.seeds == len(values)
            if entry.seeds > 1:
                assert entry.score_se == pytest.approx(np.std(values, ddof=1) / np.sqrt(len(values)))
            else:
                assert entry.score_se is None
            assert entry.selection_score == pytest.approx(candidate.score)

    def test_finalists_are_the_best_evolved_and_the_best_hand_crafted(self, searched):
        _, found = searched
        confirmed = [c for c in found.search.archive if c.confirmations]
        literature = [c for c in confirmed if c.hand_crafted]
        assert len(confirmed) == found.search.plan.finalists
        assert len(literature) == len(confirmed) // 3
        rest = [c for c in found.search.archive if c.hand_crafted and not c.confirmations]
        assert min(c.score for c in literature) > max(c.score for c in rest) - 0.03


class TestHallOfFame:
    def test_it_is_told_after_every_change_and_well_formed_each_time(self, undisturbed):
        _, _, found = undisturbed
        assert len(found.written) > 10
        assert found.written[-1] == found.entries
        for entries in found.written:
            assert [entry.rank for entry in entries] == list(range(1, len(entries) + 1))
            assert len({entry.id for entry in entries}) == len(entries)
            confirmed = [entry.confirmed for entry in entries]
            assert confirmed == sorted(confirmed, reverse=True)
            for part in (True, False):
                scores = [entry.score for entry in entries if entry.confirmed is part]
                assert scores == sorted(scores, reverse=True)
            json.dumps([asdict(entry) for entry in entries], allow_nan=False)

    def test_every_hand_crafted_loss_is_in_it(self, searched):
        _, found = searched
        names = {entry.origin.name for entry in found.entries if isinstance(entry.origin, HandCrafted)}
        assert names == set(SEEDS)

    def test_its_losses_are_the_candidates_that_were_trained(self, searched):
        path, found = searched
        for entry in found.entries:
            assert str(entry.expression) == entry.formula
            assert entry.complexity == entry.expression.complexity
            training = next(t for t in requests(path) if t.candidate == entry.id)
            assert training.trial["loss"] == entry.loss
            assert outcome_of(training.trial, Status.DONE).value["values"]["dice"]["b"]["vertebra"] == score(
                training.trial
            )

    def test_a_new_leader_is_announced(self, searched):
        _, found = searched
        leaders = [event for event in found.events if event.kind == "best"]
        assert leaders
        for event in leaders:
            assert event.message.startswith(event.progress.best_id)

    def test_who_leads_is_told_when_all_finalists_are_confirmed(self, searched):
        _, found = searched
        confirmation = [event for event in found.events if event.progress.phase == "confirmation"]
        assert [event.kind for event in confirmation if event.kind != "training"][-1] == "best"
        assert [event.kind for event in confirmation].count("best") == 1
        told = confirmation[-1]
        assert told.progress.done == told.progress.total
        assert told.message.startswith(f"{found.entries[0].id} leads with Dice {found.entries[0].score:.4f}")
        standing = [event.progress.best_score for event in confirmation[:-1]]
        assert standing == standing[:1] * len(standing)
        for entries in found.written:
            confirmed = sum(entry.confirmed for entry in entries)
            assert confirmed in (0, found.search.plan.finalists), "half a confirmation is no ranking"


def unequal(trainings: int = 90, **changes) -> SearchSpace:
    return small_space(trainings=trainings, tuning_share=0.1, confirmation_share=0.2, **changes)


LENGTHS = (10, 20, 40)


@pytest.fixture(scope="module")
def ladder(tmp_path_factory) -> tuple[Path, Searched]:
    """A search whose trainings are of three lengths."""
    path = tmp_path_factory.mktemp("ladder") / "ledger.sqlite"
    return path, run_search(path, unequal(), seed=5, lengths=LENGTHS)


class TestLengths:
    """Trainings of several lengths: the best are trained longer, and the longest decide."""

    def test_the_budget_is_of_steps(self, ladder):
        path, found = ladder
        steps = sum(training.trial["steps"] for training in requests(path))
        assert steps <= found.search.plan.total == 900
        assert steps > 900 - 3 * 40
        assert found.events[-1].progress.done == steps // 10

    def test_a_longer_training_has_the_seed_of_the_shorter(self, ladder):
        path, _ = ladder
        asked = {(t.candidate, t.trial["seed"], t.trial["steps"]): t.phase for t in requests(path)}
        promoted = [key for key, phase in asked.items() if phase == "promotion"]
        assert promoted
        for candidate, seed, steps in promoted:
            assert (candidate, seed, steps // 2) in asked

    def test_those_promoted_are_the_best_of_their_length(self, ladder):
        _, found = ladder
        for shorter, longer in itertools.pairwise(LENGTHS):
            trained = found.search.archive.trained(shorter)
            went_on = found.search.archive.trained(longer)
            assert len(went_on) <= len(trained) / found.search.space.allocation.eta + 1
            left = [candidate.mean(shorter) for candidate in trained if candidate not in went_on]
            assert np.median([candidate.mean(shorter) for candidate in went_on]) > np.quantile(left, 0.75)

    def test_losses_are_confirmed_at_the_horizon(self, ladder):
        path, found = ladder
        confirmed = [entry for entry in found.entries if entry.confirmed]
        assert len(confirmed) == found.search.plan.finalists
        assert {entry.steps for entry in confirmed} == {40}
        assert {t.trial["steps"] for t in requests(path) if t.phase == "confirmation"} == {40}
        order = [entry.steps for entry in found.entries if not entry.confirmed]
        assert order == sorted(order, reverse=True)

    @pytest.mark.parametrize(("workers", "order"), [(2, 1), (4, 2)])
    def test_workers_decide_nothing(self, ladder, tmp_path, workers, order):
        path, expected = ladder
        executor = SyntheticExecutor(workers, random.Random(order))
        found = run_search(tmp_path / "l", unequal(), seed=5, lengths=LENGTHS, executor=executor)
        assert found.entries == expected.entries
        assert requests_made(tmp_path / "l") == requests_made(path)

    @pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.chaos), 11])
    def test_killed_again_and_again_it_ends_the_same(self, ladder, tmp_path, every):
        path, expected = ladder
        for life in itertools.count():
            executor = SyntheticExecutor(2, random.Random(life), kill_after=every)
            try:
                found = run_search(tmp_path / "l", unequal(), seed=5, lengths=LENGTHS, executor=executor)
            except Killed:
                continue
            break
        assert life > 2
        assert found.entries == expected.entries
        assert requests_made(tmp_path / "l") == requests_made(path)

    def test_outcomes_enter_as_virtual_workers_would_have_finished(self, ladder):
        """No long training holds up short ones: at each decision the others that had ended were known."""
        path, found = ladder
        window = found.search.space.budget.window
        clock, running, told = 0.0, [], 0
        for training in requests(path):
            while told < training.after:
                clock = min(running)
                running.remove(clock)
                told += 1
            assert len(running) < window
            running.append(clock + training.trial["steps"])
        assert any(training.trial["steps"] > 10 for training in requests(path))


class TestContinuing:
    """Where a training can be continued, the longer goes on from the shorter."""

    @pytest.fixture(scope="class")
    @classmethod
    def continuing(cls, tmp_path_factory) -> tuple[Path, Searched]:
        folder = tmp_path_factory.mktemp("continuing")
        states = States(folder / "states")
        return folder / "l", run_search(folder / "l", unequal(70), seed=5, lengths=LENGTHS, states=states)

    def test_each_promotion_gets_the_state_of_the_shorter_training(self, continuing):
        path, found = continuing
        promoted = [payload for payload in found.executor.submitted if payload.get("continues")]
        assert {payload["steps"] for payload in promoted} == {20, 40}
        for payload in promoted:
            assert payload[STATE].decode() == f"{payload['seed']} after {payload['continues']} steps"
        assert len(promoted) == sum(training.phase == "promotion" for training in requests(path))

    def test_only_what_may_be_continued_keeps_its_state(self, continuing):
        path, found = continuing
        assert all(payload.get(KEEPS, False) is (payload["steps"] < 40) for payload in found.executor.submitted)
        assert not (path.parent / "states").exists()
        assert not any(STATE in training.outcome.value for training in requests(path) if training.outcome.value)

    def test_the_budget_is_of_the_steps_that_are_made(self, continuing):
        path, found = continuing
        steps = sum(training.trial["steps"] - training.trial.get("continues", 0) for training in requests(path))
        plan = found.search.plan
        assert plan.total - 10 < steps <= plan.total
        assert found.events[-1].progress.done == steps // 10

    def test_killed_again_and_again_it_ends_the_same(self, continuing, tmp_path):
        """Also if states are lost on the way."""
        path, expected = continuing
        for life in itertools.count():
            states = States(tmp_path / "states")
            if life % 2:
                states.clear()
            executor = SyntheticExecutor(2, random.Random(life), kill_after=13)
            try:
                found = run_search(
                    tmp_path / "l", unequal(70), seed=5, lengths=LENGTHS, executor=executor, states=states
                )
            except Killed:
                continue
            break
        assert life > 2
        assert found.entries == expected.entries
        assert requests_made(tmp_path / "l") == requests_made(path)


class TestPreselection:
    """Of several proposals the surrogate lets one be trained."""

    SPACE = small_space(trainings=80, tuning_share=0.1)
    LENGTHS = (10, 20)

    @pytest.fixture(scope="class")
    @classmethod
    def preselected(cls, tmp_path_factory) -> tuple[Path, Searched]:
        path = tmp_path_factory.mktemp("preselected") / "ledger.sqlite"
        return path, run_search(path, cls.SPACE, seed=6, lengths=cls.LENGTHS, surrogate=True)

    def test_who_is_chosen_scores_better_than_who_is_passed_over(self, tmp_path, monkeypatch):
        gains = []
        choose = engine.Preselection.choose

        def watched(preselection, proposals, generator) -> int:
            chosen = choose(preselection, proposals, generator)
            scores = [score({"loss": {"expression": proposal.to_json()}, "seed": 0}) for proposal in proposals]
            gains.append(scores[chosen] - scores[1 - chosen])
            return chosen

        monkeypatch.setattr(engine.Preselection, "choose", watched)
        space = small_space(trainings=100, tuning_share=0, confirmation_share=0.1, allocation={"elite_seeds": 1})
        run_search(tmp_path / "l", space, seed=6, surrogate=True)
        assert len(gains) > 40
        assert np.mean(gains) > 2 * np.std(gains) / np.sqrt(len(gains))

    def test_who_was_passed_over_is_counted(self, preselected):
        _, found = preselected
        progress = found.events[-1].progress
        proposed = sum(isinstance(candidate.origin, Evolved) for candidate in found.search.archive)
        first = next(event.progress for event in found.events if event.progress.rejected["surrogate"])
        assert first.trainings >= 10, "before that the surrogate knows too little"
        assert 0.4 * proposed < progress.rejected["surrogate"] <= proposed

    def test_one_proposal_alone_needs_no_surrogate(self, tmp_path):
        alone = self.SPACE.model_copy(update={"preselection": Preselection(proposals=1)})
        budget = alone.budget.model_copy(update={"trainings": 40})
        alone = alone.model_copy(update={"budget": budget})
        found = run_search(tmp_path / "with", alone, seed=6, surrogate=True)
        assert found.entries == run_search(tmp_path / "without", alone, seed=6).entries
        assert not found.events[-1].progress.rejected["surrogate"]

    def test_workers_decide_nothing_and_killed_it_ends_the_same(self, preselected, tmp_path):
        path, expected = preselected
        for life in itertools.count():
            executor = SyntheticExecutor(4, random.Random(life), kill_after=17)
            try:
                found = run_search(
                    tmp_path / "l", self.SPACE, seed=6, lengths=self.LENGTHS, executor=executor, surrogate=True
                )
            except Killed:
                continue
            break
        assert life > 1
        assert found.entries == expected.entries
        assert requests_made(tmp_path / "l") == requests_made(path)


def requests_made(path: Path) -> list[tuple]:
    """The course: every decision, on what it was taken, and what was noted."""
    return [(t.phase, t.candidate, t.trial, t.after, t.note) for t in requests(path)]


def test_a_search_that_had_ended_goes_on_with_more_budget(undisturbed, tmp_path):
    name, path, _ = undisturbed
    space = SPACES[name]
    larger = space.model_copy(update={"budget": space.budget.model_copy(update={"trainings": 60})})
    copy = tmp_path / "l"
    with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    found = run_search(copy, larger, seed=3)
    assert requests_made(copy)[:36] == requests_made(path)
    new = [event.progress.phase for event in found.events if event.kind == "training"]
    assert list(dict.fromkeys(new)) == ["evolution", "confirmation"]
    assert all(event.progress.eta_s is None or event.progress.eta_s >= 0 for event in found.events)
    confirmed = [entry for entry in found.entries if entry.confirmed]
    assert len(confirmed) >= found.search.plan.finalists


class TestFollowing:
    """What is on record is followed, whatever the code that proposes would do now."""

    def test_other_code_goes_on_from_the_record(self, undisturbed, tmp_path, monkeypatch):
        name, path, _ = undisturbed
        executor = SyntheticExecutor(kill_after=20)
        with pytest.raises(Killed):
            run_search(tmp_path / "l", SPACES[name], seed=3, executor=executor)
        begun = requests_made(tmp_path / "l")
        monkeypatch.setattr("lossevo.search.genetic.variation.Variation.random_tree", lambda self: [])
        monkeypatch.setattr("lossevo.search.screening.Screening.try_out", lambda self, expression: pytest.fail("again"))
        with pytest.raises(Killed):
            run_search(tmp_path / "l", SPACES[name], seed=3, executor=SyntheticExecutor(kill_after=0))
        assert requests_made(tmp_path / "l") == begun == requests_made(path)[: len(begun)]

    @pytest.mark.parametrize("change", ["trial = replace(trial, '\"steps\": 10', '\"steps\": 11')", "after = 7"])
    def test_a_record_that_cannot_be_is_refused(self, searched, tmp_path, change):
        path, _ = searched
        copy = tmp_path / "l"
        with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
            source.backup(target)
        with sqlite3.connect(copy) as damaged:
            damaged.execute(f"UPDATE trials SET {change} WHERE ticket = 20")
        with pytest.raises(
            LossevoError, match=r"training \d+ on record is not one that this search could have asked for"
        ):
            run_search(copy, small_space(trainings=96), seed=2)


def test_copies_of_one_loss_have_no_winner(tmp_path, monkeypatch):
    """The null test: where every loss scores alike but for its seeds, none is told apart from the hand-crafted."""
    monkeypatch.setattr("tests.search.synthetic.score", noise_alone)
    unscreened = {"screening": False, "simplify": False, "strategy": RandomSearch(kind="random")}
    space = small_space(trainings=64, tuning_share=0.0).model_copy(update=unscreened)
    leads, biases = [], []
    for seed in range(6):
        found = run_search(tmp_path / str(seed), space, seed=seed)
        confirmed = [entry for entry in found.entries if entry.confirmed]
        best = confirmed[0]
        literature = next(entry for entry in confirmed if isinstance(entry.origin, HandCrafted))
        leads.append((best.score - literature.score) / NOISE)
        biases.append(best.selection_score - 0.5)
    # Of ten finalists with three seeds each the best leads by chance, by about 1.5 / √3 standard deviations.
    assert np.mean(leads) < 1.2
    assert np.mean(biases) > 0.5 * NOISE, "what losses were chosen by is biased upwards"


def noise_alone(payload) -> float:
    expression = payload["loss"]["expression"]["structure"] + str(payload["loss"]["expression"]["coefficients"])
    digest = int.from_bytes(hashlib.sha256(expression.encode()).digest()[:8])
    return float(0.5 + np.random.default_rng([payload["seed"], digest]).normal(0, NOISE))
