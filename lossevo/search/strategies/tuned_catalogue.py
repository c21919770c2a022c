"""The losses of the literature with their parameters tuned: the rival that every search of formulas has to beat."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lossevo.experiment.candidate import Candidate
from lossevo.experiment.origin import HandCrafted, Variant
from lossevo.losses import expression_of
from lossevo.losses.tunable import Dimension, expression_dimensions, placed
from lossevo.search.space import SearchSpace, TunedCatalogue
from lossevo.search.strategies.seeds import Seeds
from lossevo.search.strategies.strategy import Proposal
from lossevo.search.valuation import Worth

_DRAWS = 100
"""So often another variant is drawn instead of one that was trained, and then as often with random parameters."""


@dataclass(frozen=True, slots=True)
class _Member:
    """A loss with parameters that has a score."""

    candidate: Candidate
    name: str
    values: Mapping[str, float]


class CatalogueTuning:
    """The seeds of the space, then variants of those that are losses with parameters. Never waits.

    A share ``random_share`` of the variants has parameters drawn over all of their ranges, of a loss drawn at random.
    The others are made of the best of a few members drawn at random, as the published losses and their variants are:
    one or more of its parameters move by a normal step of ``spread`` of their range, by logarithm where the parameter
    is searched so. A step beyond a bound is reflected.
    """

    def __init__(self, space: SearchSpace, settings: TunedCatalogue, worth: Worth) -> None:
        self._settings = settings
        self._worth = worth
        self._seeds = Seeds(space)
        names = [name for name in space.seeds if name.isidentifier()]
        self._tunable = {name: found for name in names if (found := expression_dimensions(name))}
        self._published: dict[str, Candidate] = {}
        self._members: list[_Member] = []
        self._taken: set[str] = set()
        self._told: set[str] = set()

    def ask(self, generator: random.Random) -> Proposal | None:
        """A seed, or a variant that was not trained yet."""
        if seed := self._seeds.ask():
            return seed
        for draw in range(2 * _DRAWS):
            proposal = self._variant(generator, anywhere=draw >= _DRAWS)
            if proposal.expression is not None and proposal.expression.hash not in self._taken:
                return proposal
        return Proposal(None, proposal.origin)

    def _variant(self, generator: random.Random, *, anywhere: bool) -> Proposal:
        settings = self._settings
        if anywhere or not self._members or generator.random() < settings.random_share:
            name = generator.choice(list(self._published))
            values = {found.name: _placed_at(found, generator.random()) for found in self._tunable[name]}
            return self._proposal(name, values, self._published[name])
        drawn = generator.sample(self._members, min(settings.tournament_size, len(self._members)))
        parent = max(drawn, key=lambda member: self._worth(member.candidate))
        known = self._tunable[parent.name]
        moved = [found for found in known if generator.random() < 0.5] or [generator.choice(known)]
        values = {**parent.values}
        for found in moved:
            values[found.name] = _placed_at(
                found, _share(found, values[found.name]) + generator.gauss(0, settings.spread)
            )
        return self._proposal(parent.name, values, parent.candidate)

    def _proposal(self, name: str, values: Mapping[str, float], parent: Candidate) -> Proposal:
        chosen = placed(self._tunable[name], values)
        return Proposal(expression_of(name, **chosen), Variant((parent.id,), name, chosen))

    def take(self, candidate: Candidate) -> None:
        """Know that it is trained."""
        self._seeds.take(candidate)
        self._taken.add(candidate.definition.hash)
        if isinstance(candidate.origin, HandCrafted) and candidate.origin.name in self._tunable:
            self._published[candidate.origin.name] = candidate

    def tell(self, candidate: Candidate) -> None:
        """Let a candidate in with its first score, if it has parameters."""
        origin = candidate.origin
        if candidate.definition.hash in self._told or not isinstance(origin, HandCrafted | Variant):
            return
        self._told.add(candidate.definition.hash)
        if origin.name in self._tunable:
            chosen = origin.parameters if isinstance(origin, Variant) else {}
            values = {found.name: chosen.get(found.name, found.start) for found in self._tunable[origin.name]}
            self._members.append(_Member(candidate, origin.name, values))

    def state(self) -> dict[str, Any]:
        """Nothing: members follow from what was told."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def _share(dimension: Dimension, value: float) -> float:
    """Where a value lies between the bounds, from 0 to 1, on the scale of its search."""
    low, high = dimension.low, dimension.high
    if dimension.by_logarithm:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def _placed_at(dimension: Dimension, share: float) -> float:
    """The inverse of :func:`_share`; beyond the bounds it is reflected."""
    share = share % 2
    share = 2 - share if share > 1 else share
    low, high = dimension.low, dimension.high
    if dimension.by_logarithm:
        return dimension.rounded(math.exp(math.log(low) + share * (math.log(high) - math.log(low))))
    return dimension.rounded(low + share * (high - low))
