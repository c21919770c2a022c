from __future__ import annotations

import random
from dataclasses import replace

import pytest

from lossevo.cluster import Outcome, Status
from lossevo.errors import LossevoError
from lossevo.experiment.ledger import MAY_BRANCH, Ledger
from lossevo.experiment.trainings import STEP_LIMIT, OrderedTrainings, Taken
from lossevo.training import Trial
from tests.search.synthetic import Killed, SyntheticExecutor
from tests.trials import trial_of

LOSS = {"expression": {"format": "lossevo.expression/1", "structure": "class_mean(mean(p * y))", "coefficients": []}}


def trial(number: int) -> Trial:
    """A trial that its seed tells from others."""
    return trial_of(LOSS, ("a",), ("b",), 10, seed=number)


def no_executor() -> SyntheticExecutor:
    raise AssertionError("nothing has to be computed")


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", create=True) as opened:
        yield opened


def submit(trainings: OrderedTrainings, *numbers: int) -> None:
    for number in numbers:
        trainings.submit(trial(number), phase="evolution", candidate=f"s{number}")


def scores(*taken: Taken) -> list[float]:
    return [each.measurement.mean("dice") for each in taken]


class TestOrder:
    @pytest.mark.parametrize("seed", range(5))
    def test_outcomes_come_in_the_order_of_submission_whoever_ends_first(self, ledger, seed):
        executor = SyntheticExecutor(workers=6, order=random.Random(seed))
        trainings = OrderedTrainings(ledger, lambda: executor)
        submit(trainings, *range(6))
        taken = [trainings.take()]
        submit(trainings, 6, 7)
        taken += [trainings.take() for _ in range(7)]
        reference = SyntheticExecutor()
        ordered = OrderedTrainings(Ledger(ledger.path.with_name("other"), create=True), lambda: reference)
        submit(ordered, *range(8))
        assert scores(*taken) == scores(*(ordered.take() for _ in range(8)))
        assert executor.delivered != sorted(executor.delivered)

    def test_each_arrival_is_told_of_at_once(self, ledger):
        arrived: list[Outcome] = []
        executor = SyntheticExecutor(workers=4, order=random.Random(3))
        trainings = OrderedTrainings(ledger, lambda: executor, arrived=arrived.append)
        submit(trainings, *range(4))
        for _ in range(4):
            assert trainings.take().outcome in arrived
        assert len(arrived) == trainings.computed == 4


class TestLedger:
    def test_an_outcome_is_on_record_before_it_is_used(self, ledger):
        executor = SyntheticExecutor(workers=3, order=random.Random(1))
        recorded = []
        trainings = OrderedTrainings(
            ledger,
            lambda: executor,
            arrived=lambda outcome: recorded.append(ledger.records()[executor.delivered[-1]]),
        )
        submit(trainings, 0, 1, 2)
        taken = [trainings.take() for _ in range(3)]
        assert all(record.outcome is not None for record in recorded)
        assert [record.outcome for record in ledger.records()] == [each.outcome for each in taken]
        assert [(r.phase, r.candidate) for r in ledger.records()] == [("evolution", f"s{n}") for n in range(3)]

    def test_a_trial_is_on_record_before_it_runs(self, ledger):
        class Looking(SyntheticExecutor):
            def submit(self, job):
                assert ledger.records()[-1].trial == job.payload
                return super().submit(job)

        submit(OrderedTrainings(ledger, Looking), 0, 1)

    def test_what_is_known_is_looked_up_and_needs_no_executor(self, ledger):
        first = OrderedTrainings(ledger, SyntheticExecutor)
        submit(first, 0, 1, 2)
        taken = [first.take() for _ in range(3)]
        again = OrderedTrainings(ledger, no_executor)
        submit(again, 0, 1, 2)
        replayed = [again.take() for _ in range(3)]
        assert [each.outcome for each in replayed] == [each.outcome for each in taken]
        assert [each.replayed for each in (*taken, *replayed)] == [False] * 3 + [True] * 3
        assert (again.computed, again.started, again.workers, again.busy_share, again.per_hour) == (0, None, 0, 0, 0)
        again.close()

    def test_what_was_in_flight_when_it_was_killed_runs_again(self, ledger):
        killed = SyntheticExecutor(workers=4, order=random.Random(2), kill_after=2)
        first = OrderedTrainings(ledger, lambda: killed)
        submit(first, 0, 1, 2, 3)
        with pytest.raises(Killed):
            [first.take() for _ in range(4)]
        executor = SyntheticExecutor()
        again = OrderedTrainings(ledger, lambda: executor)
        submit(again, 0, 1, 2, 3)
        taken = [again.take() for _ in range(4)]
        assert all(each.outcome.status is Status.DONE for each in taken)
        assert {number for number in range(4) if taken[number].replayed} == set(killed.delivered)
        ran = {payload["seed"] for payload in executor.submitted}
        assert ran == {0, 1, 2, 3} - set(killed.delivered)
        assert again.computed == 2

    def test_another_trial_in_its_place_is_refused(self, ledger):
        submit(OrderedTrainings(ledger, SyntheticExecutor), 0, 1)
        again = OrderedTrainings(ledger, SyntheticExecutor)
        submit(again, 0)
        with pytest.raises(LossevoError, match=r"ledger\.sqlite: training 1 on record is not the one asked for now"):
            submit(again, 7)
        assert [record.trial["seed"] for record in ledger.records()] == [0, 1]

    def test_a_trial_that_is_on_record_elsewhere_is_not_trained_again(self, ledger):
        """The identity counts, not the place or the phase."""
        executor = SyntheticExecutor()
        trainings = OrderedTrainings(ledger, lambda: executor)
        submit(trainings, 0, 1)
        first = [trainings.take() for _ in range(2)]
        trainings.submit(trial(1), phase="confirmation", candidate="another")
        again = trainings.take()
        assert (again.outcome, again.replayed) == (first[1].outcome, True)
        assert [payload["seed"] for payload in executor.submitted] == [0, 1]
        assert [record.outcome for record in ledger.records()] == [each.outcome for each in (*first, again)]


