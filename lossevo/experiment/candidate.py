"""A candidate loss: an expression, where it came from, and what its trainings scored."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lossevo.expression import Expression

HAND_CRAFTED = "hand-crafted"
SEED = "seed"
"""Origins of what a search starts from: a loss of the literature, or a formula in the search space file."""

FAILED_SCORE = 0.0
"""What a training that diverged, crashed or ran out of time counts as: the worst Dice."""


@dataclass(frozen=True, slots=True)
class Origin:
    """How a candidate came about: the operator, the ids of its parents, and for a hand-crafted loss its name."""

    operator: str
    parents: tuple[str, ...] = ()
    name: str = ""

    def __str__(self) -> str:
        if self.name:
            return f"{self.operator}: {self.name}"
        return f"{self.operator} of {', '.join(self.parents)}" if self.parents else self.operator

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"operator": self.operator, "parents": list(self.parents), "name": self.name}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Origin:
        """The inverse of :meth:`to_json`."""
        return cls(document["operator"], tuple(document["parents"]), document["name"])


@dataclass(slots=True)
class Candidate:
    """A loss under evaluation.

    ``scores`` maps the seed of each finished training to its mean validation Dice. Trainings with *selection* seeds
    guide the search; those with *confirmation* seeds were never selected on, so their mean is free of the luck that
    selection favours.
    """

    expression: Expression
    origin: Origin
    number: int
    scores: dict[int, float] = field(default_factory=dict)
    confirmations: dict[int, float] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Eight hexadecimal digits of the expression's hash."""
        return self.expression.hash[:8]

    @property
    def score(self) -> float:
        """Mean over the selection seeds; nan before the first."""
        return statistics.fmean(self.scores.values()) if self.scores else math.nan

    def cautious_score(self, noise: float) -> float:
        """The mean minus its standard error, noise/√n for n seeds of standard deviation ``noise``."""
        return self.score - noise / math.sqrt(len(self.scores)) if self.scores else math.nan

    @property
    def hand_crafted(self) -> bool:
        """Whether this is a loss of the literature."""
        return self.origin.operator == HAND_CRAFTED


def seed_noise(candidates: Iterable[Candidate], default: float) -> float:
    """Standard deviation between seeds, pooled over the candidates with several that did not fail."""
    several = [list(c.scores.values()) for c in candidates if len(c.scores) > 1]
    variances = [statistics.variance(scores) for scores in several if min(scores) > FAILED_SCORE]
    return math.sqrt(statistics.fmean(variances)) if variances else default


def standard_error(values: list[float]) -> float:
    """Standard error of the mean, s/√n; nan for fewer than two values."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
