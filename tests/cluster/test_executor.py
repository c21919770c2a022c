from __future__ import annotations

import pytest

from lossevo.cluster import executor
from lossevo.cluster.executor import BusyMeter


class Clock:
    """Stands for the module ``time``; it goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(executor, "time", clock)
    return clock


class TestBusyMeter:
    def test_before_the_first_job_nobody_is_busy(self, clock: Clock) -> None:
        meter = BusyMeter(2)
        clock.now += 5
        assert meter.share() == 0.0
        meter.submitted()
        assert meter.share() == 0.0

    def test_it_is_time_on_jobs_over_time_of_all_workers(self, clock: Clock) -> None:
        meter = BusyMeter(2)
        clock.now += 5  # before the first submission, which does not count
        meter.submitted()
        clock.now += 1
        meter.started("a")
        meter.submitted()  # nor is the clock set back
        clock.now += 2
        meter.started("b")
        clock.now += 1
        assert meter.share() == (3 + 1) / (2 * 4), "running jobs count"
        assert meter.stopped("a") == 3
        clock.now += 4
        assert meter.stopped("b") == 5
        assert meter.share() == (3 + 5) / (2 * 8)
        clock.now += 8
        assert meter.share() == 8 / (2 * 16), "idle time counts"
        meter.started("a")
        clock.now += 4
        assert meter.stopped("a") == 4
        assert meter.share() == 12 / (2 * 20)

    def test_it_is_never_above_1(self, clock: Clock) -> None:
        meter = BusyMeter(1)
        meter.submitted()
        for worker in ("dead", "its replacement"):
            meter.started(worker)
        clock.now += 3
        assert meter.share() == 1.0
