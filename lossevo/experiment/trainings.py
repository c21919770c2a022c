"""Trainings in order: submit to the executor, take outcomes in an order of one's own, look known ones up in the ledger.

How long a training may take is ``LEAST_LIMIT_S + steps · s``. The task states s, in seconds, or it is calibrated:
``CALIBRATION_FACTOR`` times the slowest training among the calibrating ones (hand-crafted losses) that have ended.
Until the first has ended there is no limit. The ledger records s, so that a resumed run keeps it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lossevo.cluster import Executor, Job, Outcome, Status
from lossevo.errors import LossevoError
from lossevo.experiment.ledger import MAY_BRANCH, Ledger, Record
from lossevo.experiment.states import States
from lossevo.training import Measurement, Trial
from lossevo.training.trial import KEEPS, STATE, identity_of

TRAINING_WORKER = "lossevo.training.worker:TrainingWorker"
"""Factory of the workers that :class:`OrderedTrainings` asks."""
LEAST_LIMIT_S = 120.0
CALIBRATION_FACTOR = 20.0
STEP_LIMIT = "step_limit_s"
"""Name of the recorded fact: seconds that a step may take on average, validation included."""
_SENT_PER_WORKER = 2


@dataclass(frozen=True, slots=True)
class Taken:
    """The outcome of a training in its turn; ``replayed`` says if it was on record before."""

    outcome: Outcome
    replayed: bool

    @property
    def measurement(self) -> Measurement | None:
        """What was measured; None if the training did not end well."""
        outcome = self.outcome
        done = outcome.status is Status.DONE and outcome.value is not None
        return Measurement.from_payload(outcome.value) if done and outcome.value is not None else None

    @property
    def problem(self) -> str:
        """Why nothing was measured, in words."""
        return f"{self.outcome.status}: {self.outcome.error}"


@dataclass
class OrderedTrainings:
    """A queue of trainings whose outcomes come out in the order in which they went in, or as they are asked for.

    ``executor`` makes the executor when the first training has to run: a replay of a finished run needs none.
    ``step_limit_s`` is what the task states of the time limit; None to calibrate it.
    ``arrived`` is called with each outcome as soon as a worker delivers it, for progress only. ``states`` keeps the
    states of trainings that others continue; without it each makes all of its steps.
    """

    ledger: Ledger
    executor: Callable[[], Executor]
    step_limit_s: float | None = None
    arrived: Callable[[Outcome], None] = lambda outcome: None
    states: States | None = None
    computed: int = 0
    computed_steps: int = 0
    started: float | None = None
    _executor: Executor | None = None
    _next: int = 0
    _waiting: dict[int, None] = field(default_factory=dict)
    _known: dict[int, Outcome] = field(default_factory=dict)
    _recorded: set[int] = field(default_factory=set)
    _tickets: dict[int, int] = field(default_factory=dict)
    _unsent: deque[int] = field(default_factory=deque)
    _trials: dict[int, Trial] = field(default_factory=dict)
    _calibrating: set[int] = field(default_factory=set)
    _keeps: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.step_limit_s is None:
            self.step_limit_s = self.ledger.fact(STEP_LIMIT)
            self._calibrates = True
        else:
            self._calibrates = False

    @property
    def busy_share(self) -> float:
        """Share of the workers' time spent training; 0 before the first one started."""
        return self._executor.busy_share() if self._executor else 0.0

    @property
    def workers(self) -> int:
        """Number of workers; 0 before the first training had to run."""
        return self._executor.workers if self._executor else 0

    @property
    def per_hour(self) -> float:
        """Trainings finished per hour by this process; 0 before the first."""
        return self._hourly(self.computed)

    @property
    def steps_per_hour(self) -> float:
        """Steps of finished trainings per hour by this process; 0 before the first."""
        return self._hourly(self.computed_steps)

    def _hourly(self, count: int) -> float:
        elapsed_s = time.monotonic() - self.started if self.started is not None else 0.0
        return 3600 * count / elapsed_s if elapsed_s > 0 else 0.0

    def submit(self, trial: Trial, *, phase: str, candidate: str, calibrating: bool = False) -> int:
        """Ask for a training; returns its ticket.

        ``calibrating`` if its time says how long others may take. A trial whose identity is on record with an outcome
        is not trained again.

        Raises:
            LossevoError: the ledger holds another trial at this place, so it was made by another version or
                configuration.
        """
        ticket = self.request(trial, phase=phase, candidate=candidate, calibrating=calibrating)
        self.send()
        return ticket

    def request(
        self,
        trial: Trial,
        *,
        phase: str,
        candidate: str,
        calibrating: bool = False,
        after: int = 0,
        note: Mapping[str, Any] | None = None,
        keeps: bool = False,
    ) -> int:
        """As :meth:`submit`, but the training waits for :meth:`send`; ``after`` and ``note`` go on record with it.

        Of a training that ``keeps`` its state another may continue.
        """
        ticket, identity = self._next, trial.identity
        self._next += 1
        self._waiting[ticket] = None
        known = self._on_record(ticket, identity)
        if known is None:
            self.ledger.submit(ticket, phase, candidate, trial.to_payload(), after=after, note=note)
            outcome = self.ledger.known_outcome(identity)
            if outcome is not None:
                self.ledger.finish(ticket, outcome)
        else:
            outcome = known.outcome
        if outcome is not None:
            self._known[ticket] = outcome
            self._recorded.add(ticket)
            return ticket
        if calibrating:
            self._calibrating.add(ticket)
        if keeps and self.states is not None:
            self._keeps.add(ticket)
        self._trials[ticket] = trial
        self._unsent.append(ticket)
        return ticket

    def _on_record(self, ticket: int, identity: str) -> Record | None:
        """The trial on record under this ticket, if it is the one asked for."""
        recorded = self.ledger.record(ticket)
        if recorded is None or identity_of(recorded.trial) == identity:
            return recorded
        if self.ledger.fact(MAY_BRANCH):
            self.ledger.set_aside_from(ticket)
            return None
        raise LossevoError(
            f"{self.ledger.path}: training {ticket} on record is not the one asked for now, so the run was made by "
            "another version of lossevo or its files were changed; start a new run"
        )

    def send(self) -> None:
        """Hand trainings to the executor, no more than keep its workers busy: the limit may not be known yet."""
        if not self._unsent:
            return
        if self._executor is None:
            self._executor = self.executor()
            self.started = time.monotonic()
        while self._unsent and len(self._tickets) < _SENT_PER_WORKER * self._executor.workers:
            ticket = self._unsent.popleft()
            trial = self._trials[ticket]
            limit_s = None
            if self.step_limit_s is not None:
                limit_s = LEAST_LIMIT_S + self.step_limit_s * trial.fidelity.steps
            payload = trial.to_payload() | self._state_for(ticket, trial)
            self._tickets[self._executor.submit(Job(payload, timeout_s=limit_s))] = ticket

    def _state_for(self, ticket: int, trial: Trial) -> dict[str, Any]:
        """What a payload says of states: that to go on from, and whether its own is kept."""
        state = self.states.to_continue(trial) if self.states is not None else None
        more = {KEEPS: True if ticket in self._keeps else None, STATE: state}
        return {key: value for key, value in more.items() if value is not None}

    def take(self, ticket: int | None = None) -> Taken:
        """The outcome of a training, by default of the first submitted of those not taken yet; waits for it."""
        if ticket is None:
            ticket = next(iter(self._waiting))
        del self._waiting[ticket]
        if ticket not in self._known:
            assert self._executor is not None
            for delivered, outcome in self._executor.completed():
                arrived = self._tickets.pop(delivered)
                trial = self._trials[arrived]
                steps = trial.own_steps
                outcome = self._without_state(trial, outcome)
                self.ledger.finish(arrived, outcome)
                self._calibrate(arrived, outcome)
                self.send()
                self._known[arrived] = outcome
                self.computed += 1
                self.computed_steps += steps
                self.arrived(outcome)
                if arrived == ticket:
                    break
        return Taken(self._known.pop(ticket), ticket in self._recorded)

    def _without_state(self, trial: Trial, outcome: Outcome) -> Outcome:
        """The outcome as it goes on record; a state that comes with it is kept."""
        if outcome.value is None or STATE not in outcome.value:
            return outcome
        if self.states is not None:
            self.states.put(trial, outcome.value[STATE])
        return replace(outcome, value={key: value for key, value in outcome.value.items() if key != STATE})

    def _calibrate(self, ticket: int, outcome: Outcome) -> None:
        trial = self._trials.pop(ticket)
        if not (self._calibrates and ticket in self._calibrating and outcome.status is Status.DONE):
            return
        step_limit_s = CALIBRATION_FACTOR * outcome.seconds / trial.own_steps
        if step_limit_s > (self.step_limit_s or 0.0):
            self.step_limit_s = step_limit_s
            self.ledger.record_fact(STEP_LIMIT, step_limit_s)

    def clear_states(self) -> None:
        """Forget the states: nothing will be continued."""
        if self.states is not None:
            self.states.clear()

    def close(self) -> None:
        """Stop the workers."""
        if self._executor is not None:
            self._executor.close()
