"""Which losses of a hall of fame no other beats in all of score, complexity and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lossevo.analysis.cost import cost
from lossevo.analysis.losses import AnalysedLoss
from lossevo.experiment import Entry

SAME_TIME = 0.05
"""Times that differ by less, relative, are taken for equal: so exact is the measurement."""


@dataclass(frozen=True, slots=True)
class Costed:
    """A loss of a hall of fame and its milliseconds per step: forward and backward, see :mod:`lossevo.analysis.cost`.

    Measured here and now on one core, all losses on the same two patches of 48³ voxels. The seconds of the run's
    trainings are of whatever machine did them and what else it did.
    """

    entry: Entry
    milliseconds: float

    def beats(self, other: Costed) -> bool:
        """Whether it is better in score, complexity or time, and worse in none."""
        mine, its = self.entry, other.entry
        # Ranks say which of two scores is better, whatever the objective.
        score_better = mine.score != its.score and mine.rank < its.rank
        faster = self.milliseconds < (1 - SAME_TIME) * other.milliseconds
        slower = other.milliseconds < (1 - SAME_TIME) * self.milliseconds
        no_worse = (score_better or mine.score == its.score) and mine.complexity <= its.complexity and not slower
        return no_worse and (score_better or mine.complexity < its.complexity or faster)


def comparable(entries: Sequence[Entry]) -> list[Entry]:
    """The entries whose scores can be compared: the confirmed ones; all while none is."""
    return [entry for entry in entries if entry.confirmed] or [*entries]


def pareto(entries: Sequence[Entry]) -> list[Costed]:
    """Those of the comparable entries that no other beats, in their order."""
    costed = [Costed(entry, _milliseconds(entry)) for entry in comparable(entries)]
    return front(costed)


def front(costed: Sequence[Costed]) -> list[Costed]:
    """Those that no other beats."""
    return [each for each in costed if not any(other.beats(each) for other in costed)]


def _milliseconds(entry: Entry) -> float:
    return cost(AnalysedLoss.found(entry.id, entry.unicode, str(entry.origin), entry.loss)).milliseconds
