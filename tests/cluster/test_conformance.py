"""What every executor does, whatever runs its jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from lossevo.cluster import Executor, Job, Status, WorkerSpec, open_executor
from lossevo.errors import LossevoError

TOY = WorkerSpec("example_workers:Toy")


@pytest.fixture(scope="module", params=["in_process", "ray"])
def open_one(request) -> Callable[..., Executor]:
    if request.param == "in_process":
        return lambda spec=TOY: open_executor(spec, in_process=True)
    request.getfixturevalue("ray_session")
    return lambda spec=TOY: open_executor(spec, workers=2)


@pytest.fixture(scope="module")
def executor(open_one) -> Iterator[Executor]:
    """Shared by the tests that leave it as it was."""
    with open_one() as executor:
        yield executor


def test_every_job_comes_back_once_under_its_ticket(executor):
    tickets = [executor.submit(Job({"do": "square", "x": x})) for x in range(10)]
    outcomes = list(executor.completed())

    assert tickets == list(range(tickets[0], tickets[0] + 10))
    assert sorted(ticket for ticket, _ in outcomes) == tickets
    for ticket, outcome in outcomes:
        assert outcome.value == {"y": (ticket - tickets[0]) ** 2}
        assert outcome.status is Status.DONE
        assert outcome.error == ""
        assert outcome.attempts == 1
        assert outcome.seconds >= 0
        host, pid = outcome.worker.rsplit(":", 1)
        assert host
        assert int(pid) > 0


@pytest.mark.parametrize(
    ("payload", "status", "error"),
    [
        ({"do": "diverge"}, Status.DIVERGED, "FloatingPointError: loss is NaN at step 7"),
        ({"do": "fail"}, Status.ERROR, "ValueError: two lines"),
        ({"do": "leave"}, Status.ERROR, "SystemExit: 3"),
        ({"do": "give_up"}, Status.TIMEOUT, "TimeoutError: own deadline"),
        ({"do": "exhaust", "how": "python"}, Status.OUT_OF_MEMORY, "MemoryError"),
        ({"do": "return_list"}, Status.ERROR, "TypeError: the worker returned list, expected a mapping"),
        ({}, Status.ERROR, "KeyError: 'do'"),
    ],
    ids=lambda value: value.get("do", "nothing") if isinstance(value, dict) else "",
)
def test_what_goes_wrong_is_an_outcome(executor, drain, payload, status, error):
    (outcome,) = drain(executor, payload).values()
    assert (outcome.status, outcome.value) == (status, None)
    assert outcome.error.startswith(error)
    assert "\n" not in outcome.error


def test_the_worker_goes_on_after_a_failure(executor, drain):
    outcomes = drain(executor, {"do": "fail"}, {"do": "diverge"}, {"do": "square", "x": 3})
    assert sorted(outcome.status for outcome in outcomes.values()) == ["diverged", "done", "error"]


def test_the_caller_may_submit_while_iterating(executor):
    executor.submit(Job({"do": "square", "x": 1}))
    seen = []
    for _, outcome in executor.completed():
        seen.append(outcome.value["y"])
        if len(seen) < 5:
            executor.submit(Job({"do": "square", "x": len(seen)}))
    assert seen == [1, 1, 4, 9, 16]


def test_without_jobs_there_is_nothing_to_wait_for(executor):
    assert list(executor.completed()) == []


def test_a_job_over_its_limit_times_out_and_the_others_do_not(open_one):
    with open_one() as executor:
        start = time.perf_counter()
        slow = executor.submit(Job({"do": "square", "x": 1, "sleep_s": 60}, timeout_s=0.5))
        quick = executor.submit(Job({"do": "square", "x": 2}, timeout_s=50))
        outcomes = dict(executor.completed())
        assert time.perf_counter() - start < 50
        assert outcomes[slow].status is Status.TIMEOUT
        assert outcomes[slow].error == "took longer than 0.5 s"
        assert 0.5 <= outcomes[slow].seconds < 50
        assert outcomes[quick].value == {"y": 4}


def test_the_busy_share_is_time_on_jobs_over_worker_time(open_one):
    with open_one() as executor:
        assert executor.busy_share() == 0.0
        for _ in range(2 * executor.workers):
            executor.submit(Job({"do": "square", "x": 1, "sleep_s": 0.5}))
        list(executor.completed())
        share = executor.busy_share()
        assert 0.25 < share <= 1.0  # not sharper: Ray may start its second worker when the first has done all
        time.sleep(0.5)
        assert executor.busy_share() < share


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("no_such_package.worker:make", "No module named 'no_such_package'"),
        ("example_workers:refuse", "the patch bank holds no foreground: prepare it again"),
    ],
)
def test_a_worker_that_cannot_be_made_is_an_error_at_once(open_one, factory, message):
    with pytest.raises(LossevoError) as caught:
        open_one(WorkerSpec(factory))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_closed_executor_takes_no_job(open_one):
    executor = open_one()
    executor.submit(Job({"do": "square", "x": 1, "sleep_s": 30}))
    executor.close()
    executor.close()
    with pytest.raises(RuntimeError, match="closed"):
        executor.submit(Job({}))
    assert list(executor.completed()) == []


def test_the_number_of_workers_is_positive():
    with pytest.raises(LossevoError, match="workers must be at least 1, not 0"):
        open_executor(TOY, workers=0)


def test_in_process_and_a_cluster_exclude_each_other():
    with pytest.raises(LossevoError, match="in process or on the cluster at head:6379, not both"):
        open_executor(TOY, in_process=True, address="head:6379")
