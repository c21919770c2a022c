"""Jobs in the calling process: the executor of unit tests, debuggers and machines without Ray."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from lossevo.cluster.executor import BusyMeter
from lossevo.cluster.job import Job, Outcome, Status, Worker, WorkerSpec, make_worker
from lossevo.cluster.limit import run_within_limit
from lossevo.errors import ResumableError


class InProcessExecutor:
    """One worker in this process; a job runs when :meth:`completed` is asked for the next outcome.

    A job that kills its process takes the search with it: only Ray survives that. Where the machine fails under a job,
    :meth:`completed` raises ``ResumableError``.

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
                outcome = run_within_limit(self._worker, job, worker_name=self._name)
            finally:
                self._meter.stopped(self)
            if outcome.status is Status.MACHINE:
                raise ResumableError(f"this machine failed in mid-training: {outcome.error}")
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
