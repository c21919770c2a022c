"""What only Ray has: workers that are processes, which die, hang, and share one payload."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import lossevo
from lossevo.cluster import Executor, Job, Outcome, Status, WorkerSpec, open_executor
from lossevo.cluster.ray_executor import RayExecutor
from lossevo.cluster.ray_nodes import check_same_installation
from lossevo.cluster.retries import BLAMED_AFTER, SUSPECT_AFTER
from lossevo.errors import LossevoError, ResumableError
from lossevo.installation import installation

TOY = WorkerSpec("example_workers:Toy")

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    """Two workers for all tests that leave two workers behind."""
    with open_executor(TOY, workers=2) as executor:
        yield executor


@pytest.fixture
def soon_accused(monkeypatch) -> None:
    """One loss makes a suspect, another one an accused: each takes a new process. The rules are in test_retries.py."""
    monkeypatch.setattr("lossevo.cluster.retries.SUSPECT_AFTER", 1)
    monkeypatch.setattr("lossevo.cluster.retries.BLAMED_AFTER", 1)


def pid_of(outcome: Outcome) -> int:
    return int(outcome.worker.rsplit(":", 1)[1])


def wait_for_lines(path: Path, count: int, *, meanwhile: Callable[[], object] = lambda: time.sleep(0.01)) -> list[str]:
    end = time.monotonic() + 60
    while not path.exists() or path.read_text().count("\n") < count:
        assert time.monotonic() < end, f"{path} has no {count} lines after 60 s"
        meanwhile()
    return path.read_text().splitlines()


def wait_until_all_are_ready(executor: Executor) -> None:
    while not all(slot.ready for slot in executor._slots):
        time.sleep(0.05)


def test_a_job_whose_worker_is_killed_runs_again(pool, tmp_path, drain, gone):
    squares = [{"do": "square", "x": x, "sleep_s": 0.05} for x in range(6)]
    killed, *others = drain(pool, {"do": "kill", "path": str(tmp_path / "pid")}, *squares).values()
    assert killed.status is Status.DONE
    assert killed.attempts == 2
    assert [outcome.value["y"] for outcome in others] == [0, 1, 4, 9, 16, 25]
    assert {outcome.attempts for outcome in others} == {1}
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_job_that_kills_every_worker_is_given_up_and_the_others_finish(pool, drain):
    died, *others = drain(pool, {"do": "kill"}, *({"do": "square", "x": x} for x in range(5))).values()
    assert died.status is Status.DIED
    assert died.attempts == SUSPECT_AFTER + BLAMED_AFTER
    assert died.value is None
    assert died.error.startswith("its worker died: The actor is dead")
    assert died.error.endswith("in each of 5 attempts")
    assert len(died.error) < 400
    assert [outcome.value["y"] for outcome in others] == [0, 1, 4, 9, 16]


def test_a_hang_times_out_and_its_worker_is_replaced(pool, drain, gone):
    hung, *others = drain(
        pool, {"do": "hang"}, *[{"do": "square", "x": 5, "sleep_s": 0.2}] * 10, timeout_s=1.0
    ).values()
    assert hung.status is Status.TIMEOUT
    assert hung.error == "took longer than 1 s"
    assert 1.0 <= hung.seconds < 10.0
    assert hung.attempts == 1
    assert gone(pid_of(hung))
    assert {outcome.status for outcome in others} == {Status.DONE}
    assert hung.worker not in {outcome.worker for outcome in others}


def test_a_worker_that_does_not_answer_is_lost_and_its_job_is_done_again(pool, tmp_path, drain, gone, monkeypatch):
    """Deaf to the signal that keeps the limit, as a hang in C code is."""
    monkeypatch.setattr("lossevo.cluster.ray_executor.SILENCE_S", 1.0)
    mark = tmp_path / "pids"
    payload = {"do": "deaf", "path": str(mark), "times": 1}
    again, other = drain(pool, payload, {"do": "square", "x": 2}, timeout_s=0.5).values()
    assert (again.status, again.attempts, other.status) == (Status.DONE, 2, Status.DONE)
    assert gone(int(mark.read_text().split()[0]))


@pytest.mark.usefixtures("soon_accused")
def test_a_job_whose_fresh_workers_never_answer_times_out(pool, tmp_path, drain, monkeypatch):
    monkeypatch.setattr("lossevo.cluster.ray_executor.SILENCE_S", 0.2)
    payload = {"do": "deaf", "path": str(tmp_path / "pids"), "times": 99}
    (deaf,) = drain(pool, payload, timeout_s=0.2).values()
    assert (deaf.status, deaf.attempts) == (Status.TIMEOUT, 2)
    assert deaf.error.startswith("took longer than 0.2 s, and its worker did not answer")


def test_an_innocent_job_outlives_workers_that_are_killed_from_outside(pool, tmp_path):
    mark, times = tmp_path / "pids", SUSPECT_AFTER + BLAMED_AFTER - 2
    pool.submit(Job({"do": "mark_and_sleep", "path": str(mark), "sleep_s": 1.0}, timeout_s=600))
    for number in range(1, times + 1):
        os.kill(int(wait_for_lines(mark, number)[-1]), signal.SIGKILL)
    ((_, outcome),) = pool.completed()
    assert (outcome.status, outcome.attempts) == (Status.DONE, times + 1)


def test_a_suspect_runs_alone_on_a_worker_that_has_done_nothing_else(pool, tmp_path):
    """Others may have taken the memory that it lacked."""
    mark, during = tmp_path / "pids", tmp_path / "during"
    pool.submit(Job({"do": "exhaust_when_crowded", "path": str(mark), "during": str(during), "sleep_s": 0.3}))
    for _ in range(3):
        pool.submit(Job({"do": "mark_and_sleep", "path": str(during), "sleep_s": 0.5}))
    outcomes = dict(pool.completed())
    (suspect, *others) = (outcomes[ticket] for ticket in sorted(outcomes))
    assert (suspect.status, suspect.attempts, suspect.value) == (Status.DONE, 2, {"began_before": 3, "began_during": 0})
    assert {outcome.status for outcome in others} == {Status.DONE}
    assert mark.read_text().split()[-1] not in during.read_text().split()


def test_a_job_that_needs_too_much_memory_alone_is_out_of_memory(pool, drain):
    (outcome,) = drain(pool, {"do": "exhaust", "how": "python"}).values()
    assert (outcome.status, outcome.attempts) == (Status.OUT_OF_MEMORY, 2)


@pytest.mark.usefixtures("soon_accused")
def test_a_machine_that_kills_whatever_trains_blames_nobody(tmp_path, drain):
    """A worker that does nothing would live there. So a job that was done before has to be done again."""
    mark = tmp_path / "no memory"
    job = {"do": "die_while", "path": str(mark)}
    with open_executor(TOY, workers=1) as executor:
        drain(executor, job)
        mark.touch()
        executor.submit(Job(job))
        with pytest.raises(ResumableError, match="no training is to blame: its worker died"):
            list(executor.completed())
    with open_executor(TOY, workers=1) as executor:  # and no job was done yet
        for _ in range(2):
            executor.submit(Job(job))
        with pytest.raises(ResumableError, match="no training is to blame: its worker died"):
            list(executor.completed())


@pytest.mark.usefixtures("soon_accused")
def test_a_job_that_takes_idle_workers_with_it_is_blamed_none_the_less(tmp_path):
    """What was started before the loss says nothing: a suspect and a control need a worker that was started after."""
    with open_executor(WorkerSpec("example_workers:Peer", str(tmp_path / "pids")), workers=2) as executor:
        wait_for_lines(tmp_path / "pids", 2)
        executor.submit(Job({"do": "kill_all"}))
        ((_, outcome),) = executor.completed()
    assert (outcome.status, outcome.attempts) == (Status.DIED, 2)


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("soon_accused")
def test_a_control_finds_a_worker_where_others_have_run_meanwhile(tmp_path, monkeypatch):
    """The only worker did another job after the accusation, so it is not fresh any more."""
    monkeypatch.setattr("lossevo.cluster.ray_executor.SILENCE_S", 0.2)
    mark = tmp_path / "pids"
    with open_executor(TOY, workers=1) as executor:
        accused = executor.submit(Job({"do": "deaf", "path": str(mark), "times": 99}, timeout_s=0.2))
        wait_for_lines(mark, 2)
        executor.submit(Job({"do": "square", "x": 2}))
        outcomes = dict(executor.completed())
    assert outcomes.pop(accused).status is Status.TIMEOUT
    assert [outcome.status for outcome in outcomes.values()] == [Status.DONE]


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("soon_accused")
def test_a_suspect_does_not_wait_for_a_worker_that_never_starts(tmp_path, monkeypatch):
    """A lost node takes its room with it: here somebody else takes the CPU of the worker that was lost."""
    import ray

    mark = tmp_path / "pids"
    with open_executor(TOY, workers=int(ray.available_resources()["CPU"])) as executor:
        wait_until_all_are_ready(executor)
        taker = ray.remote(Blocker).options(num_cpus=1).remote()  # the first in the queue
        executor.submit(Job({"do": "mark_and_sleep", "path": str(mark), "sleep_s": 3.0}))
        (pid,) = wait_for_lines(mark, 1)
        monkeypatch.setattr("lossevo.cluster.ray_executor.START_TIMEOUT_S", 5.0)
        os.kill(int(pid), signal.SIGKILL)
        ray.get(taker.ready.remote(), timeout=60)
        ((_, outcome),) = executor.completed()
        ray.kill(taker)
    assert (outcome.status, outcome.attempts) == (Status.DONE, 2)


@pytest.mark.usefixtures("soon_accused")
def test_a_disk_that_fails_is_never_a_job_s_fault(tmp_path, drain):
    with open_executor(TOY, workers=1) as executor:
        (outcome,) = drain(executor, {"do": "fail_to_read", "path": str(tmp_path / "fails"), "times": 1}).values()
        assert (outcome.status, outcome.attempts) == (Status.DONE, 2)
        executor.submit(Job({"do": "fail_to_read", "path": str(tmp_path / "more"), "times": 99}))
        with pytest.raises(ResumableError, match=r"no training is to blame: OSError: \[Errno 28\] No space left"):
            list(executor.completed())


def test_a_result_that_cannot_travel_is_an_error_of_the_job(pool, drain):
    bad, good = drain(pool, {"do": "return_lock"}, {"do": "square", "x": 2}).values()
    assert bad.status is Status.ERROR
    assert "lock" in bad.error
    assert good.status is Status.DONE


def test_workers_run_this_lossevo_with_one_thread(pool, drain):
    (outcome,) = drain(pool, {"do": "environment"}).values()
    assert outcome.value == {"lossevo": lossevo.__file__, "threads": ["1", "1", "1"]}


def test_workers_stay_busy_while_the_caller_computes(pool, tmp_path):
    mark = tmp_path / "pids"
    for _ in range(10):
        pool.submit(Job({"do": "mark_and_sleep", "path": str(mark), "sleep_s": 0.1}))
    # As the search does when it screens candidates.
    wait_for_lines(mark, 10, meanwhile=lambda: sum(range(100_000)))
    assert len(list(pool.completed())) == 10


def test_the_payload_is_shared_without_a_copy(drain):
    import example_workers

    rng = np.random.default_rng(0)
    bank = example_workers.Bank(
        image=rng.normal(size=(32, 1, 32, 32, 32)).astype(np.float32),
        label=rng.integers(0, 2, size=(32, 32, 32, 32), dtype=np.uint8),
    )
    with open_executor(WorkerSpec("example_workers:Toy", bank), workers=2) as executor:
        seen = [outcome.value for outcome in drain(executor, *[{"do": "inspect"}] * 2).values()]
    for value in seen:
        assert not value["writable"]
        assert value["shared_memory"], "the array lies in the worker's own memory"
        assert value["sum"] == pytest.approx(float(bank.image.sum()))


def test_outcomes_do_not_depend_on_the_number_of_workers(pool, drain):
    jobs = [*({"do": "square", "x": x} for x in range(12)), {"do": "diverge"}, {"do": "fail"}]

    def results(executor: Executor) -> list:
        outcomes = drain(executor, *jobs)
        return [(outcomes[t].status, outcomes[t].value, outcomes[t].error) for t in sorted(outcomes)]

    with open_executor(TOY, workers=1) as executor:
        assert results(executor) == results(pool)


def test_a_worker_killed_from_outside_is_replaced(tmp_path, drain):
    mark = tmp_path / "pids"
    with open_executor(TOY, workers=1) as executor:
        executor.submit(Job({"do": "mark_and_sleep", "path": str(mark), "sleep_s": 1.0}))
        (first,) = map(int, wait_for_lines(mark, 1))
        os.kill(first, signal.SIGKILL)
        ((_, outcome),) = executor.completed()
        assert outcome.status is Status.DONE
        assert outcome.attempts == 2
        assert outcome.value["pid"] != first

        # An idle one is missed with the next job, which costs that job an attempt and nothing else.
        os.kill(pid_of(outcome), signal.SIGKILL)
        time.sleep(0.5)
        (after,) = drain(executor, {"do": "square", "x": 2}).values()
        assert after.value == {"y": 4}
        assert after.worker != outcome.worker


def test_ctrl_c_reaches_a_caller_that_waits_and_workers_end_with_the_executor(tmp_path, gone):
    mark = tmp_path / "pids"
    sent = []

    def interrupt() -> None:
        wait_for_lines(mark, 1)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    def search() -> None:
        with open_executor(TOY, workers=1) as executor:
            try:
                executor.submit(Job({"do": "mark_and_sleep", "path": str(mark), "sleep_s": 60}))
                threading.Thread(target=interrupt, daemon=True).start()
                list(executor.completed())
            finally:
                sent.append(time.perf_counter())

    with pytest.raises(KeyboardInterrupt):
        search()
    assert sent[1] - sent[0] < 5
    assert gone(int(mark.read_text()))


STOPPED_DRIVER = """
import json, sys
from lossevo.cluster import Job, WorkerSpec, open_executor
if __name__ == "__main__":
    with open_executor(WorkerSpec("example_workers:Toy"), workers=2) as executor:
        for x in range(4):
            executor.submit(Job({"do": "square", "x": x, "sleep_s": 0.5}, timeout_s=2))
        print("submitted", flush=True)
        for ticket, outcome in executor.completed():
            print(json.dumps([ticket, outcome.status, outcome.attempts]), flush=True)
