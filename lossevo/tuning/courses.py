"""Several courses side by side: their ledger, what is trained next, and who is told."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from lossevo.cluster import Outcome, Status
from lossevo.errors import ResumableError
from lossevo.experiment.events import Event, Listener, Progress
from lossevo.experiment.ledger import Ledger
from lossevo.training import Measurement
from lossevo.training.trial import identity_of
from lossevo.tuning.course import Attempt, Course

RETRIES: Final = 2
"""How often an attempt begins again whose worker was lost."""


@dataclass
class Courses:
    """Courses with the ledger in which every outcome stands before its course is told.

    Attributes:
        courses: one for each problem.
        ledger: where outcomes are recorded.
        listener: who is told.
        running: id of a trial of Ray Tune -> its course and attempt.
    """

    courses: Sequence[Course]
    ledger: Ledger
    listener: Listener
    running: dict[str, tuple[Course, Attempt]] = field(default_factory=dict)
    _known: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    _waiting: list[tuple[Course, Attempt]] = field(default_factory=list)
    _suspects: list[tuple[Course, Attempt, str]] = field(default_factory=list)
    _any_arrived: bool = False
    _doubt: str | None = None
    _control: str | None = None
    _ticket: int = 0
    _workers: int = 0
    _began: float | None = None
    _replayed: int = 0
    _busy_s: float = 0.0
    _closed: int = 0
    _failed: int = 0
    _lost_in_a_row: int = 0

    def replay(self) -> None:
        """Tell the courses what is on record, as far as it goes."""
        records = self.ledger.records()
        self._ticket = 1 + max((record.ticket for record in records), default=-1)
        for record in records:
            if record.outcome is not None:
                identity = identity_of(record.trial)
                self._known.setdefault((identity, record.candidate), record.outcome)
                self._known.setdefault((identity, ""), record.outcome)
        while (found := self._asked()) is not None:
            self._waiting.append(found)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        return all(course.finished for course in self.courses)

    @property
    def left(self) -> int:
        """Trainings that are not over."""
        return sum(course.total - course.closed for course in self.courses)

    def begin(self, workers: int) -> None:
        """Trainings begin now, on so many workers."""
        self._workers, self._began = workers, time.monotonic()

    def next(self, trial_id: str) -> tuple[Course, Attempt] | None:
        """What is to be trained next, as this trial; None if nothing can be asked for before others have ended.

        Where losses may be the machines' fault it is the *control*: an attempt that ended well, once more.

        Raises:
            ResumableError: there is none that ended well.
        """
        found = None
        if self._doubt is None:
            found = self._waiting.pop(0) if self._waiting else self._asked()
            if found is None and not self.running and self._suspects:
                if self._any_arrived:
                    self._blame_suspects()
                    found = self._asked()
                else:
                    self._doubt = self._suspects[-1][2]
        if self._doubt is not None and not self.running:
            found, self._control = self._well_ended(), trial_id
            if found is None:
                raise ResumableError(_sick(self._doubt))
        if found is not None:
            self.running[trial_id] = found
        return found

    def _asked(self) -> tuple[Course, Attempt] | None:
        """The next attempt with something to train; what is on record is told, so that it is not trained again."""
        for course in self.courses:
            while (attempt := course.ask()) is not None:
                while rungs := course.rungs_left(attempt):
                    outcome = self._recorded(course, attempt, rungs[0])
                    if outcome is None:
                        return course, attempt
                    self._told(course, attempt, rungs[0], outcome, kind="replayed")
                self._replayed += 1
        return None

    def _recorded(self, course: Course, attempt: Attempt, step: int) -> Outcome | None:
        """The outcome on record: the attempt's own, else that of the same training for another loss or place."""
        identity = course.trial(attempt, step).identity
        return self._known.get((identity, _candidate(course, attempt))) or self._known.get((identity, ""))

    def arrived(self, trial_id: str, step: int, outcome: Outcome) -> bool:
        """Record what a training came to at a rung; returns whether it goes on."""
        course, attempt = self.running[trial_id]
        if trial_id != self._control:
            self._record(course, attempt, step, outcome)
        elif outcome.status is not Status.DONE:
            raise ResumableError(_sick(outcome.error))
        self._busy_s += outcome.seconds
        self._lost_in_a_row, self._any_arrived, self._doubt = 0, True, None
        self._blame_suspects()
        return trial_id != self._control and self._told(course, attempt, step, outcome, kind="training")

    def lost(self, trial_id: str, error: str) -> None:
        """The worker of a training is gone: the attempt begins again, or is a suspect if it did so too often.

        Raises:
            ResumableError: no training is to blame: workers are lost one after the other, and the control, too.
        """
        course, attempt = self.running[trial_id]
        if attempt.state != "open":
            return
        if trial_id == self._control:
            raise ResumableError(_sick(error))
        self._lost_in_a_row += 1
        if self._lost_in_a_row > 2 * RETRIES * max(1, self._workers):  # a node takes all its workers with it
            if self._well_ended() is None:
                raise ResumableError(_sick(error))
            self._doubt = error
        attempt.losses += 1
        if attempt.losses <= RETRIES:
            self._waiting.insert(0, (course, attempt))  # its wave waits for it
        else:
            self._suspects.append((course, attempt, error))

    def _blame_suspects(self) -> None:
        """Record that suspects have no score, now that others show that workers can live."""
        while self._suspects:
            course, attempt, error = self._suspects.pop(0)
            outcome = Outcome(Status.DIED, None, error, 0.0, "", attempt.losses)
            step = course.rungs_left(attempt)[0]
            self._record(course, attempt, step, outcome)
            self._told(course, attempt, step, outcome, kind="training")

    def _well_ended(self) -> tuple[Course, Attempt] | None:
        """An attempt that came to a measurement, as if it had not begun."""
        for course in self.courses:
            for attempt in course.attempts:
                if attempt.state in ("stopped", "ended"):
                    return course, Attempt(attempt.number, attempt.values, attempt.seed, attempt.confirms)
        return None

    def _record(self, course: Course, attempt: Attempt, step: int, outcome: Outcome) -> None:
        trial = course.trial(attempt, step)
        self.ledger.submit(self._ticket, _phase(attempt), _candidate(course, attempt), trial.to_payload())
        self.ledger.finish(self._ticket, outcome)
        self._ticket += 1

    def _told(self, course: Course, attempt: Attempt, step: int, outcome: Outcome, *, kind: str) -> bool:
        scoring = course.problem.scoring
        if outcome.status is Status.DIED:
            course.lose(attempt)
            came_to = f"lost, so without a score ({outcome.error})"
        elif outcome.status is Status.DONE and outcome.value is not None:
            utility = scoring.utility(Measurement.from_payload(outcome.value))
            course.tell(attempt, step, utility)
            came_to = scoring.told(utility)
        else:
            course.tell(attempt, step, scoring.worst, failed=True)
            came_to = f"{outcome.status}: {outcome.error}"
        if attempt.state == "open":
            self._tell("arrived", "", attempt)
            return True
        self._closed += 1
        self._failed += attempt.state in ("failed", "lost")
        stopped = f", ended after {step} of {course.problem.steps} steps" if attempt.state == "stopped" else ""
        self._tell(kind, f"{course.problem.label}, {attempt}: {came_to}{stopped}", attempt)
        return False

    def _tell(self, kind: str, message: str, attempt: Attempt) -> None:
        elapsed_s = 0.0 if self._began is None else time.monotonic() - self._began
        per_hour = 3600 * (self._closed - self._replayed) / elapsed_s if elapsed_s > 0 else 0.0
        progress = Progress(
            phase=_phase(attempt),
            done=self._closed,
            total=sum(course.total for course in self.courses),
            failed=self._failed,
            per_hour=per_hour,
            busy_share=min(1.0, self._busy_s / (self._workers * elapsed_s)) if elapsed_s > 0 else 0.0,
            workers=self._workers,
            eta_s=3600 * self.left / per_hour if per_hour > 0 else None,
        )
        self.listener(Event(kind, message, progress))


def _sick(error: str) -> str:
    return (
        f"workers are lost again and again, and no training is to blame ({error}); look at the memory, the disks and "
        "the network of the machines, and whether they have the same lossevo"
    )


def _candidate(course: Course, attempt: Attempt) -> str:
    return f"{course.problem.label}:{attempt.number}"


def _phase(attempt: Attempt) -> str:
    return "tuning" if attempt.confirms is None else "confirmation"
