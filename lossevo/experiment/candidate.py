"""A candidate loss: its definition, where it came from, and what its trainings scored."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lossevo.experiment.origin import HandCrafted, Origin, Seed
from lossevo.expression import Expression
from lossevo.losses.definitions import Definition, spec_of


@dataclass(slots=True)
class Candidate:
    """A loss under evaluation.

    ``scores`` maps the seed of each finished training to its utility, see :mod:`lossevo.experiment.scoring`. Trainings
    with *selection* seeds guide the search; those with *confirmation* seeds were never selected on, so their mean is
    free of the luck that selection favours.
    """

    definition: Definition
    origin: Origin
    number: int = 0
    scores: dict[int, float] = field(default_factory=dict)
    confirmations: dict[int, float] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Eight hexadecimal digits of the definition's hash."""
        return self.definition.hash[:8]

    @property
    def expression(self) -> Expression:
        """The definition of a candidate that is a formula, as all candidates of a search are."""
        assert isinstance(self.definition, Expression)
        return self.definition

    @property
    def spec(self) -> dict[str, Any]:
        """What :func:`lossevo.losses.from_spec` takes."""
        return spec_of(self.definition)

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
        return isinstance(self.origin, HandCrafted)

    @property
    def given(self) -> bool:
        """Whether nobody found this loss: it is of the literature, or a formula of the search-space file."""
        return isinstance(self.origin, HandCrafted | Seed)


def seed_noise(candidates: Iterable[Candidate], default: float, *, worst: float) -> float:
    """Standard deviation between seeds, pooled over the candidates with several of which none has the worst score."""
    several = [list(c.scores.values()) for c in candidates if len(c.scores) > 1]
    variances = [statistics.variance(scores) for scores in several if min(scores) > worst]
    return math.sqrt(statistics.fmean(variances)) if variances else default


def standard_error(values: list[float]) -> float:
    """Standard error of the mean, s/√n; nan for fewer than two values."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
