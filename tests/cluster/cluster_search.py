"""A program that uses a running Ray cluster. Run by ``test_multinode.py``: ``ADDRESS JOBS SECONDS_PER_JOB LIMIT_S``.

Prints one JSON object a line: the number of workers, then each outcome as it arrives; or the error.
"""

from __future__ import annotations

import dataclasses
import json
import sys

from lossevo.cluster import Job, WorkerSpec, open_executor
from lossevo.errors import LossevoError


def main(address: str, jobs: int, seconds: float, limit_s: float) -> None:
    with open_executor(WorkerSpec("example_workers:Toy"), address=address) as executor:
        say(workers=executor.workers)
        for x in range(jobs):
            executor.submit(Job({"do": "square", "x": x, "sleep_s": seconds}, timeout_s=limit_s))
        for ticket, outcome in executor.completed():
            say(ticket=ticket, **dataclasses.asdict(outcome))


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
    except LossevoError as error:
        say(error=str(error))
        sys.exit(2)
