from __future__ import annotations

from collections.abc import Callable

import pytest

from lossevo.analysis import EVOLVED, AnalysedLoss
from lossevo.expression import Expression, unicode


@pytest.fixture
def evolved() -> Callable[[str], AnalysedLoss]:
    """A loss of the loss language."""

    def make(formula: str, name: str = "mine") -> AnalysedLoss:
        expression = Expression.parse(formula)
        return AnalysedLoss(name, EVOLVED, unicode(expression), "a test", {"expression": expression.to_json()})

    return make
