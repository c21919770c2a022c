from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lossevo.cluster import Executor, Job, Outcome


@pytest.fixture(scope="session", autouse=True)
def example_workers() -> Iterator[None]:
    """Make ``example_workers`` importable, also on Ray's workers: on one machine they import what we import."""
    folder = str(Path(__file__).parent)
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray for all tests that open an executor in this process: room for two executors of two workers."""
    from lossevo.cluster.ray_connection import RayConnection

    connection = RayConnection(None, cpus=4)
    yield
    connection.close()


@pytest.fixture(scope="session")
def drain() -> Callable[..., dict[int, Outcome]]:
    """Submit the payloads and collect the outcomes, by ticket and in its order."""

    def drain_(executor: Executor, *payloads: dict, timeout_s: float | None = None) -> dict[int, Outcome]:
        for payload in payloads:
            executor.submit(Job(payload, timeout_s=timeout_s))
        return dict(sorted(executor.completed()))

    return drain_


@pytest.fixture(scope="session")
def gone() -> Callable[[int], bool]:
    """Whether a process ends within some seconds."""

    def gone_(pid: int, within_s: float = 10.0) -> bool:
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.05)
        return False

    return gone_
