"""A candidate loss: its definition, where it came from, and what its trainings scored."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lossevo.experiment.origin import HandCrafted, Origin, Seed
from lossevo.expression import Expression
from lossevo.losses.definitions import Definition, spec_of


@dataclass(slots=True)
class Candidate:
    """A loss under evaluation.

    Attributes:
        scores: steps -> seed -> utility of each finished training with a *selection* seed, which guides the search. See
            :mod:`lossevo.experiment.scoring`.
        confirmations: steps -> seed -> utility of trainings with *confirmation* seeds. Nothing was selected on them, so
            their mean is free of the luck that selection favours.
    """

    definition: Definition
    origin: Origin
    number: int = 0
    scores: dict[int, dict[int, float]] = field(default_factory=dict)
    confirmations: dict[int, dict[int, float]] = field(default_factory=dict)

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
    def longest(self) -> int:
        """Steps of the longest training with a selection seed; 0 before the first."""
        return max(self.scores, default=0)

    @property
    def score(self) -> float:
        """Mean over the selection seeds of the longest trainings; nan before the first."""
        return self.mean(self.longest)

    def mean(self, steps: int) -> float:
        """Mean over the selection seeds of trainings of so many steps; nan if there is none."""
        return statistics.fmean(self.scores[steps].values()) if steps in self.scores else math.nan

    def record(self, steps: int, seed: int, utility: float, *, confirms: bool = False) -> None:
        """Keep what a training scored."""
        (self.confirmations if confirms else self.scores).setdefault(steps, {})[seed] = utility

    @property
    def hand_crafted(self) -> bool:
        """Whether this is a loss of the literature."""
        return isinstance(self.origin, HandCrafted)

    @property
    def given(self) -> bool:
        """Whether nobody found this loss: it is of the literature, or a formula of the search-space file."""
        return isinstance(self.origin, HandCrafted | Seed)


def standing(candidate: Candidate, confirmation_seeds: int) -> tuple[bool, int, Mapping[int, float]]:
    """What a candidate is ranked by: whether it is confirmed, at how many steps, and its utility for each seed there.

    Those are its confirmations at the most steps at which there are ``confirmation_seeds`` of them, else the scores of
    its longest trainings.
    """
    confirmed = [steps for steps, found in candidate.confirmations.items() if len(found) >= confirmation_seeds]
    if confirmed:
        return True, max(confirmed), candidate.confirmations[max(confirmed)]
    return False, candidate.longest, candidate.scores[candidate.longest]


def standard_error(values: list[float]) -> float:
    """Standard error of the mean, s/√n; nan for fewer than two values."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
