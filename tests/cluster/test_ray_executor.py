"""What only Ray has: workers that are processes, which die, hang, start late, and share one payload."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from lossevo.cluster import Job, Status, WorkerSpec, open_executor
from lossevo.cluster.ray_executor import _plan, _room
from lossevo.errors import LossevoError

TOY = WorkerSpec("example_workers:Toy")

pytestmark = pytest.mark.usefixtures("ray_session")


def pid_of(outcome) -> int:
    return int(outcome.worker.rsplit(":", 1)[1])


def test_a_job_whose_worker_is_killed_runs_again_on_another(tmp_path, drain, gone):
    with open_executor(TOY, workers=2) as executor:
        outcomes = drain(
            executor,
            {"do": "kill", "path": str(tmp_path / "killed")},
            *({"do": "square", "x": x, "sleep_s": 0.05} for x in range(6)),
        )
    assert {outcome.status for outcome in outcomes.values()} == {Status.DONE}
    assert outcomes[0].value == {"survived": True}
    assert outcomes[0].attempts == 2
    assert [outcomes[ticket].value["y"] for ticket in range(1, 7)] == [0, 1, 4, 9, 16, 25]
    assert sum(outcome.attempts for outcome in outcomes.values()) == 8
    assert all(gone(pid_of(outcome)) for outcome in outcomes.values())


def test_a_running_worker_killed_from_outside_is_replaced(tmp_path):
    mark = tmp_path / "pids"
    with open_executor(TOY, workers=1) as executor:
        executor.submit(Job({"do": "mark_and_sleep", "path": str(mark), "sleep_s": 1.0}))
        while not mark.exists() or not mark.read_text().endswith("\n"):
            time.sleep(0.01)
        first = int(mark.read_text())
        os.kill(first, signal.SIGKILL)
        ((_, outcome),) = executor.completed()
    assert outcome.status is Status.DONE
    assert outcome.attempts == 2
    assert outcome.value["pid"] != first


def test_an_idle_worker_killed_from_outside_costs_an_attempt_and_no_job(drain):
    with open_executor(TOY, workers=1) as executor:
        (before,) = drain(executor, {"do": "square", "x": 1}).values()
        os.kill(pid_of(before), signal.SIGKILL)
        time.sleep(0.5)
        (after,) = drain(executor, {"do": "square", "x": 2}).values()
    assert after.value == {"y": 4}
    assert after.attempts == 2
    assert after.worker != before.worker


def test_a_job_that_kills_every_worker_is_given_up_and_the_others_finish(drain):
    with open_executor(TOY, workers=2) as executor:
        outcomes = drain(executor, {"do": "kill"}, *({"do": "square", "x": x} for x in range(5)))
        died = outcomes.pop(0)
        assert died.status is Status.DIED
        assert died.attempts == 2
        assert died.error.startswith(
            "its worker died in each of 2 attempts: The actor is dead because its worker process"
        )
        assert len(died.error) < 400
        assert [outcomes[ticket].value["y"] for ticket in range(1, 6)] == [0, 1, 4, 9, 16]
        assert drain(executor, {"do": "square", "x": 7})[6].value == {"y": 49}


def test_a_hang_times_out_and_its_worker_is_replaced(drain, gone):
    with open_executor(TOY, workers=1) as executor:
        start = time.perf_counter()
        hung, after = drain(executor, {"do": "hang"}, {"do": "square", "x": 5}, timeout_s=1.0).values()
        assert hung.status is Status.TIMEOUT
        assert hung.error == "took longer than 1 s"
        assert 1.0 <= hung.seconds < 1.5
        assert hung.attempts == 1
        assert after.value == {"y": 25}
        assert after.worker != hung.worker
        assert time.perf_counter() - start < 30
        assert gone(pid_of(hung))


def test_a_result_that_cannot_travel_is_an_error_of_the_job(drain):
    with open_executor(TOY, workers=1) as executor:
        bad, good = drain(executor, {"do": "return_lock"}, {"do": "square", "x": 2}).values()
    assert bad.status is Status.ERROR
    assert "lock" in bad.error
    assert good.status is Status.DONE


def test_the_payload_is_shared_without_a_copy(drain):
    import example_workers

    rng = np.random.default_rng(0)
    bank = example_workers.Bank(
        image=rng.normal(size=(64, 1, 32, 32, 32)).astype(np.float32),
        label=rng.integers(0, 2, size=(64, 32, 32, 32), dtype=np.uint8),
    )
    with open_executor(WorkerSpec("example_workers:Toy", bank), workers=2) as executor:
        seen = [outcome.value for outcome in drain(executor, *[{"do": "inspect", "sleep_s": 0.3}] * 4).values()]
    assert len({value["pid"] for value in seen}) == 2
    for value in seen:
        assert not value["writable"]
        assert not value["owns_memory"]
        assert value["shared_memory"], "the array lies in the worker's own memory"
        assert value["sum"] == pytest.approx(float(bank.image.sum()))


def test_workers_run_this_lossevo_with_one_thread(drain):
    import lossevo

    with open_executor(WorkerSpec("example_workers:Toy", None), workers=1) as executor:
        (outcome,) = drain(executor, {"do": "environment"}).values()
    assert outcome.value == {"lossevo": lossevo.__file__, "threads": ["1", "1", "1"]}


def test_outcomes_do_not_depend_on_the_number_of_workers(drain):
    jobs = [{"do": "square", "x": x} for x in range(12)] + [{"do": "diverge"}, {"do": "fail"}]

    def run(workers: int) -> dict:
        with open_executor(TOY, workers=workers) as executor:
            outcomes = drain(executor, *jobs)
        return {ticket: (outcome.status, outcome.value, outcome.error) for ticket, outcome in outcomes.items()}

    assert run(1) == run(2)


def test_workers_stay_busy_while_the_caller_computes():
    with open_executor(TOY, workers=1) as executor:
        for x in range(8):
            executor.submit(Job({"do": "square", "x": x, "sleep_s": 0.1}))
        end = time.perf_counter() + 2.0
        while time.perf_counter() < end:  # as the search does when it screens candidates
            sum(range(1000))
        start = time.perf_counter()
        assert len(list(executor.completed())) == 8
        assert time.perf_counter() - start < 0.5  # all were done by then


def test_ctrl_c_reaches_a_caller_that_waits():
    with open_executor(TOY, workers=1) as executor:
        executor.submit(Job({"do": "square", "x": 1, "sleep_s": 60}))
        sent = []

        def interrupt():
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

        threading.Timer(0.5, interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            list(executor.completed())
        assert time.perf_counter() - sent[0] < 0.5


def test_workers_that_die_while_they_start_are_not_restarted_for_ever(tmp_path):
    log = tmp_path / "starts"
    with pytest.raises(LossevoError, match="workers in a row died while they were starting"):
        open_executor(WorkerSpec("example_workers:deadly", str(log)), workers=1)
    assert 2 <= len(log.read_text().splitlines()) <= 4


def test_a_replacement_that_cannot_be_made_ends_the_run(tmp_path):
    fuse = tmp_path / "fuse"
    with open_executor(WorkerSpec("example_workers:once", str(fuse)), workers=1) as executor:
        executor.submit(Job({"do": "kill"}))
        for _ in range(2):
            with pytest.raises(LossevoError, match="the fuse has burnt"):
                list(executor.completed())


def test_workers_end_with_the_executor_also_after_an_exception(tmp_path, gone):
    mark = tmp_path / "pids"
    with pytest.raises(ZeroDivisionError), open_executor(TOY, workers=2) as executor:
        for _ in range(2):
            executor.submit(Job({"do": "mark_and_sleep", "path": str(mark), "sleep_s": 60}))
        while not mark.exists() or len(mark.read_text().splitlines()) < 2:
            time.sleep(0.01)
        raise ZeroDivisionError
    pids = [int(line) for line in mark.read_text().splitlines()]
    assert len(set(pids)) == 2
    assert all(gone(pid) for pid in pids)


def test_more_workers_than_the_cluster_has_room_for_is_an_error_with_numbers():
    with pytest.raises(
        LossevoError, match="99 workers of 1 CPU each do not fit .* room for 4: 4 CPUs and 0 GPUs on 1 node"
    ):
        open_executor(TOY, workers=99)


def test_gpus_that_the_cluster_lacks_are_an_error_with_numbers():
    with pytest.raises(
        LossevoError, match="1 workers of 1 CPU and 1 GPU each do not fit .* room for 0: 4 CPUs and 0 GPUs"
    ):
        open_executor(TOY, workers=1, gpus_per_worker=1)


def test_a_cluster_whose_cpus_are_taken_is_an_error_with_numbers(monkeypatch):
    import ray

    from lossevo.cluster import ray_executor

    monkeypatch.setattr(ray_executor, "START_TIMEOUT_S", 1.0)
    blocker = ray.remote(_Blocker).options(num_cpus=4).remote()
    try:
        ray.get(blocker.ready.remote())
        with pytest.raises(LossevoError, match=r"no worker could be started within 1 s .* 0 of 4 CPUs are free"):
            open_executor(TOY, workers=1)
    finally:
        ray.kill(blocker)


class _Blocker:
    def ready(self) -> bool:
        return True


def fake_nodes(*nodes):
    return [{"Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus}} for alive, cpus, gpus in nodes]


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus_per_worker", "expected"),
    [
        ([(True, 8.0, 0.0)], None, None, (8, 0.0)),  # a worker per CPU
        ([(True, 0.0, 0.0), (True, 4.0, 0.0), (False, 4.0, 0.0)], None, None, (4, 0.0)),  # head idle, one node dead
        ([(True, 16.0, 4.0)], None, None, (4, 1.0)),  # a worker per GPU
        ([(True, 16.0, 2.0)], 2, None, (2, 1.0)),
        ([(True, 16.0, 2.0)], 3, None, (3, 0.5)),  # 2/3 would leave room for two only
        ([(True, 16.0, 2.0)], 6, None, (6, 1 / 3)),
        ([(True, 16.0, 2.0)], None, 0.25, (8, 0.25)),
        ([(True, 16.0, 2.0)], None, 0, (16, 0)),  # leave the GPUs alone
        ([(True, 16.0, 3.0)], None, 2, (1, 2)),
        ([(True, 2.0, 4.0)], None, None, (2, 1.0)),  # CPUs are the bottleneck
    ],
)
def test_workers_are_planned_by_gpu_or_by_cpu(monkeypatch, nodes, workers, gpus_per_worker, expected):
    import ray

    monkeypatch.setattr(ray, "nodes", lambda: fake_nodes(*nodes))
    assert _plan(workers, gpus_per_worker, address="head:6379") == pytest.approx(expected)


@pytest.mark.parametrize("gpus_per_worker", [-1, 1.5])
def test_a_share_of_gpus_that_ray_cannot_give_is_refused(gpus_per_worker):
    with pytest.raises(LossevoError, match="gpus_per_worker"):
        open_executor(TOY, workers=1, gpus_per_worker=gpus_per_worker)


def test_thirds_of_a_gpu_fill_it():
    assert _room(8, 1, 1 / 3) == 3
