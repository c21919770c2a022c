"""All candidates of a run and all that their trainings scored: the only place that averages and estimates noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from lossevo.experiment.candidate import Candidate
from lossevo.experiment.scoring import Scoring

DEFAULT_NOISE = 0.01
"""Standard deviation between seeds while it is not known, as a part of the objective's range."""


@dataclass
class _Spread:
    """Squares of deviations within candidates, and their degrees of freedom."""

    squares: float = 0.0
    freedom: int = 0


@dataclass
class Archive:
    """Candidates by the hash of their definition, in the order in which they came.

    Attributes:
        scoring: what scores are utilities of.
        changes: how many scores have come in; what is derived from them can be kept until it changes.
    """

    scoring: Scoring
    changes: int = 0
    _candidates: dict[str, Candidate] = field(default_factory=dict)
    _by_id: dict[str, Candidate] = field(default_factory=dict)
    _trained: dict[int, list[Candidate]] = field(default_factory=dict)
    _spread: dict[int, _Spread] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._candidates.values())

    def __len__(self) -> int:
        return len(self._candidates)

    def get(self, hash_: str) -> Candidate | None:
        """The candidate whose definition has this hash, if there is one."""
        return self._candidates.get(hash_)

    def by_id(self, id_: str) -> Candidate | None:
        """The candidate with this id, if there is one."""
        return self._by_id.get(id_)

    def add(self, candidate: Candidate) -> None:
        """Take a new candidate in.

        Raises:
            ValueError: its definition is known.
        """
        if candidate.definition.hash in self._candidates:
            raise ValueError(f"candidate {candidate.id} is known")
        self._candidates[candidate.definition.hash] = candidate
        self._by_id[candidate.id] = candidate

    def record(self, candidate: Candidate, steps: int, seed: int, utility: float) -> None:
        """Keep the score of a training with a selection seed."""
        spread = self._spread.setdefault(steps, _Spread())
        known = candidate.scores.get(steps, {})
        if not known:
            self._trained.setdefault(steps, []).append(candidate)
        self._count(spread, candidate, steps, sign=-1)
        candidate.record(steps, seed, utility)
        self._count(spread, candidate, steps, sign=1)
        self.changes += 1

    def _count(self, spread: _Spread, candidate: Candidate, steps: int, *, sign: int) -> None:
        values = [*candidate.scores.get(steps, {}).values()]
        if len(values) > 1 and min(values) > self.scoring.worst:
            mean = math.fsum(values) / len(values)
            spread.squares += sign * math.fsum((value - mean) ** 2 for value in values)
            spread.freedom += sign * (len(values) - 1)

    def trained(self, steps: int) -> list[Candidate]:
        """The candidates with a score at so many steps, in the order of their first."""
        return self._trained.get(steps, [])

    def noise(self, steps: int) -> float:
        """Standard deviation of a score between seeds, pooled over the candidates with several of which none is the
        worst: at so many steps, else at the most steps below, else above at which any candidate has several.

        A hundredth of the objective's range while none has.
        """
        known = [length for length, spread in self._spread.items() if spread.freedom > 0]
        below = [length for length in known if length <= steps]
        if not known:
            return DEFAULT_NOISE * self.scoring.range
        spread = self._spread[max(below) if below else min(known)]
        return math.sqrt(max(0.0, spread.squares) / spread.freedom)
