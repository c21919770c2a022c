"""Losses that are trained as a whole, and the hall of fame that they stand in."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

from lossevo.experiment import Entry
from lossevo.experiment.candidate import standard_error
from lossevo.losses.definitions import Definition, formula_of, spec_of
from lossevo.losses.neural import LossNetwork


@dataclass(slots=True)
class Finalist:
    """A loss that is trained as a whole: how it came about, and its validation Dice by seed."""

    definition: Definition
    origin: str
    scores: dict[int, float] = field(default_factory=dict)
    confirmations: dict[int, float] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Eight hexadecimal digits of its hash."""
        return self.definition.hash[:8]

    @property
    def shown(self) -> list[float]:
        """What counts in the ranking: Dice with new seeds, or, until it has them, that of the evaluation."""
        return list((self.confirmations or self.scores).values())

    @property
    def score(self) -> float:
        """Mean over the evaluation seeds; nan before the first."""
        return statistics.fmean(self.scores.values()) if self.scores else math.nan


def entries_of(finalists: Iterable[Finalist]) -> list[Entry]:
    """Confirmed losses by the mean over new seeds, then the others by their evaluation; a loss that came twice once."""
    unique = {finalist.definition.hash: finalist for finalist in finalists if finalist.scores}
    ranked = sorted(
        unique.values(), key=lambda finalist: (not finalist.confirmations, -statistics.fmean(finalist.shown))
    )
    return [_entry(rank, finalist) for rank, finalist in enumerate(ranked, start=1)]


def _entry(rank: int, finalist: Finalist) -> Entry:
    definition, error = finalist.definition, standard_error(finalist.shown)
    is_network = isinstance(definition, LossNetwork)
    return Entry(
        rank=rank,
        id=finalist.id,
        formula=str(definition),
        unicode=formula_of(definition),
        score=statistics.fmean(finalist.shown),
        score_se=None if math.isnan(error) else error,
        seeds=len(finalist.shown),
        complexity=float(definition.weight_count) if isinstance(definition, LossNetwork) else definition.complexity,
        origin=finalist.origin,
        confirmed=bool(finalist.confirmations),
        selection_score=finalist.score,
        loss=spec_of(definition) if is_network else definition.to_json(),
    )
