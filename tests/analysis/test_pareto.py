from __future__ import annotations

import pytest

from lossevo.analysis.pareto import Costed, comparable, front, pareto
from lossevo.experiment import Entry
from lossevo.experiment.origin import Seed
from lossevo.expression import Expression
from lossevo.losses.definitions import spec_of

DICE = Expression.parse("1 - foreground_mean(2 * sum(p * y) / sum(p + y))")
DEAR = Expression.parse(
    "class_mean(mean(log(tanh(p) + 1) * y)) - class_mean(mean(exp(tanh(logp)) * y))"
    " + class_mean(mean((1 - p) ^ 2.5 * y))"
)


def entry(
    rank: int, score: float, complexity: float = 9.0, *, confirmed: bool = True, loss: Expression = DICE
) -> Entry:
    return Entry(
        rank=rank,
        id=f"{rank:08x}",
        formula=str(loss),
        unicode=str(loss),
        objective="dice",
        score=score,
        score_se=None,
        seeds=1,
        steps=10,
        complexity=complexity,
        origin=Seed(),
        confirmed=confirmed,
        selection_score=score,
        loss=spec_of(loss),
    )


@pytest.mark.parametrize(
    ("rivals", "left"),
    [
        # (score, complexity, milliseconds), the best score first
        ([(0.9, 20, 5.0), (0.8, 10, 5.0), (0.7, 15, 1.0), (0.6, 30, 9.0)], [1, 2, 3]),
        ([(0.9, 10, 5.0), (0.8, 10, 5.0)], [1]),
        ([(0.9, 10, 5.0), (0.9, 10, 5.1), (0.9, 11, 5.0)], [1, 2]),
        ([(0.9, 10, 5.2), (0.8, 11, 5.0)], [1]),  # so little faster is not measured
        ([(0.9, 10, 5.5), (0.8, 11, 5.0)], [1, 2]),
        ([(0.9, 10, 5.0), (0.9, 10, 3.0)], [2]),
    ],
)
def test_the_front(rivals, left):
    costed = [
        Costed(entry(rank, score, complexity), milliseconds)
        for rank, (score, complexity, milliseconds) in enumerate(rivals, start=1)
    ]
    assert [each.entry.rank for each in front(costed)] == left


def test_scores_that_selection_raised_are_not_compared_with_those_of_new_seeds():
    confirmed, other = entry(1, 0.7), entry(2, 0.9, confirmed=False)
    assert comparable([confirmed, other]) == [confirmed]
    assert comparable([other]) == [other]


def test_times_are_measured():
    found = pareto([entry(1, 0.8, 30, loss=DEAR), entry(2, 0.7, 31)])
    assert [each.entry.rank for each in found] == [1, 2], "worse and longer, but faster"
    assert found[0].milliseconds > 1.2 * found[1].milliseconds > 0
