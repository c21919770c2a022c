"""What a worker costs and how busy it is kept: dispatch overhead and busy share, in process and on a Ray of our own.

    python benchmarks/cluster.py [--workers 2] [--quick]

Overhead is (wall time · workers - time in workers) / jobs; the busy share is time in workers / (wall time · workers). A
search keeps some jobs per worker in flight and computes in between (it screens candidates): the last column is the busy
share beside a caller that computes half a job's time for every job.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any

from lossevo.cluster import Executor, Job, WorkerSpec, open_executor

SPEC = WorkerSpec("cluster:make_sleeper")


def make_sleeper(payload: Any) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    def sleeper(payload: Mapping[str, Any]) -> Mapping[str, Any]:
        if payload["seconds"]:
            time.sleep(payload["seconds"])
        return {}

    return sleeper


def measure(executor: Executor, *, jobs: int, seconds: float, caller_computes: bool) -> tuple[float, float]:
    """(overhead in ms per job, busy share) with a window of four jobs per worker."""
    submitted = min(4 * executor.workers, jobs)
    in_workers = 0.0
    start = time.perf_counter()
    for _ in range(submitted):
        executor.submit(Job({"seconds": seconds}))
    for _, outcome in executor.completed():
        in_workers += outcome.seconds
        if submitted < jobs:
            submitted += 1
            if caller_computes:
                compute(0.5 * seconds / executor.workers)
            executor.submit(Job({"seconds": seconds}))
    wall = time.perf_counter() - start
    return 1e3 * (wall * executor.workers - in_workers) / jobs, in_workers / (wall * executor.workers)


def compute(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        sum(range(500))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a tenth of the jobs")
    arguments = parser.parse_args()
    scale = 10 if arguments.quick else 1

    print("executor    workers  open s  job ms  overhead ms/job  busy share  busy share, caller computes")
    for name, workers in (("in process", 1), ("ray", 1), ("ray", arguments.workers)):
        start = time.perf_counter()
        with open_executor(SPEC, workers=workers, in_process=name == "in process") as executor:
            opened = time.perf_counter() - start
            for _ in range(2 * workers):  # until every worker is up
                executor.submit(Job({"seconds": 0.5}))
            list(executor.completed())
            for job_ms, jobs in ((0, 2000), (10, 400), (100, 100), (1000, 20)):
                settings = {"jobs": max(jobs // scale, 2 * workers), "seconds": job_ms / 1e3}
                overhead, busy = measure(executor, caller_computes=False, **settings)
                _, busy_computing = measure(executor, caller_computes=True, **settings)
                print(
                    f"{name:10s}  {workers:7d}  {opened:6.1f}  {job_ms:6d}  {overhead:15.2f}  {busy:10.3f}  "
                    f"{busy_computing:27.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
