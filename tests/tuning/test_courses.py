"""Whose fault a lost worker is, without any Ray."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

import pytest

from lossevo.cluster import Outcome, Status
from lossevo.errors import ResumableError
from lossevo.experiment import Event, Ledger
from lossevo.training import Measurement
from lossevo.training.trial import identity_of
from lossevo.tuning.courses import RETRIES, Courses
from tests.tuning.conftest import course_of


def measured(dice: float) -> Outcome:
    values = {"dice": {"case": {"vertebra": dice}}}
    value = Measurement(values, [[1, 1.0]], [[1, dice]], 0.1).to_payload()
    return Outcome(Status.DONE, value, "", 0.1, "host:1", 1)


@pytest.fixture
def together(tmp_path: Path):
    told: list[Event] = []
    with Ledger(tmp_path / "ledger.sqlite", create=True) as ledger:
        found = Courses([course_of("dice", trials=4, finalists=1, seeds=1)], ledger, told.append)
        found.replay()
        found.begin(2)
        yield found


def finish(courses: Courses, trial: str, dice: float = 0.5) -> None:
    course, attempt = courses.running[trial]
    for rung in course.rungs_left(attempt):
        if not courses.arrived(trial, rung, measured(dice)):
            break
    courses.running.pop(trial)


def lose(courses: Courses, trial: str) -> None:
    courses.lost(trial, "worker gone")
    courses.running.pop(trial)


def lose_all(courses: Courses) -> None:
    for number in range(20):
        assert courses.next(str(number)) is not None
        lose(courses, str(number))


def test_an_attempt_whose_worker_is_lost_begins_again_where_its_record_ends(together):
    course, attempt = together.next("a")
    together.arrived("a", course.rungs[0], measured(0.4))
    lose(together, "a")
    assert together.next("b") == (course, attempt)
    assert course.rungs_left(attempt) == course.rungs[1:]
    finish(together, "b")
    assert attempt.state == "ended"
    assert len(together.ledger.records()) == len(course.rungs)


def test_one_that_loses_every_worker_has_no_score_once_another_has_shown_that_workers_live(together):
    _, poison = together.next("p0")
    for number in range(RETRIES):
        lose(together, f"p{number}")
        assert together.next(f"p{number + 1}")[1] is poison
    lose(together, f"p{RETRIES}")
    assert poison.state == "open"  # nothing has shown yet that it is to blame
    _, other = together.next("b")
    assert other is not poison
    finish(together, "b")
    assert poison.state == "lost"
    (died,) = [r.outcome for r in together.ledger.records() if r.outcome.status is Status.DIED]
    assert (died.error, died.attempts) == ("worker gone", 1 + RETRIES)


def test_where_nothing_ever_arrived_no_attempt_is_to_blame(together):
    with pytest.raises(ResumableError, match=r"no training is to blame \(worker gone\)"):
        lose_all(together)
    assert together.ledger.records() == []


def test_a_cluster_that_turns_sick_is_to_blame_and_nothing_is_recorded_of_it(together):
    together.next("fine")
    finish(together, "fine")
    before = len(together.ledger.records())
    with pytest.raises(ResumableError, match="no training is to blame"):
        lose_all(together)
    assert len(together.ledger.records()) == before


def test_the_last_one_of_a_wave_that_loses_every_worker_is_told_by_what_arrived_before(together):
    for trial in "abc":
        together.next(trial)
        finish(together, trial)
    _, poison = together.next("p")
    for number in range(1 + RETRIES):
        trial = "p" if number == 0 else f"p{number}"
        lose(together, trial)
        if number < RETRIES:
            assert together.next(f"p{number + 1}")[1] is poison
    found = together.next("confirmation")
    assert poison.state == "lost"
    assert found[1].confirms == 0


def test_replay_goes_as_far_as_the_record(together, tmp_path):
    course, _ = together.next("a")
    finish(together, "a", 0.3)
    together.next("b")
    together.arrived("b", course.rungs[0], measured(0.2))
    again = Courses([course_of("dice", trials=4, finalists=1, seeds=1)], together.ledger, lambda event: None)
    again.replay()
    assert [a.state for a in again.courses[0].attempts] == ["ended", "open", "open", "open"]
    assert again.courses[0].attempts[1].utilities == {course.rungs[0]: pytest.approx(0.2)}
    waiting = [again.next(str(n))[1].number for n in range(3)]
    assert waiting == [1, 2, 3]
    assert again.next("none") is None


def begun(ledger: Ledger, workers: int = 1, **settings) -> Courses:
    chosen = {"trials": 8, "window": 8, "finalists": 1, "seeds": 1, **settings}
    found = Courses([course_of("dice", **chosen)], ledger, lambda event: None)
    found.replay()
    found.begin(workers)
    return found


def run(courses: Courses, *, deadly: Container[int] = ()) -> list[str]:
    """To the end, one after the other; the trainings that were done, by identity."""
    trained = []
    for number in range(200):
        if (found := courses.next(str(number))) is None:
            break
        course, attempt = found
        if attempt.confirms is None and attempt.number in deadly:
            lose(courses, str(number))
        else:
            trained += [course.trial(attempt, rung).identity for rung in course.rungs_left(attempt)]
            finish(courses, str(number))
    return trained


def test_a_node_takes_all_its_workers_with_it(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", create=True) as ledger:
        courses = begun(ledger, workers=8)
        for number in range(8):
            courses.next(str(number))
        for number in range(8):
            lose(courses, str(number))
        run(courses)
        assert courses.finished
        assert {attempt.state for attempt in courses.courses[0].attempts} <= {"ended", "stopped"}


def test_several_that_lose_every_worker_are_told_from_a_sick_cluster_by_a_control(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", create=True) as ledger:
        courses = begun(ledger)
        run(courses, deadly={2, 3, 4})
        assert courses.finished
        assert [a.number for a in courses.courses[0].attempts if a.state == "lost"] == [2, 3, 4]
        identities = [identity_of(record.trial) for record in ledger.records()]
        assert len({*identities}) == len(identities)  # the control is not recorded


def test_one_that_is_tried_again_alone_and_loses_every_worker_again_does_not_block_the_tuning(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", create=True) as ledger:
        run(begun(ledger), deadly={7})
        assert ledger.forget_failures() == 1
        again = begun(ledger)
        run(again, deadly={7})
        assert again.finished


def test_what_is_on_record_is_not_trained_again_after_a_failure_is_retried(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", create=True) as ledger:
        before = run(begun(ledger, trials=16, window=4), deadly={1})
        assert ledger.forget_failures() == 1
        again = begun(ledger, trials=16, window=4)
        after = run(again)
        assert again.finished
        assert after
        assert set(after).isdisjoint(before)
