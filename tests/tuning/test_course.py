from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from lossevo.tuning.course import Attempt, Course
from tests.tuning.conftest import bowl, course_of, drive


def history(course: Course) -> list[tuple]:
    return [
        (a.number, a.confirms, a.seed, tuple(a.values.items()), tuple(sorted(a.utilities.items())), a.state)
        for a in course.attempts
    ]


def test_it_tries_the_untuned_values_first_and_finds_better_ones():
    course = drive(course_of(trials=32), bowl)
    first, *others = course.attempts[:32]
    assert first.values == {"learning_rate": 0.01, "w_fp": 0.3}
    assert all(0.001 <= a.values["learning_rate"] <= 0.1 and 0.01 <= a.values["w_fp"] <= 0.99 for a in others)
    best, untuned = course.confirmed()[0], next(c for c in course.confirmed() if c.number == 0)
    assert best.mean > untuned.mean + 0.03
    assert best.values["learning_rate"] == pytest.approx(0.03, rel=0.5)


@pytest.mark.parametrize("workers", [2, 3, 8, 64])
@pytest.mark.parametrize("seed", [0, 1])
def test_its_course_depends_neither_on_the_workers_nor_on_who_is_first(workers, seed):
    alone = drive(course_of(trials=21, seed=seed), bowl)
    rng = np.random.default_rng(workers)
    together = drive(course_of(trials=21, seed=seed), bowl, workers=workers, order=lambda n: int(rng.integers(n)))
    assert history(together) == history(alone)
    assert together.finished


def test_another_seed_or_place_is_another_course():
    one, other, third = (drive(course_of(seed=s, place=p), bowl) for s, p in ((0, 0), (1, 0), (0, 1)))
    assert len({tuple(map(str, history(course))) for course in (one, other, third)}) == 3
    seeds = [{a.seed for a in course.attempts} for course in (one, other, third)]
    assert seeds[0].isdisjoint(seeds[1] | seeds[2])


def test_a_training_goes_on_if_it_reaches_the_upper_half_of_the_waves_before_it():
    """Against a slow loop over what every training came to."""
    course = drive(course_of(trials=40, window=4), bowl, workers=4)
    tried = course.attempts[:40]
    assert course.rungs == (10, 20, 40)
    for attempt in tried:
        wave = attempt.number // 4
        for step, utility in attempt.utilities.items():
            before = [a.utilities[step] for a in tried if a.number // 4 < wave and step in a.utilities]
            median = sorted(before)[len(before) // 2] if len(before) % 2 else None
            if median is None and before:
                ordered = sorted(before)
                median = (ordered[len(before) // 2 - 1] + ordered[len(before) // 2]) / 2
            went_on = step * 2 in attempt.utilities
            assert went_on == (step < 40 and (not before or utility >= median)), (attempt.number, step)
    states = Counter(a.state for a in tried)
    assert min(states["stopped"], states["ended"]) >= 8
    assert all(a.state == "ended" for a in tried[:4])  # the first wave


def test_finalists_are_the_best_that_ended_and_the_untuned_and_get_fresh_seeds_that_they_share():
    course = drive(course_of(trials=16, finalists=3, seeds=4), bowl)
    confirmations = course.attempts[16:]
    ended = sorted((a for a in course.attempts[1:16] if a.state == "ended"), key=lambda a: -a.utility)
    assert {a.confirms for a in confirmations} == {0, *(a.number for a in ended[:3])}
    by_finalist = {n: [a.seed for a in confirmations if a.confirms == n] for n in {a.confirms for a in confirmations}}
    assert len({tuple(seeds) for seeds in by_finalist.values()}) == 1
    assert len({*by_finalist[0]}) == 4
    assert course.attempts[0].seed not in by_finalist[0]
    assert all([*a.utilities] == [40] for a in confirmations)
    assert course.total == len(course.attempts) == 16 + 4 * 4


def test_what_is_kept_is_the_best_by_the_fresh_seeds_alone():
    def flattering(values, step, seed):
        """The search's seed flatters a large weight; the fresh ones do not."""
        honest = 0.5 - (values["w_fp"] - 0.3) ** 2
        return honest if seed != searched else values["w_fp"]

    course = course_of(trials=12)
    searched = course.ask().seed
    course = drive(course_of(trials=12), flattering)
    kept = course.confirmed()[0]
    assert kept.values["w_fp"] == min((c.values["w_fp"] for c in course.confirmed()), key=lambda w: abs(w - 0.3))
    assert kept.number == 0


def test_diverged_values_are_told_as_the_worst_and_never_confirmed():
    def told(course: Course, attempt: Attempt, step: int) -> None:
        failed = attempt.values["learning_rate"] > 0.02 and attempt.confirms is None
        course.tell(attempt, step, 0.0 if failed else bowl(attempt.values, step, attempt.seed), failed=failed)

    course = course_of(trials=24)
    while (attempt := course.ask()) is not None:
        while rungs := course.rungs_left(attempt):
            told(course, attempt, rungs[0])
    assert any(a.state == "failed" for a in course.attempts)
    assert all(c.values["learning_rate"] <= 0.02 for c in course.confirmed())
    assert course.finished


def test_a_lost_training_has_no_score_and_holds_up_nothing():
    course = course_of(trials=12)
    while (attempt := course.ask()) is not None:
        if attempt.number in (0, 5) or (attempt.confirms == 0):
            course.lose(attempt)
            continue
        while rungs := course.rungs_left(attempt):
            course.tell(attempt, rungs[0], bowl(attempt.values, rungs[0], attempt.seed))
    assert course.finished
    assert math.isnan(course.attempts[0].utility)
    assert 0 not in {c.number for c in course.confirmed()}


def test_values_of_which_trainings_were_lost_come_after_those_with_all_seeds():
    course = course_of(trials=4, finalists=1, seeds=3)
    while (attempt := course.ask()) is not None:
        if attempt.confirms and [a.confirms for a in course.attempts].count(attempt.confirms) > 1:
            course.lose(attempt)
        while rungs := course.rungs_left(attempt):
            course.tell(attempt, rungs[0], 0.9 if attempt.confirms else 0.5 - 0.01 * attempt.number)
    assert [(entry.number == 0, len(entry.seeds)) for entry in course.confirmed()] == [(True, 3), (False, 1)]


def test_one_training_alone_is_a_course():
    course = drive(course_of(trials=1, finalists=1, seeds=1), bowl)
    assert course.finished
    assert [a.confirms for a in course.attempts] == [None, 0]


@pytest.mark.parametrize(("steps", "rungs"), [(1, (1,)), (2, (1, 2)), (3, (1, 3)), (150, (37, 75, 150))])
def test_rungs_are_a_quarter_and_half_of_the_steps(steps, rungs):
    assert course_of(steps=steps).rungs == rungs


def test_the_trainings_of_an_attempt_are_one_training_cut_at_the_rungs():
    course = course_of(steps=40)
    attempt = course.ask()
    trials = [course.trial(attempt, step) for step in course.rungs]
    assert [t.fidelity.steps for t in trials] == [10, 20, 40]
    assert {t.length for t in trials} == {40}
    assert {t.learning_rate for t in trials} == {0.01}
    assert len({t.identity for t in trials}) == 3