class TestWorkers:
    def test_they_are_started_once_and_stopped(self, ledger):
        made = []
        trainings = OrderedTrainings(ledger, lambda: made.append(SyntheticExecutor(workers=3)) or made[-1])
        assert made == []
        submit(trainings, 0, 1)
        trainings.take()
        submit(trainings, 2)
        (executor,) = made
        assert (trainings.workers, trainings.busy_share) == (3, 1.0)
        assert trainings.per_hour > 0
        trainings.close()
        assert executor.closed

    def test_a_failure_is_an_outcome(self, ledger):
        trainings = OrderedTrainings(ledger, lambda: SyntheticExecutor(fate=lambda payload: Status.DIED))
        submit(trainings, 0)
        taken = trainings.take()
        assert (taken.outcome.status, taken.measurement, taken.problem) == (Status.DIED, None, "died: it died")
        assert ledger.record(0).outcome.status is Status.DIED


class Looking(SyntheticExecutor):
    """Notes the limits of its jobs; a training takes 3 s."""

    def __init__(self) -> None:
        super().__init__()
        self.limits: list[float | None] = []

    def submit(self, job):
        self.limits.append(job.timeout_s)
        return super().submit(job)

    def completed(self):
        for ticket, outcome in super().completed():
            yield ticket, replace(outcome, seconds=3.0)


class TestTimeLimit:
    def take_all(self, trainings: OrderedTrainings, count: int, *, calibrating: int) -> None:
        for number in range(count):
            trainings.submit(trial(number), phase="", candidate="", calibrating=number == calibrating)
        for _ in range(count):
            trainings.take()

    def test_it_is_what_the_task_states(self, ledger):
        executor = Looking()
        self.take_all(OrderedTrainings(ledger, lambda: executor, 7.0), 5, calibrating=0)
        assert executor.limits == [120 + 7 * 10] * 5
        assert ledger.fact(STEP_LIMIT) is None

    def test_else_it_is_calibrated_on_the_first_that_calibrates_and_recorded(self, ledger):
        executor = Looking()
        self.take_all(OrderedTrainings(ledger, lambda: executor), 6, calibrating=1)
        calibrated = pytest.approx(120 + 20 * 3.0)
        assert executor.limits == [None, None, None, calibrated, calibrated, calibrated]
        assert ledger.fact(STEP_LIMIT) == pytest.approx(20 * 3.0 / 10)

    def test_a_resumed_run_keeps_it(self, ledger):
        self.take_all(OrderedTrainings(ledger, Looking), 3, calibrating=0)
        executor = Looking()
        self.take_all(OrderedTrainings(ledger, lambda: executor), 5, calibrating=0)
        assert executor.limits == [pytest.approx(180)] * 2

    def test_failures_do_not_calibrate(self, ledger):
        executor = Looking()
        executor.fate = lambda payload: Status.TIMEOUT
        self.take_all(OrderedTrainings(ledger, lambda: executor), 4, calibrating=0)
        assert executor.limits == [None] * 4


class TestAnotherCourse:
    def test_it_is_refused_unless_allowed(self, ledger):
        first = OrderedTrainings(ledger, SyntheticExecutor)
        submit(first, 0, 1, 2, 3)
        taken = [first.take() for _ in range(4)]
        ledger.record_fact(MAY_BRANCH, 1)
        executor = SyntheticExecutor()
        again = OrderedTrainings(ledger, lambda: executor)
        submit(again, 0, 7, 2, 3, 8)
        outcomes = [again.take() for _ in range(5)]
        assert [outcomes[n].outcome for n in (0, 2, 3)] == [taken[n].outcome for n in (0, 2, 3)]
        assert [payload["seed"] for payload in executor.submitted] == [7, 8], "nothing is trained twice"
        assert [record.trial["seed"] for record in ledger.records()] == [0, 7, 2, 3, 8]
