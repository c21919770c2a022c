"""A program that opens a Ray of its own, as ``lossevo search`` does. Run by ``test_ray_connection.py``.

Arguments: ``work``, ``square`` for a single job, ``fill`` to exhaust the memory, ``terminate`` to send itself SIGTERM
while Ray runs and after it, or ``wait`` to print ``ready`` when two jobs run and wait for their end; and a folder.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from lossevo.cluster import Job, WorkerSpec, open_executor
from lossevo.cluster.ray_connection import ray
from lossevo.errors import ResumableError


def main(what: str, folder: Path) -> None:
    if what == "terminate":
        terminate()
        return
    with open_executor(WorkerSpec("example_workers:Toy"), workers=2) as executor:
        if what == "wait":
            for name in ("a", "b"):
                executor.submit(Job({"do": "mark_and_sleep", "path": str(folder / name), "sleep_s": 600}))
            while not all((folder / name).exists() for name in ("a", "b")):
                time.sleep(0.01)
            print("ready", flush=True)
        elif what == "square":
            executor.submit(Job({"do": "square", "x": 3}))
        elif what == "fill":
            executor.submit(Job({"do": "fill_memory", "gigabytes": 12}))
        else:
            for payload in ({"do": "square", "x": 3}, {"do": "kill", "path": str(folder / "pid")}, {"do": "fail"}):
                executor.submit(Job(payload))
            print("without a token:", connect_without_token(ray.get_runtime_context().gcs_address))
        print("outcomes:", *sorted(f"{outcome.status} {outcome.attempts}" for _, outcome in executor.completed()))


def terminate() -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: print("heard"))
    with open_executor(WorkerSpec("example_workers:Toy"), workers=1):
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)


def connect_without_token(address: str) -> str:
    from lossevo.cluster import ray_probe

    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    environment["RAY_gcs_server_port_wait_time_s"] = "1"
    command = [sys.executable, ray_probe.__file__, address]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return "refused" if '"authentication"' in answer else answer


if __name__ == "__main__":
    try:
        main(sys.argv[1], Path(sys.argv[2]))
    except ResumableError as error:
        print("error:", error)
