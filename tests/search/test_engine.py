from __future__ import annotations

import itertools
import json
import math
import os
import random
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
from lossevo.experiment.candidate import Candidate
from lossevo.experiment.ledger import Ledger, Record
from lossevo.experiment.origin import Evolved, HandCrafted, Seed, Tuned
from lossevo.expression import Expression
from lossevo.search import engine
from lossevo.search.plan import Plan
from lossevo.search.space import Budget, SearchSpace
from lossevo.training.seeds import confirmation_seed, selection_seed
from tests.search.synthetic import (
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
        "change", [{"seed": 4}, {"space": small_space(trainings=96, window=3)}, {"space": SPACES["generational"]}]
    )
    def test_a_ledger_of_another_search_is_refused(self, searched, change):
        path, _ = searched
        before = len(requests(path))
        with pytest.raises(LossevoError, match=r"training \d+ on record is not the one asked for now.* new run"):
            run_search(path, **{"space": small_space(trainings=96), "seed": 1, **change})
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
        by_id = {candidate.id: candidate for candidate in found.search.candidates.values()}
        for training in failed:
            candidate = by_id[training.candidate]
            scores = candidate.confirmations if training.phase == "confirmation" else candidate.scores
            assert scores[training.trial["seed"]] == 0.0
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
        monkeypatch.setattr(engine, "MAX_REJECTED_IN_A_ROW", 200)
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
    @pytest.mark.parametrize("name", SPACES)
    @pytest.mark.parametrize("seeds", [0, 6, 10])
    @pytest.mark.parametrize("trainings", [24, 48, 60, 96, 240, 5000])
    def test_the_plan_spends_all_of_it(self, name, seeds, trainings):
        budget = SPACES[name].budget.model_copy(update={"trainings": trainings})
        plan = Plan.of(budget, seeds)
        assert plan.evolution + plan.tuning + plan.confirmation == plan.total == trainings
        assert plan.tuning <= budget.tuning_share * trainings
        assert plan.confirmation % budget.confirmation_seeds == 0
        assert plan.confirmation >= 2 * budget.confirmation_seeds

    @pytest.mark.parametrize("budget", [Budget(), Budget(confirmation_seeds=40), Budget(tuning_share=0.5)])
    def test_one_that_is_too_small_is_refused_with_one_that_is_not(self, budget):
        with pytest.raises(
            LossevoError, match=r"a budget of 9 trainings is too small: .* \d+ would be enough"
        ) as caught:
            Plan.of(budget.model_copy(update={"trainings": 9}), 10)
        enough = int(str(caught.value).split("; ")[-1].split()[0])
        assert Plan.of(budget.model_copy(update={"trainings": enough}), 10).evolution >= 12
        with pytest.raises(LossevoError):
            Plan.of(budget.model_copy(update={"trainings": enough - 1}), 10)

    def test_each_phase_keeps_to_its_share(self, undisturbed):
        _, path, found = undisturbed
        plan = found.search.plan
        phases = Counter(training.phase for training in requests(path))
        assert phases["evolution"] == plan.evolution
        assert 0 < phases["tuning"] <= plan.tuning
        assert phases["confirmation"] == plan.confirmation
        assert list(dict.fromkeys(t.phase for t in requests(path))) == ["evolution", "tuning", "confirmation"]

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
    def test_a_share_too_small_for_a_generation_goes_to_evolution(self, tmp_path, trainings):
        found = run_search(tmp_path / "ledger.sqlite", small_space(trainings=trainings))
        assert 0 < int(trainings * found.search.space.budget.tuning_share) < 5
        assert found.search.plan.tuning == 0
        assert found.search.plan.total == len(requests(tmp_path / "ledger.sqlite")) == trainings
        assert found.events[-1].progress.done == trainings

    def test_only_trainings_are_counted(self, tmp_path):
        """CMA-ES takes whole generations, and may leave some of its share."""
        found = run_search(tmp_path / "ledger.sqlite", small_space("glo", trainings=36), seed=1)
        progress = found.events[-1].progress
        assert progress.done == len(requests(tmp_path / "ledger.sqlite")) < progress.total == 36
        assert progress.eta_s == 0

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
        by_id = {candidate.id: candidate for candidate in found.search.candidates.values()}
        assert [by_id[subject].origin.name for subject in new[: len(SEEDS)]] == list(SEEDS)

    def test_it_finds_better_losses_than_it_started_from(self, searched):
        _, found = searched
        literature = max(entry.score for entry in found.entries if isinstance(entry.origin, HandCrafted))
        assert found.entries[0].confirmed
        assert not isinstance(found.entries[0].origin, HandCrafted)
        assert found.entries[0].score > literature

    def test_every_operator_contributes(self, searched):
        _, found = searched
        operators = {str(candidate.origin).split()[0].rstrip(":") for candidate in found.search.candidates.values()}
        assert operators >= {"hand-crafted", "random", "crossover", "subtree", "coefficients", "cma-es"}

    def test_parents_were_trained_before_their_children(self, searched):
        _, found = searched
        number = {candidate.id: candidate.number for candidate in found.search.candidates.values()}
        for candidate in found.search.candidates.values():
            assert all(number[parent] < candidate.number for parent in candidate.origin.parents)

    def test_every_candidate_has_seeds_of_its_own(self, searched):
        """With one for all, luck with that seed would be inherited and selected for."""
        path, _ = searched
        evolution = [t for t in requests(path) if t.phase == "evolution"]
        first = {t.candidate: t.trial["seed"] for t in reversed(evolution)}
        assert len(set(first.values())) == len(first)
        pairs = {(t.candidate, t.trial["seed"]) for t in requests(path) if t.phase != "confirmation"}
        assert len({seed for _, seed in pairs}) == len(pairs), "no two candidates share a seed"
        of_run = range(selection_seed(2, 0), confirmation_seed(2, 0))
        assert all(seed in of_run for _, seed in pairs)

    def test_elites_are_trained_again_with_further_seeds(self, searched):
        _, found = searched
        candidates = found.search.candidates.values()
        several = [c for c in candidates if len(c.scores) > 1]
        assert several
        assert max(len(c.scores) for c in several) == found.search.space.strategy.elite_seeds
        once = [c.score for c in candidates if len(c.scores) == 1]
        assert np.median([next(iter(c.scores.values())) for c in several]) > np.median(once)

    def test_elites_take_no_more_than_their_share(self, searched):
        path, found = searched
        evolution = [training.candidate for training in requests(path) if training.phase == "evolution"]
        again = len(evolution) - len(set(evolution))
        assert 0 < again <= found.search.space.strategy.elite_share * len(evolution) + 1

    def test_no_elites_are_trained_again_when_one_seed_is_enough(self, tmp_path):
        run_search(tmp_path / "ledger.sqlite", small_space(trainings=32, strategy={"elite_seeds": 1}))
        evolution = [t.candidate for t in requests(tmp_path / "ledger.sqlite") if t.phase == "evolution"]
        assert len(evolution) == len(set(evolution))

    def test_more_seeds_than_a_generation_holds(self, tmp_path):
        space = small_space(trainings=48, strategy={"replacement": "generational", "selection": "roulette"})
        names = ("cross_entropy", "focal", "dice", "generalized_dice", "tversky", "dice_ce", "dice_focal", "boundary",
                 "focal_tversky", "baikal")  # fmt: skip
        found = run_search(tmp_path / "ledger.sqlite", space.model_copy(update={"seeds": names}))
        assert {c.origin.name for c in found.search.candidates.values() if c.hand_crafted} == set(names)


