"""The machines of a Ray cluster: how many workers fit, and whether they compute alike."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from lossevo.cluster.ray_connection import ray
from lossevo.errors import LossevoError
from lossevo.installation import installation


def plan_workers(workers: int | None, gpus_per_worker: float | None, *, address: str) -> tuple[int, float]:
    """How many workers, and the GPUs of each.

    Raises:
        LossevoError: The cluster has no room for them.
    """
    if gpus_per_worker is not None and (gpus_per_worker < 0 or (gpus_per_worker > 1 and gpus_per_worker % 1)):
        raise LossevoError(f"gpus_per_worker must be 0, a fraction up to 1, or a whole number, not {gpus_per_worker:g}")
    nodes = [(int(r.get("CPU", 0)), int(r.get("GPU", 0))) for r in (n["Resources"] for n in ray.nodes() if n["Alive"])]
    cpus, gpus = sum(cpu for cpu, _ in nodes), sum(gpu for _, gpu in nodes)
    if gpus_per_worker is None:
        gpus_per_worker = 1.0 / math.ceil((workers or gpus) / gpus) if gpus else 0.0
    room = sum(_room(cpu, gpu, gpus_per_worker) for cpu, gpu in nodes)
    if room < (workers or 1):
        each = "1 CPU" + (f" and {gpus_per_worker:g} GPU" if gpus_per_worker else "")
        raise LossevoError(
            f"the Ray cluster at {address} has room for {room} workers of {each}, not for {workers or 1}: it has "
            f"{cpus} CPUs and {gpus} GPUs. Ask for fewer workers, or add nodes"
        )
    return workers or room, gpus_per_worker


def _room(cpus: int, gpus: int, gpus_per_worker: float) -> int:
    """How many workers fit on one node."""
    if gpus_per_worker == 0:
        return cpus
    if gpus_per_worker < 1:  # a worker's fraction is not split over two GPUs
        return min(cpus, gpus * int(1 / gpus_per_worker + 1e-6))
    return min(cpus, int(gpus / gpus_per_worker))


def check_same_installation(expected: Mapping[str, str], name: str) -> None:
    """Results of nodes that compute differently must not meet in one ranking.

    Raises:
        LossevoError: this process has other code than the one that ``expected`` is of.
    """
    found = installation()
    for package, version in expected.items():
        if found.get(package) != version:
            raise LossevoError(
                f"{name} has {package} {found.get(package)}, this machine {version}: install the same on all nodes"
            )


def node_socket() -> Path:
    """Where Ray's node on this machine listens."""
    own = ray.get_runtime_context().get_node_id()
    return next(Path(node["RayletSocketName"]) for node in ray.nodes() if node["NodeID"] == own)


def search_path() -> str:
    """Workers on this machine import what this process imports, a checkout that is not installed included."""
    return os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
