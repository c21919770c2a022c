"""The engine: evolution, coefficient tuning and confirmation, one training at a time in a fixed order.

The course of a search depends on its configuration and seed alone. Up to ``window`` trainings are in flight and
outcomes enter in the order in which they were submitted, so neither the number of workers nor who finishes first
matters.
"""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from deap import gp

from lossevo.errors import LossevoError
from lossevo.experiment import hall_of_fame
from lossevo.experiment.candidate import Candidate, seed_noise
from lossevo.experiment.events import Event, Listener
from lossevo.experiment.ledger import Ledger
from lossevo.experiment.ledger_values import Place
from lossevo.experiment.origin import HandCrafted, Origin, Seed, Tuned, origin_document
from lossevo.experiment.scoring import DICE, Scoring
from lossevo.experiment.trainings import OrderedTrainings
from lossevo.expression import Expression, ExpressionError
from lossevo.expression.dangers import is_safe
from lossevo.search.evolution import Population, Proposal, create_population
from lossevo.search.plan import Plan
from lossevo.search.progress import SearchProgress
from lossevo.search.screening import Check, Measured, Screening
from lossevo.search.simplification import effective_slots, simplify
from lossevo.search.space import SearchSpace
from lossevo.search.tuning import CoefficientTuner, with_slots
from lossevo.search.variation import Variation
from lossevo.training import Fidelity, Split, Trial
from lossevo.training.seeds import confirmation_seed, selection_seed

MAX_REJECTED_IN_A_ROW = 50_000
_DEFAULT_NOISE = 0.01
"""Standard deviation between seeds while it is not known, as a part of the objective's range."""
_LEAST_TUNING = 16


@dataclass(frozen=True, slots=True)
class Problem:
    """What a search optimises for: who is trained and validated on, for how many steps, with how many classes (with
    background), in which study (:class:`~lossevo.training.Trial`), and by which objective.
    """

    split: Split
    classes: int
    steps: int
    study: str = ""
    scoring: Scoring = DICE


