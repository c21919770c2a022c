"""The seam between the search and the machines that train: an :class:`Executor` runs jobs on workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

from lossevo.cluster.job import Job, Outcome, WorkerSpec
from lossevo.errors import LossevoError


class Executor(Protocol):
    """Runs jobs on long-lived workers. Used from one thread; a context manager that closes itself.

    Several jobs run at once, so outcomes arrive in no particular order; a job's outcome itself depends neither on the
    number of workers nor on which of them ran it.
    """

    @property
    def workers(self) -> int:
        """How many jobs can run at once."""
        ...

    def submit(self, job: Job) -> int:
        """Take a job and return its ticket: 0, 1, 2, … in the order of submission."""
        ...

    def completed(self) -> Iterator[tuple[int, Outcome]]:
        """Yield ``(ticket, outcome)`` as jobs end, in order of arrival; stop when no job is outstanding.

        Blocks for the next outcome. The caller may submit while iterating.

        Raises:
            LossevoError: No worker can be had any more, for a reason that the user can mend.
        """
        ...

    def busy_share(self) -> float:
        """Time workers spent on jobs / (workers · time since the first submission), in [0, 1]."""
        ...

    def close(self) -> None:
        """Stop the workers, also in mid-job, and free what they held. Idempotent."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_executor(
    spec: WorkerSpec,
    *,
    workers: int | None = None,
    address: str | None = None,
    in_process: bool = False,
    gpus_per_worker: float | None = None,
) -> Executor:
    """An executor whose first worker is ready.

    Args:
        spec: How a worker is made.
        workers: How many workers; ``None`` for one per GPU, or one per CPU where there is no GPU. In process: always 1.
        address: ``HOST:PORT`` of a running Ray cluster, or ``"auto"`` for the one that this machine is part of.
            ``None`` starts a Ray of its own on this machine, even if ``RAY_ADDRESS`` is set.
        in_process: Run jobs in the calling process, for debugging and tests.
        gpus_per_worker: ``None`` shares out the cluster's GPUs evenly; 0 leaves them alone.

    Raises:
        LossevoError: The worker cannot be made, the cluster cannot be reached or is too small.
    """
    if workers is not None and workers < 1:
        raise LossevoError(f"workers must be at least 1, not {workers}")
    if in_process:
        if address is not None:
            raise LossevoError(f"a search runs in process or on the cluster at {address}, not both")
        from lossevo.cluster.inprocess import InProcessExecutor

        return InProcessExecutor(spec)

    # Importing Ray takes about half a second, which whoever needs no cluster should not pay.
    from lossevo.cluster.ray_executor import RayExecutor

    return RayExecutor(spec, workers=workers, address=address, gpus_per_worker=gpus_per_worker)


class BusyMeter:
    """Sums the time that workers spend on jobs; the arithmetic behind :meth:`Executor.busy_share`."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._first_submission: float | None = None
        self._running: dict[object, float] = {}
        self._seconds = 0.0

    def submitted(self) -> None:
        """A job came in: the clock runs from the first one."""
        if self._first_submission is None:
            self._first_submission = time.perf_counter()

    def started(self, worker: object) -> None:
        """A worker has begun a job."""
        self._running[worker] = time.perf_counter()

    def stopped(self, worker: object) -> float:
        """End the worker's job; returns how long it took, in seconds."""
        seconds = time.perf_counter() - self._running.pop(worker)
        self._seconds += seconds
        return seconds

    def share(self) -> float:
        """The busy share so far, running jobs included."""
        if self._first_submission is None:
            return 0.0
        now = time.perf_counter()
        busy = self._seconds + sum(now - start for start in tuple(self._running.values()))
        return min(1.0, busy / max(self._workers * (now - self._first_submission), 1e-9))
