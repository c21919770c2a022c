from __future__ import annotations

import _thread
import os
import signal
import threading
import time

import pytest

from lossevo.cluster import Job, Status, WorkerSpec, open_executor

TOY = WorkerSpec("example_workers:Toy")


def test_a_worker_that_swallows_exceptions_times_out_too(drain):
    with open_executor(TOY, in_process=True) as executor:
        (outcome,) = drain(executor, {"do": "hang"}, timeout_s=0.2).values()
    assert outcome.status is Status.TIMEOUT
    assert outcome.seconds < 5


def test_an_alarm_that_was_set_before_rings_after_the_job(drain):
    rung = []
    previous_handler = signal.signal(signal.SIGALRM, lambda *_: rung.append(time.monotonic()))
    previous = signal.setitimer(signal.ITIMER_REAL, 0.4)
    try:
        start = time.monotonic()
        with open_executor(TOY, in_process=True) as executor:
            drain(executor, {"do": "square", "x": 1, "sleep_s": 0.1}, timeout_s=30)
            assert not rung
            time.sleep(0.6)
        assert len(rung) == 1
        assert 0.3 < rung[0] - start < 0.6
    finally:
        signal.signal(signal.SIGALRM, previous_handler)
        signal.setitimer(signal.ITIMER_REAL, *previous)


def test_no_alarm_is_left_behind(drain):
    previous = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        with open_executor(TOY, in_process=True) as executor:
            drain(executor, {"do": "square", "x": 1}, {"do": "square", "x": 1, "sleep_s": 9}, timeout_s=0.1)
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, *previous)


def test_outside_the_main_thread_a_job_ends_by_itself(drain):
    outcomes = {}

    def work():
        with open_executor(TOY, in_process=True) as executor:
            outcomes.update(drain(executor, {"do": "square", "x": 3, "sleep_s": 0.2}, timeout_s=0.05))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert outcomes[0].value == {"y": 9}


def test_an_interrupted_job_stays_outstanding():
    with open_executor(TOY, in_process=True) as executor:
        executor.submit(Job({"do": "square", "x": 2, "sleep_s": 0.5}))
        timer = threading.Timer(0.1, _thread.interrupt_main)
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            list(executor.completed())
        timer.join()
        assert [outcome.value for _, outcome in executor.completed()] == [{"y": 4}]


def test_the_worker_is_this_process(drain):
    with open_executor(TOY, in_process=True) as executor:
        (outcome,) = drain(executor, {"do": "square", "x": 1}).values()
        assert outcome.worker.endswith(f":{os.getpid()}")
        assert executor.workers == 1
