from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from lossevo.cluster import Job, Status
from lossevo.cluster.limit import AwakeClock, run_within_limit

STOPPED = """
import time
from lossevo.cluster import Job
from lossevo.cluster.limit import run_within_limit

def work(payload):
    print("began", flush=True)
    end = time.monotonic() + 2
    while time.monotonic() < end or payload["busy"] and sum(range(10_000)) < 0:
        if not payload["busy"]:
            time.sleep(0.01)
    return {}

outcome = run_within_limit(work, Job({"busy": %s}, timeout_s=3), worker_name="here")
print(outcome.status)
"""


@pytest.mark.parametrize("busy", [True, False])
def test_time_in_which_the_process_is_stopped_does_not_count(busy):
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED % busy],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout.readline() == "began\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGSTOP)
        time.sleep(5)
        process.send_signal(signal.SIGCONT)
        assert process.stdout.read() == "done\n"


def test_a_job_that_sleeps_or_computes_too_long_times_out():
    def compute(payload):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            pass

    for work in (lambda payload: time.sleep(30), compute):
        outcome = run_within_limit(work, Job({}, timeout_s=0.3), worker_name="here")
        assert (outcome.status, outcome.error) == (Status.TIMEOUT, "took longer than 0.3 s")
        assert 0.3 <= outcome.seconds < 20


def test_a_clock_counts_long_steps_in_which_the_process_computes():
    clock = AwakeClock(tick_s=0.001)
    begin = time.thread_time()  # no more than the wall clock, whatever other threads do
    while time.thread_time() - begin < 0.3:  # as in one call into C
        pass
    assert clock.tick() >= 0.3


def test_a_clock_counts_two_ticks_at_most_of_a_step_in_which_it_does_nothing():
    clock = AwakeClock(tick_s=0.01)
    time.sleep(0.5)
    assert clock.tick() < 0.1
