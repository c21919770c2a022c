from __future__ import annotations

import errno
import json
import os
import pickle

import pytest

from lossevo.cluster import Job, Outcome, Status
from lossevo.cluster.job import make_worker, run
from lossevo.errors import LossevoError


@pytest.fixture
def toy():
    return make_worker("example_workers:Toy", None)


def test_a_time_limit_is_positive():
    with pytest.raises(ValueError, match="timeout_s must be positive"):
        Job({}, timeout_s=0)


def test_an_outcome_is_plain_data():
    outcome = Outcome(status=Status.DONE, value={"y": 1.5}, error="", seconds=0.1, worker="host:1")
    assert pickle.loads(pickle.dumps(outcome)) == outcome
    assert json.dumps(outcome.status) == '"done"'


def test_the_error_is_one_line_that_names_the_place(toy):
    outcome = run(toy, {"do": "fail"}, worker_name="host:1")
    assert outcome.error.startswith("ValueError: two lines (example_workers.py:")


def test_a_long_error_is_cut(toy):
    outcome = run(toy, {"do": "no_such_method" * 100}, worker_name="host:1")
    assert outcome.status is Status.ERROR
    assert len(outcome.error) < 600


def test_pytorch_out_of_memory_is_recognised_on_the_cpu(toy):
    outcome = run(toy, {"do": "exhaust", "how": "torch"}, worker_name="host:1")
    assert outcome.status is Status.OUT_OF_MEMORY


def test_a_network_disk_that_is_too_slow_is_no_time_out_of_the_job():
    def slow_disk(payload):
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))  # which is a TimeoutError

    assert run(slow_disk, {}, worker_name="host:1").status is Status.MACHINE


def test_a_keyboard_interrupt_is_no_outcome():
    def interrupted(payload):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(interrupted, {}, worker_name="host:1")


@pytest.mark.parametrize("factory", ["example_workers", "example_workers:", ":Toy", ""])
def test_a_malformed_factory_is_refused(factory):
    with pytest.raises(LossevoError, match=r"expected 'package\.module:callable'"):
        make_worker(factory, None)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("example_workers:no_such_name", "worker factory 'example_workers:no_such_name' failed: AttributeError"),
        ("example_workers:broken", r"failed: KeyError: 'no such patch bank' \(example_workers.py:\d+\)"),
        ("example_workers:refuse", "^the patch bank holds no foreground: prepare it again$"),
    ],
)
def test_what_a_factory_raises_is_an_error_for_the_user(factory, message):
    with pytest.raises(LossevoError, match=message):
        make_worker(factory, None)
