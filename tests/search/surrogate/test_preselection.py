from __future__ import annotations

import numpy as np

from lossevo.experiment.candidate import Candidate
from lossevo.experiment.origin import Evolved
from lossevo.expression import Expression
from lossevo.search.surrogate import Preselection
from tests.search.synthetic import features

LOSSES = [
    Expression.parse(f"-foreground_mean(sum(p * y) / sum(p ^ {power / 4} + {power}.0 * y))") for power in range(1, 13)
]
STEPS = 10


def told(count: int, *, unit: float = 1.0, noise: float = 0.0) -> tuple[Preselection, list[str]]:
    """A preselection that knows the first losses, of which the later the better; and what it computed features of."""
    asked: list[str] = []

    def noted(expression):
        asked.append(expression.hash)
        return features(expression)

    preselection = Preselection(noted, STEPS, unit)
    rng = np.random.default_rng(1)
    for number, loss in enumerate(LOSSES[:count]):
        score = 0.5 + 0.03 * number + noise * rng.standard_normal()
        preselection.tell(Candidate(loss, Evolved("random"), number), STEPS, unit * score)
    return preselection, asked


def choices(preselection: Preselection, proposals: list[Expression], count: int = 40) -> list[int]:
    return [preselection.choose(proposals, np.random.default_rng(seed)) for seed in range(count)]


def test_prefers_what_the_surrogate_expects_more_of_but_not_always():
    """The first and the last are neighbours of the worst and of the best on record."""
    for unit in (1.0, 100.0):
        preselection, _ = told(11, unit=unit)
        chosen = choices(preselection, [LOSSES[0], LOSSES[11]])
        assert sum(chosen) > 35
    preselection, _ = told(11, noise=0.05)
    near = choices(preselection, [LOSSES[9], LOSSES[10]])
    assert 0 < sum(near) < 40


def test_it_cannot_choose_before_it_is_fitted():
    assert not told(3)[0].can_choose()
    assert told(11)[0].can_choose()


def test_nothing_is_computed_before_a_choice_and_nothing_twice():
    preselection, asked = told(11)
    assert not asked
    choices(preselection, [LOSSES[3], LOSSES[11]], 3)
    assert sorted(asked) == sorted({*asked})


def test_what_has_no_features_is_chosen_only_if_all_lack_them():
    known = {loss.hash for loss in LOSSES[:11]}
    preselection = Preselection(lambda loss: features(loss) if loss.hash in known else None, STEPS)
    for number, loss in enumerate(LOSSES):
        preselection.tell(Candidate(loss, Evolved("random"), number), STEPS, 0.5)
    assert choices(preselection, [LOSSES[11], LOSSES[4]], 5) == [1] * 5
    assert choices(preselection, [LOSSES[11], LOSSES[11]], 5) == [0] * 5
