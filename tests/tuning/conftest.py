from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from lossevo.experiment.scoring import DICE
from lossevo.training import Split
from lossevo.tuning.course import Attempt, Course
from lossevo.tuning.problem import Problem
from lossevo.tuning.settings import TuningSettings
from lossevo.tuning.space import Space

Utility = Callable[[Mapping[str, float], int, int], float]
"""Of values, step and seed."""


def course_of(loss: str = "tversky", *, steps: int = 40, seed: int = 0, place: int = 0, **settings) -> Course:
    """A course without any data behind it."""
    chosen = TuningSettings(**{"trials": 12, "finalists": 2, "seeds": 2, "window": 4, **settings})
    space = Space.of({"name": loss}, chosen.what, learning_rate=0.01, bounds=chosen.bounds)
    split = Split(("a", "b"), ("c",))
    return Course(Problem(loss, None, space, split, DICE, "study", steps, True, seed, place), chosen)


def drive(course: Course, utility: Utility, *, workers: int = 1, order: Callable[[int], int] = lambda n: 0) -> Course:
    """Run a course with as many workers, of which ``order`` says who reports next."""
    running: list[Attempt] = []
    while True:
        while len(running) < workers and (attempt := course.ask()) is not None:
            running.append(attempt)
        if not running:
            return course
        attempt = running[order(len(running))]
        step = course.rungs_left(attempt)[0]
        if not course.tell(attempt, step, utility(attempt.values, step, attempt.seed)):
            running.remove(attempt)


def bowl(values: Mapping[str, float], step: int, seed: int) -> float:
    """Best at a learning rate of 0.03 and w_fp of 0.6, better with more steps."""
    import math

    rate = math.log(values["learning_rate"] / 0.03)
    return 0.9 - 0.05 * rate**2 - 0.3 * (values.get("w_fp", 0.6) - 0.6) ** 2 - 2 / (step + 10) + 1e-4 * (seed % 7)


@pytest.fixture
def make_course() -> Callable[..., Course]:
    return course_of
