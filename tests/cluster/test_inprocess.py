from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from lossevo.cluster import Job, Status, WorkerSpec, open_executor
from lossevo.errors import ResumableError

TOY = WorkerSpec("example_workers:Toy")


def test_a_worker_that_swallows_exceptions_times_out_too(drain):
    with open_executor(TOY, in_process=True) as executor:
        (outcome,) = drain(executor, {"do": "hang"}, timeout_s=0.2).values()
    assert outcome.status is Status.TIMEOUT
    assert outcome.seconds < 60


@pytest.fixture
def rung() -> Iterator[list[int]]:
    """Grows when an alarm rings that was not set by the executor; pytest-timeout's waits meanwhile."""
    rung: list[int] = []
    previous = signal.setitimer(signal.ITIMER_REAL, 0)
    previous_handler = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    yield rung
    signal.signal(signal.SIGALRM, previous_handler)
    signal.setitimer(signal.ITIMER_REAL, *previous)


def test_an_alarm_that_was_set_before_keeps_its_moment(drain, rung):
    with open_executor(TOY, in_process=True) as executor:
        before = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 300)
        drain(executor, {"do": "square", "x": 1, "sleep_s": 0.5}, timeout_s=200)
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        passed = time.monotonic() - before
    assert 300 - passed - 0.1 <= left <= 299.5 + 0.1
    assert not rung


def test_an_alarm_that_falls_due_in_a_job_rings_after_it(drain, rung):
    with open_executor(TOY, in_process=True) as executor:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        (outcome,) = drain(executor, {"do": "square", "x": 1, "sleep_s": 0.5}, timeout_s=200).values()
    assert outcome.status is Status.DONE
    give_up = time.monotonic() + 60
    while not rung and time.monotonic() < give_up:
        time.sleep(0.01)
    assert len(rung) == 1


def test_no_alarm_is_left_behind(drain, rung):
    with open_executor(TOY, in_process=True) as executor:
        drain(executor, {"do": "square", "x": 1}, {"do": "square", "x": 1, "sleep_s": 9}, timeout_s=0.1)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert not rung


def test_outside_the_main_thread_a_job_ends_by_itself(drain):
    outcomes = {}

    def work():
        with open_executor(TOY, in_process=True) as executor:
            outcomes.update(drain(executor, {"do": "square", "x": 3, "sleep_s": 0.2}, timeout_s=0.05))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert outcomes[0].value == {"y": 9}


def test_an_interrupted_job_stays_outstanding(tmp_path):
    with open_executor(TOY, in_process=True) as executor:
        executor.submit(Job({"do": "interrupt", "path": str(tmp_path / "interrupted")}))
        with pytest.raises(KeyboardInterrupt):
            list(executor.completed())
        assert [outcome.value for _, outcome in executor.completed()] == [{"interrupted": True}]


def test_where_the_machine_fails_the_run_stops_and_can_be_resumed(tmp_path):
    with open_executor(TOY, in_process=True) as executor:
        executor.submit(Job({"do": "fail_to_read", "path": str(tmp_path / "fails"), "times": 1}))
        with pytest.raises(ResumableError, match=r"this machine failed in mid-training: OSError: .*No space left"):
            list(executor.completed())


def test_the_worker_is_this_process(drain):
    with open_executor(TOY, in_process=True) as executor:
        (outcome,) = drain(executor, {"do": "square", "x": 1}).values()
        assert outcome.worker.endswith(f":{os.getpid()}")
        assert executor.workers == 1
