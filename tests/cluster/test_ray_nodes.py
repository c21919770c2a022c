"""How many workers fit on a cluster, and with how many GPUs each. The clusters are made up: no GPU is needed."""

from __future__ import annotations

import pytest

from lossevo.cluster import WorkerSpec, open_executor
from lossevo.cluster.ray_nodes import plan_workers
from lossevo.errors import LossevoError


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus_per_worker", "expected"),
    [
        ([(8, 0)], None, None, (8, 0)),  # a worker per CPU
        ([(0, 0), (4, 0), (2, 0)], None, None, (6, 0)),  # the head lends no CPU
        ([(16, 4)], None, None, (4, 1)),  # a worker per GPU
        ([(16, 2)], 2, None, (2, 1)),
        ([(16, 2)], 3, None, (3, 1 / 2)),  # 2/3 of a GPU each would leave room for two only
        ([(16, 2)], 6, None, (6, 1 / 3)),
        ([(16, 2)], None, 0.25, (8, 0.25)),
        ([(16, 2)], None, 0, (16, 0)),  # leave the GPUs alone
        ([(16, 3)], None, 2, (1, 2)),
        ([(2, 4)], None, None, (2, 1)),  # CPUs are the bottleneck
    ],
)
def test_workers_are_planned_by_gpu_or_else_by_cpu(monkeypatch, nodes, workers, gpus_per_worker, expected):
    alive = [{"Alive": True, "Resources": {"CPU": float(cpus), "GPU": float(gpus)}} for cpus, gpus in nodes]
    dead = [{"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}]
    monkeypatch.setattr("ray.nodes", lambda: alive + dead)
    assert plan_workers(workers, gpus_per_worker, address="head:6379") == pytest.approx(expected)


@pytest.mark.parametrize("gpus_per_worker", [-1, 1.5])
def test_a_share_of_gpus_that_ray_cannot_give_is_refused(ray_session, gpus_per_worker):
    with pytest.raises(LossevoError, match="gpus_per_worker must be 0, a fraction up to 1, or a whole number"):
        open_executor(WorkerSpec("example_workers:Toy"), workers=1, gpus_per_worker=gpus_per_worker)