"""


def test_a_driver_that_was_stopped_for_longer_than_the_limit_finds_its_jobs_done(tmp_path):
    """Ctrl-Z and fg, a container that was paused."""
    (tmp_path / "driver.py").write_text(STOPPED_DRIVER)
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "driver.py")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as driver:
        assert driver.stdout.readline() == "submitted\n"
        driver.send_signal(signal.SIGSTOP)
        time.sleep(4)
        driver.send_signal(signal.SIGCONT)
        lines = sorted(json.loads(line) for line in driver.stdout)
    assert lines == [[ticket, "done", 1] for ticket in range(4)]


def test_workers_that_die_while_they_start_are_not_restarted_for_ever(tmp_path):
    log = tmp_path / "starts"
    with pytest.raises(LossevoError, match="3 workers in a row died while they were starting: The actor is dead"):
        open_executor(WorkerSpec("example_workers:deadly", str(log)), workers=1)
    assert len(log.read_text().splitlines()) == 3


def test_a_replacement_that_cannot_be_made_ends_the_run(tmp_path):
    spec = WorkerSpec("example_workers:once", str(tmp_path / "fuse"))
    with open_executor(spec, workers=1) as executor:
        executor.submit(Job({"do": "kill"}))
        for _ in range(2):
            with pytest.raises(ResumableError, match="the fuse has burnt"):
                list(executor.completed())


def test_more_workers_than_there_is_room_for_are_an_error_with_numbers():
    with pytest.raises(LossevoError, match="has room for 4 workers of 1 CPU, not for 99: it has 4 CPUs and 0 GPUs"):
        open_executor(TOY, workers=99)
    with pytest.raises(LossevoError, match="has room for 0 workers of 1 CPU and 1 GPU, not for 1"):
        open_executor(TOY, gpus_per_worker=1)


class Blocker:
    def ready(self) -> bool:
        return True


def test_a_cluster_whose_cpus_are_taken_is_an_error_with_numbers(pool, monkeypatch):
    import ray

    monkeypatch.setattr("lossevo.cluster.ray_executor.START_TIMEOUT_S", 1.0)
    blocker = ray.remote(Blocker).options(num_cpus=2).remote()
    try:
        ray.get(blocker.ready.remote())
        with pytest.raises(LossevoError, match=r"no worker could be started within 1 s .* 0 of 4 CPUs are free"):
            open_executor(TOY, workers=1)
    finally:
        ray.kill(blocker)


def test_a_node_with_other_code_is_an_error_that_names_it():
    with pytest.raises(LossevoError, match=r"10.0.0.2:5 has lossevo code .*, this machine code 0123: install the same"):
        check_same_installation({"lossevo": "code 0123"}, "10.0.0.2:5")
    check_same_installation(installation(), "10.0.0.2:5")


def test_a_process_uses_one_ray_cluster():
    with pytest.raises(LossevoError, match=r"is connected to the Ray cluster at .* and cannot also use head:6379"):
        RayExecutor(TOY, workers=1, address="head:6379")
