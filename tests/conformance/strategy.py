"""What every strategy must do, whatever it proposes: tests that are run on each."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest

from lossevo.experiment.candidate import Candidate
from lossevo.expression import Expression
from lossevo.search.strategies.strategy import Proposal, Strategy

Make = Callable[[], Strategy]
Told = tuple[str, Candidate]


def score_of(expression: Expression) -> float:
    """A score between 0 and 1 that follows from the loss alone."""
    return int(expression.hash[:6], 16) / 0xFFFFFF


class Dialogue:
    """Asks a strategy, trains whatever is new to it, and tells it, with up to ``window`` trainings under way."""

    def __init__(self, strategy: Strategy, *, seed: int = 0, window: int = 3, fails: float = 0.0) -> None:
        self.strategy = strategy
        self.seed = seed
        self.window = window
        self.fails = fails
        self.proposals: list[Proposal] = []
        self.said: list[Told] = []
        self.states: list[str] = []
        self._known: set[str] = set()
        self._under_way: list[Candidate] = []
        self._number = 0

    def go(self, trainings: int) -> Dialogue:
        """So many trainings more."""
        wanted = self._number + trainings
        while self._number < wanted:
            candidate = self._new() if len(self._under_way) < self.window else None
            if candidate is None:
                assert self._under_way, "it waits, though nothing is under way"
                self._end()
                continue
            self._under_way.append(candidate)
        return self

    def _new(self) -> Candidate | None:
        generator = random.Random(f"{self.seed}/{self._number}")
        for _ in range(3000):
            proposal = self.strategy.ask(generator)
            if proposal is None:
                return None
            if proposal.expression is None or proposal.expression.hash in self._known:
                continue
            self._known.add(proposal.expression.hash)
            self.proposals.append(proposal)
            candidate = Candidate(proposal.expression, proposal.origin, self._number)
            self._number += 1
            self.strategy.take(candidate)
            self.said.append(("take", candidate))
            self.states.append(json.dumps(self.strategy.state(), allow_nan=False))
            return candidate
        raise AssertionError("3000 proposals, and none of them new")

    def _end(self) -> None:
        candidate = self._under_way.pop(0)
        failed = random.Random(candidate.number).random() < self.fails
        candidate.record(10, candidate.number, 0.0 if failed else score_of(candidate.expression))
        self.strategy.tell(candidate)
        self.said.append(("tell", candidate))

    @property
    def formulas(self) -> list[str]:
        """What was proposed and trained."""
        return [str(proposal.expression) for proposal in self.proposals]


class StrategyConformance:
    """Subclass it, and give it ``make``."""

    @pytest.fixture
    def make(self) -> Make:
        raise NotImplementedError

    def test_the_same_seed_takes_the_same_course(self, make):
        one, same, other = (Dialogue(make(), seed=seed).go(40) for seed in (1, 1, 2))
        assert one.formulas == same.formulas
        assert one.formulas != other.formulas

    def test_global_generators_are_neither_read_nor_moved(self, make):
        random.seed(1)
        before = random.getstate()
        expected = Dialogue(make()).go(30).formulas
        assert random.getstate() == before
        random.seed(2)
        assert Dialogue(make()).go(30).formulas == expected

    def test_it_survives_failed_trainings(self, make):
        assert len(Dialogue(make(), fails=0.5).go(40).formulas) == 40
        assert len(Dialogue(make(), fails=1.0).go(40).formulas) == 40

    def test_a_candidate_may_be_trained_again(self, make):
        """It is told once more, with a further seed."""
        dialogue = Dialogue(make())
        dialogue.go(12)
        for what, candidate in [*dialogue.said]:
            if what == "tell":
                candidate.record(10, 1000, 0.7)
                dialogue.strategy.tell(candidate)
        assert len(dialogue.go(20).formulas) == 32

    def test_a_proposal_that_is_turned_down_changes_nothing(self, make):
        """But for the generator: asked again with the same one, it proposes the same."""
        strategy = make()
        Dialogue(strategy).go(15)
        state = strategy.state()
        first = strategy.ask(random.Random(7))
        strategy.restore(state)
        again = strategy.ask(random.Random(7))
        assert (first is None) is (again is None)
        assert first is None or str(first.expression) == str(again.expression)

    @pytest.mark.parametrize("trained", [1, 9, 24])
    def test_told_the_record_it_goes_on_as_it_was(self, make, trained):
        """What a search does that is resumed."""
        undisturbed = Dialogue(make())
        undisturbed.go(trained)
        said, state = [*undisturbed.said], undisturbed.states[-1]
        scores = {candidate.id: {steps: {**by_seed} for steps, by_seed in candidate.scores.items()}
                  for _, candidate in said}  # fmt: skip

        resumed = Dialogue(make())
        copies: dict[str, Candidate] = {}
        for what, candidate in said:
            if what == "take":
                copies[candidate.id] = Candidate(candidate.definition, candidate.origin, candidate.number)
                resumed.strategy.take(copies[candidate.id])
                resumed._under_way.append(copies[candidate.id])
                resumed._known.add(candidate.definition.hash)
                resumed._number += 1
            else:
                copies[candidate.id].scores = scores[candidate.id]
                resumed.strategy.tell(copies[candidate.id])
                resumed._under_way.remove(copies[candidate.id])
        resumed.strategy.restore(json.loads(state))
        expected = undisturbed.go(25).formulas[trained:]
        assert resumed.go(25).formulas == expected

    def test_it_does_not_stand_still(self, make):
        """Among many proposals most are new."""
        strategy = make()
        Dialogue(strategy).go(40)
        generator = random.Random(5)
        asked = [strategy.ask(generator) for _ in range(60)]
        formulas = {str(proposal.expression) for proposal in asked if proposal is not None and proposal.expression}
        assert not any(asked) or len(formulas) > 10

    def test_origins_name_candidates_that_were_trained(self, make):
        dialogue = Dialogue(make()).go(40)
        known: set[str] = set()
        taken = [candidate for what, candidate in dialogue.said if what == "take"]
        for candidate, proposal in zip(taken, dialogue.proposals, strict=True):
            assert {*proposal.origin.parents} <= known
            known.add(candidate.id)