class TestTuning:
    def test_what_was_trained_before_is_not_trained_again(self, undisturbed):
        _, path, _ = undisturbed
        asked = Counter((t.candidate, t.trial["seed"]) for t in requests(path))
        assert set(asked.values()) == {1}

    def test_it_tunes_the_best_structures(self, searched):
        _, found = searched
        tuned = [c for c in found.search.candidates.values() if isinstance(c.origin, Tuned)]
        parents = {parent for candidate in tuned for parent in candidate.origin.parents}
        assert 1 <= len(parents) <= found.search.space.tuning.structures
        evolved = [c for c in found.search.candidates.values() if isinstance(c.origin, Seed | Evolved)]
        scores = {c.id: c.score for c in evolved}
        assert min(scores[parent] for parent in parents) > np.quantile(list(scores.values()), 0.75)

    def test_a_structure_too_large_for_a_coefficient_per_node_is_left_out(self, tmp_path):
        found = run_search(tmp_path / "ledger.sqlite", small_space("glo", trainings=24))
        deep = "p * y"
        for _ in range(50):
            deep = f"sqrt({deep})"
        expression = Expression.parse(f"-class_mean(mean({deep}))")
        found.search.candidates = {expression.hash: Candidate(expression, Evolved("random"), 0, {0: 0.9})}
        assert found.search._tunable(1) == []


class TestConfirmation:
    def test_its_seeds_were_never_selected_on(self, undisturbed):
        name, path, _ = undisturbed
        seeds = {phase: {t.trial["seed"] for t in requests(path) if t.phase == phase} for phase in
                 ("evolution", "tuning", "confirmation")}  # fmt: skip
        assert len(seeds["confirmation"]) == SPACES[name].budget.confirmation_seeds
        assert not seeds["confirmation"] & (seeds["evolution"] | seeds["tuning"])

    def test_confirmed_losses_are_ranked_by_it_alone(self, undisturbed):
        _, _, found = undisturbed
        by_id = {candidate.id: candidate for candidate in found.search.candidates.values()}
        for entry in found.entries:
            candidate = by_id[entry.id]
            assert entry.confirmed is bool(candidate.confirmations)
            values = list((candidate.confirmations or candidate.scores).values())
            assert entry.score == pytest.approx(np.mean(values))
            assert entry.seeds == len(values)
            if entry.seeds > 1:
                assert entry.score_se == pytest.approx(np.std(values, ddof=1) / np.sqrt(len(values)))
            else:
                assert entry.score_se is None
            assert entry.selection_score == pytest.approx(candidate.score)

    def test_finalists_are_the_best_evolved_and_the_best_hand_crafted(self, searched):
        _, found = searched
        confirmed = [c for c in found.search.candidates.values() if c.confirmations]
        literature = [c for c in confirmed if c.hand_crafted]
        assert len(confirmed) == found.search.plan.confirmation // 3
        assert len(literature) == len(confirmed) // 3
        rest = [c for c in found.search.candidates.values() if c.hand_crafted and not c.confirmations]
        assert min(c.score for c in literature) > max(c.score for c in rest) - 0.03

    def test_no_two_finalists_have_the_same_gradient(self, undisturbed):
        """CMA-ES starts from its parent, with coefficients of 1 where there were none."""
        _, _, found = undisturbed
        search = found.search
        parent = next(c for c in search.candidates.values() if c.confirmations and not c.hand_crafted)
        twin = Expression.parse(f"3.0 * ({parent.expression}) + 5.0")
        search.candidates[twin.hash] = Candidate(twin, Tuned((parent.id,)), 999, dict(parent.scores))
        finalists = search._finalists(8)
        evolved = [search.screening.fingerprint(c.expression) for c in finalists if not c.hand_crafted]
        assert len(set(evolved)) == len(evolved)
        assert parent in finalists
        del search.candidates[twin.hash]


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
            assert confirmed in (0, found.search.plan.confirmation // 3), "half a confirmation is no ranking"