@dataclass
class Search:
    """One search over ``space`` for ``problem``.

    ``changed`` is called with the ranking whenever it may have changed.
    """

    space: SearchSpace
    problem: Problem
    seed: int
    ledger: Ledger
    trainings: OrderedTrainings
    listener: Listener = lambda event: None
    changed: Callable[[list[hall_of_fame.Entry]], None] = lambda entries: None
    candidates: dict[str, Candidate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scoring = self.problem.scoring
        self.plan = Plan.of_space(self.space)
        self.screening = Screening(self.problem.classes)
        self._generator = random.Random(self.seed)
        self._measured: list[tuple[str, str, str]] = []
        self._phase = "evolution"
        self._done = 0
        self._left_over = 0
        self._failed = 0
        self._again = 0
        self._replayed = False
        self._entries: list[hall_of_fame.Entry] = []
        self.trainings.arrived = lambda outcome: self._tell("arrived", "")

    def run(self) -> list[hall_of_fame.Entry]:
        """Evolve, tune, confirm; returns the hall of fame.

        Raises:
            LossevoError: the space is exhausted, or the ledger does not belong to this search.
        """
        for name, phase in (("evolution", self._evolve), ("tuning", self._tune), ("confirmation", self._confirm)):
            self._phase = name
            self._tell("phase", f"{name}: {getattr(self.plan, name)} trainings")
            phase()
        return self._entries

    # Evolution

    def _evolve(self) -> None:
        variation = Variation(self.space, self._generator)
        size = max(8, min(self.space.strategy.population, self.plan.evolution // 4))
        population = create_population(variation, size, self.screening.direction, unit=self.scoring.range)
        window = self.space.budget.window
        pending: deque[tuple[Candidate, int, gp.PrimitiveTree | None]] = deque()
        submitted = 0
        while submitted < self.plan.evolution or pending:
            while submitted < self.plan.evolution and len(pending) < window:
                again = self._elite_to_train_again(
                    population, [(candidate, seed) for candidate, seed, _ in pending], submitted
                )
                if again is not None:
                    candidate, seed = again
                    tree = None
                    self._again += 1
                else:
                    made = self._next_candidate(population, variation)
                    if made is None:
                        break
                    candidate, tree = made
                    seed = self._selection_seed(candidate, 0)
                self._submit(candidate, seed)
                pending.append((candidate, seed, tree))
                submitted += 1
            candidate, seed, tree = pending.popleft()
            self._take(candidate, seed, candidate.scores)
            if tree is not None:
                population.add(tree, candidate)
            population.believe(self._noise(self.candidates.values()))

    def _elite_to_train_again(
        self, population: Population, pending: Sequence[tuple[Candidate, int]], submitted: int
    ) -> tuple[Candidate, int] | None:
        """An elite that lacks selection seeds, and its next seed: a good first score may be luck."""
        strategy = self.space.strategy
        if (
            strategy.elite_seeds < 2
            or len(population.members) < strategy.elites
            or self._again >= strategy.elite_share * submitted
        ):
            return None
        best = sorted(population.members, key=lambda member: (-member.value, member.candidate.number))
        for member in best[: strategy.elites]:
            candidate = member.candidate
            taken = set(candidate.scores) | {seed for other, seed in pending if other is candidate}
            for index in range(strategy.elite_seeds):
                seed = self._selection_seed(candidate, index)
                if seed not in taken:
                    return candidate, seed
        return None

    def _next_candidate(
        self, population: Population, variation: Variation
    ) -> tuple[Candidate, gp.PrimitiveTree] | None:
        """The next proposal that passes the screening; None if the population waits for outcomes."""
        for _ in range(MAX_REJECTED_IN_A_ROW):
            proposal = population.propose()
            if proposal is None:
                return None
            if isinstance(proposal.origin, HandCrafted | Seed):
                expression: Expression | None = self.screening.admit(
                    variation.to_expression(proposal.tree), self._measure
                )
            else:
                expression = self.screening.screen(partial(_express, proposal, variation), self._measure)
            if expression is not None:
                self._remember_measured()
                population.accepted()
                expression, tree = self._simplified(expression, proposal, variation)
                return self._candidate(expression, proposal.origin), tree
        raise LossevoError(
            f"search space '{self.space.name}': the screening rejected {MAX_REJECTED_IN_A_ROW} candidates in a row, "
            "so it holds nothing new; widen its primitives or limits, or lower the budget"
        )

    def _simplified(
        self, expression: Expression, proposal: Proposal, variation: Variation
    ) -> tuple[Expression, gp.PrimitiveTree]:
        """The proposal without what does not change its gradient; seeds stay as they are written."""
        if not self.space.strategy.simplify or isinstance(proposal.origin, HandCrafted | Seed):
            return expression, proposal.tree
        known = self.ledger.simplified(expression.hash)
        if known is None:
            smaller = simplify(expression, self.screening.behaviour)
            if not is_safe(smaller):  # what was dropped bounded a value that only other images make large
                smaller = expression
            self.ledger.remember_simplified(expression.hash, smaller.to_json())
        else:
            smaller = Place(self.ledger.path, "simplified", expression.hash).expression(known)
        tree = variation.to_tree(smaller)
        return (smaller, tree) if tree is not None else (expression, proposal.tree)

    def _measure(self, expression: Expression) -> Measured:
        """What the screening measures, looked up in the ledger when it did before: a run that began when other checks
        or bounds were in force is replayed as it went.
        """
        known = self.ledger.measured(expression.hash)
        if known is not None:
            place = Place(self.ledger.path, "measured", expression.hash)
            failed = place.one_of(known[0], "failed", ["", *(check.value for check in Check)])
            return Measured(Check(failed) if failed else None, known[1])
        measured = self.screening.measure(expression)
        self._measured.append((expression.hash, measured.failed or "", measured.fingerprint))
        return measured

    def _remember_measured(self) -> None:
        if self._measured:
            self.ledger.remember_measured(self._measured)
            self._measured = []

    # Tuning

    def _tune(self) -> None:
        if not self.plan.tuning:
            return
        count = min(self.space.tuning.structures, max(1, self.plan.tuning // _LEAST_TUNING))
        structures = self._tunable(count)
        budgets = [self.plan.tuning // len(structures)] * len(structures) if structures else []
        self._left_over += self.plan.tuning - sum(budgets)
        for (candidate, expression, slots), budget in zip(structures, budgets, strict=True):
            generator = np.random.default_rng([self.seed, candidate.number])
            tuner = CoefficientTuner(expression, slots, self.space.tuning, generator, budget=budget)
            self._tune_one(candidate, tuner, budget)

    def _tune_one(self, parent: Candidate, tuner: CoefficientTuner, budget: int) -> None:
        """Whole generations of CMA-ES, then its favourite with as many seeds as an elite has.

        The point that it starts from trains as the parent does, and nothing is trained twice with a seed.
        """
        spent, origin = 0, Tuned((parent.id,))
        while spent + tuner.population < budget:
            generation = [
                parent if expression == tuner.expression else self._candidate(expression, origin)
                for expression in tuner.ask()
            ]
            new = [(made, self._selection_seed(made, 0)) for made in generation if not made.scores]
            if not new:
                break
            spent += len(list(self._train_all(new)))
            tuner.tell([candidate.score for candidate in generation])
        if spent:
            favourite = self._candidate(tuner.favourite(), origin)
            seeds = [self._selection_seed(favourite, index) for index in range(self.space.strategy.elite_seeds)]
            missing = [seed for seed in seeds if seed not in favourite.scores][: budget - spent]
            spent += len(list(self._train_all([(favourite, seed) for seed in missing])))
        self._left_over += budget - spent

    def _tunable(self, count: int) -> list[tuple[Candidate, Expression, list[int]]]:
        """The best evolved candidates of different structure, as they are tuned, with the slots that matter."""
        found: dict[str, tuple[Candidate, Expression, list[int]]] = {}
        for candidate in self._by_cautious_score():
            structure = hall_of_fame.structure(candidate)
            if len(found) == count:
                break
            if candidate.hand_crafted or structure in found:
                continue
            try:
                expression = with_slots(candidate.expression, self.space.tuning)
            except ExpressionError:  # with a coefficient per node it exceeds the limits of the language
                continue
            slots = effective_slots(expression, self.screening.fingerprint)
            if slots:
                found[structure] = (candidate, expression, slots)
        return list(found.values())

    # Confirmation

    def _confirm(self) -> None:
        """Train the finalists with seeds that nothing was selected on."""
        seeds = [confirmation_seed(self.seed, number) for number in range(self.space.budget.confirmation_seeds)]
        finalists = self._finalists(self.plan.confirmation // len(seeds))
        jobs = [(candidate, seed) for seed in seeds for candidate in finalists]
        self._left_over += self.plan.confirmation - len(jobs)
        found: dict[str, dict[int, float]] = {candidate.id: {} for candidate in finalists}
        list(self._train_all(jobs, found))
        for candidate in finalists:  # all at once: the first that is confirmed would lead before the others are
            candidate.confirmations.update(found[candidate.id])
        self._rank(finalists)
        if not self._replayed:
            self._tell_best()

    def _finalists(self, count: int) -> list[Candidate]:
        """The best evolved, at most two of a structure and one of a gradient, and the best hand-crafted losses: a third
        of the places, at least one.
        """
        ordered = self._by_cautious_score()
        literature = [candidate for candidate in ordered if candidate.hand_crafted][: max(1, count // 3)]
        structures: Counter[str] = Counter()
        fingerprints: set[str] = set()
        evolved: list[Candidate] = []
        for candidate in ordered:
            structure = hall_of_fame.structure(candidate)
            if len(evolved) == count - len(literature):
                break
            if candidate.hand_crafted or structures[structure] == 2:
                continue
            fingerprint = self.screening.fingerprint(candidate.expression)
            if fingerprint not in fingerprints:  # where CMA-ES starts with new coefficients of 1 it has its parent's
                structures[structure] += 1
                fingerprints.add(fingerprint)
                evolved.append(candidate)
        return [*evolved, *literature]

    def _by_cautious_score(self) -> list[Candidate]:
        """Candidates that have a score, by the lower bound mean − s/√n: one lucky seed does not win."""
        scored = [candidate for candidate in self.candidates.values() if candidate.scores]
        noise = self._noise(scored)
        return sorted(scored, key=lambda candidate: (-candidate.cautious_score(noise), candidate.number))

    def _noise(self, candidates: Iterable[Candidate]) -> float:
        """Standard deviation of a score between seeds."""
        return seed_noise(candidates, default=_DEFAULT_NOISE * self.scoring.range, worst=self.scoring.worst)

    # Trainings

    def _selection_seed(self, candidate: Candidate, index: int) -> int:
        """The candidate's seed number ``index``. Each candidate has seeds of its own: with one for all, what a loss
        owes to that seed's weights and batches would be inherited by its children and selected for.
        """
        return selection_seed(self.seed, candidate.number, index)

    def _candidate(self, expression: Expression, origin: Origin) -> Candidate:
        """The candidate of an expression, new or known."""
        known = self.candidates.get(expression.hash)
        if known is not None:
            return known
        candidate = Candidate(expression, origin, number=len(self.candidates))
        self.candidates[expression.hash] = candidate
        document = {"loss": candidate.spec, "origin": origin_document(origin), "number": candidate.number}
        self.ledger.remember_candidate(candidate.id, document)
        return candidate

    def _submit(self, candidate: Candidate, seed: int) -> None:
        problem = self.problem
        trial = Trial(candidate.spec, Fidelity(problem.steps, seed, problem.split), problem.study, self.scoring.metrics)
        self.trainings.submit(trial, phase=self._phase, candidate=candidate.id, calibrating=candidate.given)

    def _take(self, candidate: Candidate, seed: int, scores: dict[int, float]) -> None:
        """Wait for the training that was submitted first, keep its score, rank, and tell of it."""
        taken = self.trainings.take()
        measurement = taken.measurement
        scores[seed] = utility = self.scoring.utility(measurement)
        self._done += 1
        self._failed += measurement is None
        leader = self._entries[0].id if self._entries else ""
        self._rank([candidate])
        self._replayed = taken.replayed
        told = self.scoring.told(utility) if measurement is not None else taken.problem
        kind = "replayed" if taken.replayed else "training"
        self._tell(kind, f"{candidate.id} {told}  {candidate.origin}")
        if self._entries[0].id != leader and not taken.replayed:
            self._tell_best()

    def _train_all(
        self, jobs: Sequence[tuple[Candidate, int]], scores: Mapping[str, dict[int, float]] | None = None
    ) -> Iterator[tuple[Candidate, int]]:
        """Train candidates with seeds, ``window`` at a time; yields each when its score is in.

        The scores are selection scores, or kept in ``scores`` by candidate's id.
        """
        pending: deque[tuple[Candidate, int]] = deque()
        waiting = deque(jobs)
        while waiting or pending:
            while waiting and len(pending) < self.space.budget.window:
                pending.append(waiting.popleft())
                self._submit(*pending[-1])
            candidate, seed = pending.popleft()
            self._take(candidate, seed, candidate.scores if scores is None else scores[candidate.id])
            yield candidate, seed

    # Telling

    def _rank(self, trained: Sequence[Candidate]) -> None:
        """Write the hall of fame if one of ``trained`` is in it."""
        self._entries = hall_of_fame.rank(
            self.candidates.values(), self.space.budget.confirmation_seeds, self.scoring.objective
        )
        if not {entry.id for entry in self._entries}.isdisjoint(candidate.id for candidate in trained):
            self.changed(self._entries)

    def _tell_best(self) -> None:
        best = self._entries[0]
        self._tell("best", f"{best.id} leads with {self.scoring.objective.title} {best.score:.4f}: {best.unicode}")

    def _tell(self, kind: str, message: str) -> None:
        self.listener(Event(kind, message, self.progress()))

    def progress(self) -> SearchProgress:
        """Where the search stands."""
        best = self._entries[0] if self._entries else None
        literature = (entry.score for entry in self._entries if isinstance(entry.origin, HandCrafted))
        per_hour = self.trainings.per_hour
        left = self.plan.total - self._left_over - self._done
        return SearchProgress(
            phase=self._phase,
            done=self._done,
            total=self.plan.total,
            failed=self._failed,
            proposed=self.screening.saw[Check.LIMITS],
            rejected={check.value: count for check, count in self.screening.rejected.items()},
            best_score=best.score if best else math.nan,
            best_id=best.id if best else "",
            best_formula=best.unicode if best else "",
            best_hand_crafted=next(literature, math.nan),
            per_hour=per_hour,
            busy_share=self.trainings.busy_share,
            workers=self.trainings.workers,
            eta_s=3600 * left / per_hour if per_hour > 0 else None,
        )


def _express(proposal: Proposal, variation: Variation) -> Expression | None:
    """The expression of a proposal; None beyond the space's or the language's limits."""
    if not variation.within_limits(proposal.tree):
        return None
    try:
        return variation.to_expression(proposal.tree)
    except ExpressionError:
        return None
