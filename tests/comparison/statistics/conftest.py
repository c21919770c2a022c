from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lossevo.comparison.statistics import ScoreTable, score_table


@pytest.fixture(scope="session")
def table() -> Callable[..., ScoreTable]:
    """A table of losses a, b, c … from rows of scores."""

    def make(rows, **given) -> ScoreTable:
        return score_table(
            {
                chr(ord("a") + place): {f"s{number:02d}": float(value) for number, value in enumerate(row)}
                for place, row in enumerate(np.asarray(rows, dtype=float))
            },
            **given,
        )

    return make
