"""The engine: trainings are decided, done and told, one at a time in an order that no worker decides.

The course of a search depends on its configuration and seed alone. Outcomes enter in the order in which virtual workers
would have finished (:mod:`lossevo.search.virtual_workers`), and each decision draws from a generator of its own. Every
decision is on record with what it was decided on. A search that is resumed follows its record: it proposes and screens
nothing again, so it goes on as it was, also after the code that proposes has changed.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lossevo.errors import LossevoError
from lossevo.experiment import hall_of_fame
from lossevo.experiment.archive import Archive
from lossevo.experiment.candidate import Candidate
from lossevo.experiment.events import Event, Listener
from lossevo.experiment.ledger import Ledger, Record
from lossevo.experiment.ledger_values import Place
from lossevo.experiment.origin import HandCrafted, Origin, Tuned, origin_document
from lossevo.experiment.trainings import OrderedTrainings
from lossevo.expression import Expression
from lossevo.search.allocation import Confirming, Decision, NewCandidate, Selecting
from lossevo.search.audit import Rejects
from lossevo.search.finalists import finalists, tunable
from lossevo.search.findings import Findings
from lossevo.search.plan import CONFIRMATION, EVOLUTION, TUNING, Account, Plan
from lossevo.search.problem import Problem
from lossevo.search.progress import SearchProgress
from lossevo.search.proposals import Proposals
from lossevo.search.screening import Check, Screening
from lossevo.search.space import SearchSpace
from lossevo.search.strategies import create_strategy
from lossevo.search.strategies.program import Program, WithProgram
from lossevo.search.strategies.seeds import given_by
from lossevo.search.strategies.tuning import WithTuning
from lossevo.search.surrogate import Features, Preselection
from lossevo.search.valuation import Valuation
from lossevo.search.virtual_workers import VirtualWorkers
from lossevo.training import Trial
from lossevo.training.seeds import selection_seed
from lossevo.training.trial import identity_of

_CONFIGURATION = "configuration"


@dataclass
class Search:
    """One search over ``space`` for ``problem``.

    ``changed`` is called with the ranking whenever it may have changed. ``features`` are what the surrogate knows of a
    loss (:class:`~lossevo.search.surrogate.Probes`); without them the first proposal that passes the screening is
    trained. A ``program`` proposes beside the strategy.
    """

    space: SearchSpace
    problem: Problem
    seed: int
    ledger: Ledger
    trainings: OrderedTrainings
    listener: Listener = lambda event: None
    changed: Callable[[list[hall_of_fame.Entry]], None] = lambda entries: None
    features: Callable[[Expression], Features | None] | None = None
    program: Program | None = None

    def __post_init__(self) -> None:
        space, problem = self.space, self.problem
        shortest, horizon = problem.shortest, problem.horizon
        self.plan = Plan.of_space(space, shortest=shortest, horizon=horizon)
        self.archive = Archive(problem.scoring)
        self.rejects = Rejects(self.seed)
        self.screening = Screening(problem.classes, numeric=space.screening, on_rejected=self.rejects.see)
        self._account = Account(self.plan)
        worth = Valuation(self.archive, problem.lengths).worth
        strategy = create_strategy(
            space,
            expected=(self.plan.selection - self.plan.tuning) // shortest,
            worth=worth,
            direction=self.screening.direction,
            unit=problem.scoring.range,
            classes=problem.classes,
        )
        self._strategy = WithTuning(
            WithProgram(strategy, self.program, lambda: self._ranking.entries, given=len(given_by(space))),
            space.tuning,
            self._account,
            self.archive,
            shortest,
            best=lambda count: tunable(self.archive, worth, count, space.tuning, self.screening.fingerprint),
            structure=lambda parent: next(
                iter(tunable([parent], worth, 1, space.tuning, self.screening.fingerprint)), None
            ),
            seed=self.seed,
        )
        self._preselection = (
            Preselection(self.features, horizon, problem.scoring.range)
            if self.features is not None and space.competing > 1
            else None
        )
        self._proposals = Proposals(space, self._strategy, self.screening, self.rejects, self._preselection)
        self._selecting = Selecting(
            space.allocation,
            problem.lengths,
            self.archive,
            worth,
            self._account,
            self.seed,
            continues=problem.continues,
            given=len(space.seed_expressions()),
        )
        self._confirming = Confirming(
            lambda: finalists(self.archive, worth, self.plan.finalists, self.screening.fingerprint),
            horizon,
            space.budget.confirmation_seeds,
            self._account,
            self.seed,
        )
        self._virtual = VirtualWorkers(space.budget.window)
        self._pending: dict[int, Decision] = {}
        self._done = 0
        self._records: deque[Record] = deque()
        self._asked = 0
        self._told = 0
        self._failed = 0
        self._phase = EVOLUTION
        self._replayed = False
        self._ranking = hall_of_fame.Ranking(space.budget.confirmation_seeds, problem.scoring.objective)
        self.trainings.arrived = lambda outcome: self._tell("arrived", "")

    def run(self) -> list[hall_of_fame.Entry]:
        """Find, choose, confirm; returns the hall of fame.

        Raises:
            LossevoError: the space is exhausted, or the ledger does not belong to this search.
        """
        self._claim_ledger()
        self.rejects.restore(self.ledger)
        self._records = deque(self.ledger.records())
        self._begin(EVOLUTION, self.plan.selection)
        while True:
            while self._virtual.free and self._next():
                pass
            if self._pending:
                self._take(self._virtual.finish())
            elif self._records:
                raise self._foreign(self._records[0])
            else:
                self._conclude()
                self.trainings.clear_states()
                return self._ranking.entries

    def findings(self) -> Findings:
        """What its trainings say of their noise, and of selection."""
        problem, seeds = self.problem, self.space.budget.confirmation_seeds
        return Findings.of(self.archive, problem.lengths, confirmation_seeds=seeds, scoring=problem.scoring)

    def _claim_ledger(self) -> None:
        """Write into a new ledger what the course depends on; refuse one of another course."""
        problem = self.problem
        budget = self.space.budget.model_dump(exclude={"trainings"})  # more may be given later
        stated = {
            "space": self.space.model_dump(mode="json", exclude={"budget"}) | {"budget": budget},
            "seed": self.seed,
            "split": asdict(problem.split),
            "classes": problem.classes,
            "lengths": problem.lengths,
            "study": problem.study,
            "objective": problem.scoring.objective.name,
        }
        mine = hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()
        known = self.ledger.text(_CONFIGURATION)
        if known is None and self.ledger.record(0) is None:
            self.ledger.record_text(_CONFIGURATION, mine)
        elif known != mine:
            raise LossevoError(
                f"{self.ledger.path}: the trainings on record are not those of this search, so the run was made by "
                "another version of lossevo or its files were changed; start a new run"
            )

    def _foreign(self, record: Record) -> LossevoError:
        return LossevoError(
            f"{self.ledger.path}: training {record.ticket} on record is not one that this search could have asked for, "
            "so its files were changed; start a new run"
        )

    # Deciding

    def _next(self) -> bool:
        """Begin the next training, as it is on record or as it is decided now; False if outcomes must come in first."""
        if self._records:
            if self._records[0].after > self._told:
                return False
            self._follow(self._records.popleft())
            return True
        decision = self._decided()
        if decision is None:
            return False
        if not isinstance(decision, NewCandidate):
            self._ask_for(decision)
            return True
        found = self._proposals.next(random.Random(f"{self.seed}/{self._asked}"))
        if found is None:
            return False
        candidate = self._candidate(*found)
        self._strategy.take(candidate)
        seed = selection_seed(self.seed, candidate.number)
        reason = TUNING if isinstance(candidate.origin, Tuned) else EVOLUTION
        self._ask_for(Decision(candidate, self.problem.shortest, seed, reason), new=True)
        return True

    def _decided(self) -> Decision | NewCandidate | None:
        """Who is next: of the selection while it has steps left, then of the confirmation."""
        decision = self._selecting.decide(self._pending.values())
        if decision is not None:
            if self._phase == CONFIRMATION:  # it had ended, and got more budget
                self._conclude()
                self._begin(EVOLUTION, self._account.left_for_selection)
            return decision
        if any(pending.reason != CONFIRMATION for pending in self._pending.values()):
            return None
        if self._phase != CONFIRMATION:
            self._begin(CONFIRMATION, self.plan.confirmation)
        return self._confirming.decide(self._pending.values())

    def _candidate(self, expression: Expression, origin: Origin) -> Candidate:
        candidate = Candidate(expression, origin, number=len(self.archive))
        self.archive.add(candidate)
        return candidate

    def _ask_for(self, decision: Decision, *, new: bool = False) -> None:
        """Put a decision on record, with all that it brought about, and begin the training."""
        candidate, note = decision.candidate, self._proposals.note()
        with self.ledger.together():
            if new:
                origin = origin_document(candidate.origin)
                document = {"loss": candidate.spec, "origin": origin, "number": candidate.number}
                self.ledger.remember_candidate(candidate.id, document)
            self._proposals.keep(self.ledger)
            self._start(decision, note)
        self.trainings.send()

    def _start(self, decision: Decision, note: Mapping[str, Any] | None) -> None:
        candidate = decision.candidate
        ticket = self.trainings.request(
            self._trial(decision),
            phase=decision.reason,
            candidate=candidate.id,
            calibrating=candidate.given,
            after=self._told,
            note=note,
            keeps=self.problem.continues and decision.steps < self.problem.horizon,
        )
        self._account.spend(decision.reason, decision.cost)
        self._virtual.start(ticket, decision.cost)
        self._pending[ticket] = decision
        self._asked += 1

    def _trial(self, decision: Decision) -> Trial:
        spec = decision.candidate.spec
        return self.problem.trial(spec, decision.steps, decision.seed, continues=decision.continues)

    def _follow(self, record: Record) -> None:
        """Begin a training that is on record."""
        candidate = self.archive.by_id(record.candidate)
        if candidate is None:
            document = self.ledger.candidate(record.candidate)
            if document is None:
                raise self._foreign(record)
            origin, definition = Place(self.ledger.path, "candidates", record.candidate).lineage(document)
            if not isinstance(definition, Expression) or definition.hash[:8] != record.candidate:
                raise self._foreign(record)
            candidate = self._candidate(definition, origin)
            self._strategy.take(candidate)
        trial = record.trial
        decision = Decision(candidate, trial["steps"], trial["seed"], record.phase, trial.get("continues"))
        if (
            record.after < self._told
            or decision.steps not in self.problem.lengths
            or self._trial(decision).identity != identity_of(trial)
        ):
            raise self._foreign(record)
        if record.phase == CONFIRMATION and self._phase != CONFIRMATION:
            self._begin(CONFIRMATION, self.plan.confirmation)
        self._start(decision, record.note)
        if not self._records:
            self._proposals.restore(self.ledger, record.note or {})
        self.trainings.send()

    # Being told

    def _take(self, ticket: int) -> None:
        """Wait for a training, keep its score, rank, and tell of it."""
        decision = self._pending.pop(ticket)
        self._done += decision.cost
        candidate = decision.candidate
        taken = self.trainings.take(ticket)
        measurement = taken.measurement
        utility = self.problem.scoring.utility(measurement)
        if self.trainings.states is not None:
            self.trainings.states.judge(self._trial(decision), utility)
        self._told += 1
        self._failed += measurement is None
        self._replayed = taken.replayed
        leader = self._leader
        if decision.reason == CONFIRMATION:
            self._confirming.tell(decision, utility)
        else:
            self.archive.record(candidate, decision.steps, decision.seed, utility)
            if self._preselection is not None:
                self._preselection.tell(candidate, decision.steps, utility)
            self._strategy.tell(candidate)
            self._rank([candidate])
        told = self.problem.scoring.told(utility) if measurement is not None else taken.problem
        steps = f" after {decision.steps} steps" if len(self.problem.lengths) > 1 else ""
        kind = "replayed" if taken.replayed else "training"
        self._tell(kind, f"{candidate.id} {told}{steps}  {candidate.origin}")
        if self._leader != leader and not taken.replayed:
            self._tell_best()

    def _conclude(self) -> None:
        """Let the finalists be known as confirmed, all at once."""
        confirmed = self._confirming.conclude(self.archive)
        if confirmed:
            self._rank(confirmed)
            if not self._replayed:
                self._tell_best()

    # Telling

    @property
    def _leader(self) -> str:
        return self._ranking.entries[0].id if self._ranking.entries else ""

    def _begin(self, phase: str, steps: int) -> None:
        self._phase = phase
        self._tell("phase", f"{phase}: {steps} steps")

    def _rank(self, trained: Sequence[Candidate]) -> None:
        """Rank anew and write the hall of fame, if one of ``trained`` may be in it."""
        if any(self._ranking.concerns(candidate) for candidate in trained):
            self.changed(self._ranking.update(self.archive))

    def _tell_best(self) -> None:
        best, title = self._ranking.entries[0], self.problem.scoring.objective.title
        self._tell("best", f"{best.id} leads with {title} {best.score:.4f}: {best.unicode}")

    def _tell(self, kind: str, message: str) -> None:
        self.listener(Event(kind, message, self.progress()))

    def progress(self) -> SearchProgress:
        """Where the search stands."""
        best = self._ranking.entries[0] if self._ranking.entries else None
        literature = (entry.score for entry in self._ranking.entries if isinstance(entry.origin, HandCrafted))
        shortest = self.problem.shortest
        computed = self.trainings.steps_per_hour
        return SearchProgress(
            phase=self._phase,
            done=self._done // shortest,
            total=self.plan.total // shortest,
            failed=self._failed,
            trainings=self._told,
            proposed=self.screening.saw[Check.LIMITS],
            rejected=self._proposals.rejected,
            best_score=best.score if best else math.nan,
            best_id=best.id if best else "",
            best_formula=best.unicode if best else "",
            best_hand_crafted=next(literature, math.nan),
            per_hour=self.trainings.per_hour,
            busy_share=self.trainings.busy_share,
            workers=self.trainings.workers,
            eta_s=3600 * max(0, self.plan.total - self._done) / computed if computed > 0 else None,
        )
