"""A job's time limit, kept by the worker that runs the job.

Only the worker can tell how long a job took. Seen from elsewhere, a stopped process, a paused container or a broken
network looks like a job that takes long.
"""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

from lossevo.cluster.job import Job, Outcome, Status, Worker, run

_TICKS_PER_LIMIT = 4
_LONGEST_TICK_S = 1.0


class AwakeClock:
    """Seconds in which this process could run.

    A process that was stopped (Ctrl-Z, ``SIGSTOP``, a paused container or virtual machine) wakes up and finds that the
    wall clock has jumped. So a step between two ticks counts as two ticks at most, or as the CPU time spent in it.

    Args:
        tick_s: Seconds between two calls of :meth:`tick`, which somebody has to make.
    """

    def __init__(self, tick_s: float) -> None:
        self._tick_s = tick_s
        self._wall, self._cpu = time.monotonic(), time.process_time()
        self._seconds = 0.0

    def tick(self) -> float:
        """The seconds since the clock was made."""
        wall, cpu = time.monotonic(), time.process_time()
        self._seconds += min(wall - self._wall, max(2 * self._tick_s, cpu - self._cpu))
        self._wall, self._cpu = wall, cpu
        return self._seconds


class _LimitReached(BaseException):
    """Not an Exception, so that a worker's ``except Exception`` does not swallow it."""


def run_within_limit(worker: Worker, job: Job, *, worker_name: str) -> Outcome:
    """Run the job; one that is not done within its limit ends as ``TIMEOUT``.

    ``SIGALRM`` interrupts the job, in the main thread on POSIX, between two bytecodes. Elsewhere a job ends only by
    itself, so a worker should keep an eye on its deadline and raise ``TimeoutError``.
    """
    if job.timeout_s is None or not _can_interrupt():
        return run(worker, job.payload, worker_name=worker_name)
    limit_s = job.timeout_s
    tick_s = min(_LONGEST_TICK_S, limit_s / _TICKS_PER_LIMIT)
    start, clock = time.perf_counter(), AwakeClock(tick_s)

    def tick(signal_number: int, frame: FrameType | None) -> None:
        if clock.tick() >= limit_s:
            raise _LimitReached

    previous_handler = signal.signal(signal.SIGALRM, tick)
    # It goes on after the limit: Python drops an exception raised inside a destructor or a C callback.
    previous_delay, previous_interval = signal.setitimer(signal.ITIMER_REAL, tick_s, tick_s)
    try:
        outcome = run(worker, job.payload, worker_name=worker_name)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except _LimitReached:
        error = f"took longer than {limit_s:g} s"
        outcome = Outcome(Status.TIMEOUT, None, error, time.perf_counter() - start, worker_name)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous_handler)
        if previous_delay:  # whoever had an alarm running, pytest-timeout say, gets it at the moment it asked for
            remaining = max(previous_delay - (time.perf_counter() - start), 1e-3)
            signal.setitimer(signal.ITIMER_REAL, remaining, previous_interval)
    return outcome


def _can_interrupt() -> bool:
    return hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()
