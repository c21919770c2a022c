"""Whose fault is it when a worker is lost under a job? Rules, without anything of Ray.

A worker may be lost because of its job, or because of something else: the kernel or Ray was short of memory, an
operator or a preemption ended it, a node was cut off. A score must not depend on the latter. So:

1. A job whose worker is lost runs again on a fresh worker.
2. A job that has lost :data:`SUSPECT_AFTER` workers, or that ran out of memory, is a *suspect*. It waits until nothing
   else runs, and then runs alone on a fresh worker: one that has done nothing, and became ready after the last loss.
3. A suspect that has lost :data:`BLAMED_AFTER` fresh workers while it ran alone is accused. It is blamed if a fresh
   worker then does again the last job that was done (the *control*). Before any job was done, others are tried first;
   a second one that is accused means that the cluster is sick. If there are no others, the control is a worker that
   does nothing. The loss of a node is not counted here.
4. Workers that are lost again and again without one job done in between mean that the cluster is sick. Then nobody is
   blamed, and the run stops; it can be resumed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

SUSPECT_AFTER: Final = 2
BLAMED_AFTER: Final = 3
_LOSSES_PER_WORKER: Final = 5


@dataclass(slots=True)
class Record:
    """What has happened to a job: how often it was started, lost its worker, and lost one while it ran alone."""

    attempts: int = 0
    losses: int = 0
    losses_alone: int = 0
    alone: bool = False
    """Whether it runs alone from now on."""


class Verdict(Enum):
    """What to do with a job whose worker was lost."""

    AGAIN = auto()
    BLAMED = auto()
    SICK = auto()


@dataclass(slots=True)
class Retries:
    """The rules, for so many ``workers``."""

    workers: int
    _in_a_row: int = field(default=0, init=False)

    def answered(self) -> None:
        """A worker has done a job, whatever came of it: the cluster works."""
        self._in_a_row = 0

    def lost(self, record: Record, *, with_node: bool) -> Verdict:
        """A job's worker is lost, perhaps with its whole node."""
        self._in_a_row += 1
        record.losses += 1
        record.losses_alone += record.alone and not with_node
        record.alone = record.alone or record.losses >= SUSPECT_AFTER
        if record.losses_alone >= BLAMED_AFTER:
            return Verdict.BLAMED
        return Verdict.SICK if self._in_a_row > _LOSSES_PER_WORKER * (self.workers + 1) else Verdict.AGAIN

    def out_of_memory(self, record: Record) -> Verdict:
        """A worker reports that the job ran out of memory: others on its machine or GPU may have taken it."""
        if record.alone:
            return Verdict.BLAMED
        record.alone = True
        return Verdict.AGAIN
