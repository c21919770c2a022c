"""Jobs in the calling process: the executor of unit tests, debuggers and machines without Ray."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Self

from lossevo.cluster.executor import BusyMeter
from lossevo.cluster.job import Job, Outcome, Status, Worker, WorkerSpec, make_worker, run


class InProcessExecutor:
    """One worker in this process; a job runs when :meth:`completed` is asked for the next outcome.

    A time limit interrupts the job by ``SIGALRM``: in the main thread on POSIX, and between two bytecodes. Elsewhere a
    job ends only by itself, so a worker should keep an eye on its deadline and raise ``TimeoutError``. A job that kills
    its process takes the search with it: only Ray survives that.

    Raises:
        LossevoError: The worker's factory failed.
    """

    workers = 1

    def __init__(self, spec: WorkerSpec) -> None:
        self._worker: Worker | None = make_worker(spec.factory, spec.payload)
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._queue: deque[tuple[int, Job]] = deque()
        self._submitted = 0
        self._meter = BusyMeter(self.workers)

    def submit(self, job: Job) -> int:
        """See :meth:`Executor.submit`."""
        if self._worker is None:
            raise RuntimeError("the executor is closed")
        self._meter.submitted()
        self._queue.append((self._submitted, job))
        self._submitted += 1
        return self._submitted - 1

    def completed(self) -> Iterator[tuple[int, Outcome]]:
        """See :meth:`Executor.completed`."""
        while self._queue and self._worker is not None:
            ticket, job = self._queue[0]
            self._meter.started(self)
            try:
                outcome = _run_with_limit(self._worker, job, self._name)
            finally:
                self._meter.stopped(self)
            self._queue.popleft()  # only now: a job interrupted by Ctrl-C stays outstanding
            yield ticket, outcome

    def busy_share(self) -> float:
        """See :meth:`Executor.busy_share`."""
        return self._meter.share()

    def close(self) -> None:
        """See :meth:`Executor.close`."""
        self._worker = None
        self._queue.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _LimitReached(BaseException):
    """Not an Exception, so that a worker's ``except Exception`` does not swallow it."""


def _run_with_limit(worker: Worker, job: Job, worker_name: str) -> Outcome:
    if job.timeout_s is None or not _can_interrupt():
        return run(worker, job.payload, worker_name=worker_name)

    def interrupt(signal_number: int, frame: FrameType | None) -> None:
        raise _LimitReached

    start = time.perf_counter()
    previous_handler = signal.signal(signal.SIGALRM, interrupt)
    # It strikes again each second: Python drops an exception raised inside a destructor or a C callback.
    previous_delay, previous_interval = signal.setitimer(signal.ITIMER_REAL, job.timeout_s, 1.0)
    try:
        outcome = run(worker, job.payload, worker_name=worker_name)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except _LimitReached:
        error = f"took longer than {job.timeout_s:g} s"
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
