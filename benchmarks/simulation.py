"""How busy a search keeps W workers, by simulation: the real engine and ledger, simulated workers.

A training takes ``steps`` times a log-normal factor (sigma 0.3), and 2 % fail half-way. Beside the engine stand, on the
same trainings, a generational barrier (W trainings, wait for all, the next W) and a fully asynchronous loop (each
worker takes the next training at once), both without an engine. Losses are random trees without screening, so that the
time of the driver is that of deciding, recording and ranking::

    python benchmarks/simulation.py
    python benchmarks/simulation.py --workers 4 64 --trainings-per-worker 40 --window 2

Printed are shares of the workers' time that is spent in trainings, until the last training of the selection has ended,
and results a second of the driver (the simulated workers take none of its time).
"""

from __future__ import annotations

import argparse
import heapq
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from rich.console import Console
from rich.table import Table

from lossevo.cluster import Job, Outcome, Status
from lossevo.experiment import Ledger
from lossevo.experiment.trainings import OrderedTrainings
from lossevo.search import SearchSpace, load_space
from lossevo.search.engine import Search
from lossevo.search.problem import Problem
from lossevo.search.space import MAX_WINDOW
from lossevo.search.strategy_settings import RandomSearch
from lossevo.training import Split

SIGMA = 0.3
FAILURES = 0.02
LENGTHS = (75, 150, 300)


class SimulatedExecutor:
    """An executor whose clock is its own: a job takes a worker for its duration, and no time at all of this process."""

    def __init__(self, workers: int, seed: int) -> None:
        self.workers = workers
        self.durations: list[float] = []
        self.now = 0.0
        self.busy = 0.0
        self._generator = np.random.default_rng(seed)
        self._queue: deque[tuple[int, Mapping[str, Any]]] = deque()
        self._running: list[tuple[float, int, Mapping[str, Any], bool]] = []

    def submit(self, job: Job) -> int:
        """Queue a job; a free worker begins at once."""
        self.durations.append(0.0)
        self._queue.append((len(self.durations) - 1, job.payload))
        self._start()
        return len(self.durations) - 1

    def _start(self) -> None:
        while self._queue and len(self._running) < self.workers:
            ticket, payload = self._queue.popleft()
            failed = self._generator.random() < FAILURES
            steps = payload["steps"] - payload.get("continues", 0)
            duration = steps * self._generator.lognormal(0.0, SIGMA) * (0.5 if failed else 1.0)
            self.durations[ticket] = duration
            self.busy += duration
            heapq.heappush(self._running, (self.now + duration, ticket, payload, failed))

    def completed(self) -> Iterator[tuple[int, Outcome]]:
        """Outcomes in the order of simulated time."""
        while self._running:
            self.now, ticket, payload, failed = heapq.heappop(self._running)
            self._start()
            yield ticket, _outcome(payload, failed)

    def busy_share(self) -> float:
        """Simulated time in jobs, over all workers."""
        return self.busy / (self.workers * self.now) if self.now else 0.0

    def close(self) -> None:
        """Nothing to stop."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _outcome(payload: Mapping[str, Any], failed: bool) -> Outcome:
    if failed:
        return Outcome(Status.DIVERGED, None, "simulated", 0.001, "simulated:1")
    generator = np.random.default_rng([payload["seed"], payload["steps"]])
    value = {
        "values": {"dice": {"case": {"vertebra": float(generator.uniform(0.5, 0.9))}}},
        "curve": [[payload["steps"], 0.5]],
        "validation_curve": [[payload["steps"], 0.5]],
        "seconds": 0.001,
    }
    return Outcome(Status.DONE, value, "", 0.001, "simulated:1")


def space(trainings: int, window: int) -> SearchSpace:
    """Random trees, without screening."""
    chosen = load_space("segmentation")
    return chosen.model_copy(
        update={
            "screening": False,
            "simplify": False,
            "strategy": RandomSearch(kind="random"),
            "tuning": chosen.tuning.model_copy(update={"structures": 0}),
            "budget": chosen.budget.model_copy(
                update={"trainings": trainings, "window": min(window, MAX_WINDOW), "confirmation_share": 0.02}
            ),
        }
    )


def simulated(workers: int, trainings: int, window: int, seed: int) -> tuple[SimulatedExecutor, float, float]:
    """A search on simulated workers; its executor, the busy share of its selection, and results a second."""
    executor = SimulatedExecutor(workers, seed)
    until = {"busy": 0.0}

    def listen(event: Any) -> None:
        if event.kind == "phase" and event.message.startswith("confirmation"):
            until["busy"] = executor.busy_share()

    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite", create=True) as ledger:
        search = Search(
            space(trainings, window),
            Problem(Split(("a",), ("b",)), 2, LENGTHS),
            seed,
            ledger,
            OrderedTrainings(ledger, lambda: executor, step_limit_s=1.0),
            listen,
        )
        start = time.perf_counter()
        search.run()
        seconds = time.perf_counter() - start
    return executor, until["busy"], len(executor.durations) / seconds


def barrier(durations: list[float], workers: int) -> float:
    """Busy share of whole batches, one after another."""
    batches = [durations[i : i + workers] for i in range(0, len(durations), workers)]
    return sum(durations) / (workers * sum(map(max, batches)))


def asynchronous(durations: list[float], workers: int) -> float:
    """Busy share if each worker takes the next at once."""
    free = [0.0] * workers
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return sum(durations) / (workers * max(free))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 16, 64, 256, 1024, 4096])
    parser.add_argument("--trainings-per-worker", type=int, default=20, help="for more than 256 workers a fourth")
    parser.add_argument("--window", type=float, default=2.0, help="virtual workers for each worker")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table = Table("workers", "virtual", "trainings", "engine", "barrier", "asynchronous", "results/s of the driver")
    for workers in options.workers:
        each = options.trainings_per_worker if workers <= 256 else max(4, options.trainings_per_worker // 4)
        trainings, window = max(60, workers * each), int(workers * options.window)
        executor, busy, per_second = simulated(workers, trainings, window, options.seed)
        durations = executor.durations
        table.add_row(
            str(workers),
            str(min(window, MAX_WINDOW)),
            str(len(durations)),
            f"{busy:.1%}",
            f"{barrier(durations, workers):.1%}",
            f"{asynchronous(durations, workers):.1%}",
            f"{per_second:.0f}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
