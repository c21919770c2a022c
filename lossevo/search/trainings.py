"""Trainings in order: submit to the executor, take outcomes in the order of submission, look known ones up in the
ledger.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from lossevo.cluster import Executor, Job, Outcome
from lossevo.errors import LossevoError
from lossevo.search.ledger import Ledger
from lossevo.training import TrainingRequest


@dataclass
class OrderedTrainings:
    """A queue of trainings whose outcomes come out in the order in which they went in.

    ``executor`` makes the executor when the first training has to run: a replay of a finished run needs none.
    ``arrived`` is called with each outcome as soon as a worker delivers it, for progress only. ``replayed`` says if
    the outcome taken last was on record before.
    """

    ledger: Ledger
    executor: Callable[[], Executor]
    arrived: Callable[[Outcome], None] = lambda outcome: None
    computed: int = 0
    started: float | None = None
    replayed: bool = False
    _executor: Executor | None = None
    _next: int = 0
    _waiting: deque[int] = field(default_factory=deque)
    _known: dict[int, Outcome] = field(default_factory=dict)
    _recorded: set[int] = field(default_factory=set)
    _tickets: dict[int, int] = field(default_factory=dict)

    @property
    def in_flight(self) -> int:
        """Trainings submitted whose outcome was not taken yet."""
        return len(self._waiting)

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
        elapsed_s = time.monotonic() - self.started if self.started is not None else 0.0
        return 3600 * self.computed / elapsed_s if elapsed_s > 0 else 0.0

    def submit(self, request: TrainingRequest, *, phase: str, subject: str) -> None:
        """Ask for a training.

        Raises:
            LossevoError: the ledger holds another training at this place, so it was made by another version or
            configuration.
        """
        ticket, payload = self._next, request.to_payload()
        self._next += 1
        self._waiting.append(ticket)
        recorded = self.ledger.training(ticket)
        if recorded is None:
            self.ledger.submit(ticket, phase, subject, payload)
        elif json.dumps(recorded.request, sort_keys=True) != json.dumps(payload, sort_keys=True):
            raise LossevoError(
                f"{self.ledger.path}: training {ticket} on record is not the one asked for now, so the run was made by "
                "another version of lossevo or its files were changed; start a new run"
            )
        if recorded is not None and recorded.outcome is not None:
            self._known[ticket] = recorded.outcome
            self._recorded.add(ticket)
            return
        if self._executor is None:
            self._executor = self.executor()
            self.started = time.monotonic()
        self._tickets[self._executor.submit(Job(payload, timeout_s=_timeout_s(request)))] = ticket

    def take(self) -> Outcome:
        """The outcome of the training that was submitted first among those not taken yet; waits for it."""
        ticket = self._waiting.popleft()
        self.replayed = ticket in self._recorded
        if ticket not in self._known:
            assert self._executor is not None
            for delivered, outcome in self._executor.completed():
                arrived = self._tickets.pop(delivered)
                self.ledger.finish(arrived, outcome)
                self._known[arrived] = outcome
                self.computed += 1
                self.arrived(outcome)
                if arrived == ticket:
                    break
        return self._known.pop(ticket)

    def close(self) -> None:
        """Stop the workers."""
        if self._executor is not None:
            self._executor.close()


def _timeout_s(request: TrainingRequest) -> float:
    """Far more than any training takes that gets on at all: two minutes, and five seconds a step."""
    return 120.0 + 5.0 * request.budget_steps
