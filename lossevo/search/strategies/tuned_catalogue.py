"""The losses of the literature with their parameters tuned: the rival that every search of formulas has to beat."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from lossevo.experiment.candidate import Candidate
from lossevo.experiment.origin import HandCrafted, Variant
from lossevo.losses import expression_of
from lossevo.losses.tunable import Dimension, expression_dimensions, expression_flags, placed
from lossevo.search.space import SearchSpace
from lossevo.search.strategies.seeds import Seeds
from lossevo.search.strategies.strategy import Proposal
from lossevo.search.strategy_settings import TunedCatalogue
from lossevo.search.valuation import Worth

_DRAWS = 100
"""So often another variant is drawn instead of one that was trained, and then as often with random parameters."""


Values = dict[str, bool | float]


@dataclass(frozen=True, slots=True)
class _Parameters:
    """What can be tuned of a loss: numbers within bounds, and flags with their published values."""

    numbers: Mapping[str, Dimension]
    flags: Mapping[str, bool]

    @classmethod
    def of(cls, name: str) -> Self:
        return cls({found.name: found for found in expression_dimensions(name)}, expression_flags(name))

    @property
    def names(self) -> list[str]:
        return [*self.numbers, *self.flags]

    def chosen(self, values: Values) -> Values:
        """The parameters that are not the published ones."""
        flags = {name: values[name] for name, published in self.flags.items() if values[name] != published}
        return placed(self.numbers.values(), values) | flags

    def values(self, chosen: Mapping[str, bool | float]) -> Values:
        """The inverse of :meth:`chosen`."""
        published = {name: number.start for name, number in self.numbers.items()} | {**self.flags}
        return {name: chosen.get(name, value) for name, value in published.items()}

    def drawn(self, generator: random.Random) -> Values:
        """Each anywhere in its range."""
        numbers = {name: _placed_at(number, generator.random()) for name, number in self.numbers.items()}
        return numbers | {name: generator.random() < 0.5 for name in self.flags}

    def moved(self, values: Values, generator: random.Random, spread: float) -> Values:
        """One or more of them a step further."""
        chosen = [name for name in self.names if generator.random() < 1 / len(self.names)]
        moved = {**values}
        for name in chosen or [generator.choice(self.names)]:
            if number := self.numbers.get(name):
                moved[name] = _placed_at(number, _share(number, values[name]) + generator.gauss(0, spread))
            else:
                moved[name] = not values[name]
        return moved


@dataclass(frozen=True, slots=True)
class _Member:
    """A loss with parameters that has a score."""

    candidate: Candidate
    name: str
    values: Values


class CatalogueTuning:
    """The seeds of the space, then variants of those that are losses with parameters. Never waits.

    A share ``random_share`` of the variants has parameters drawn over all of their ranges, of a loss drawn at random.
    The others are made of the best of a few members drawn at random, as the published losses and their variants are:
    one or more of its parameters move by a normal step of ``spread`` of their range, by logarithm where the parameter
    is searched so. A step beyond a bound is reflected. A flag, as ``batch`` is, changes its value.
    """

    def __init__(self, space: SearchSpace, settings: TunedCatalogue, worth: Worth) -> None:
        self._settings = settings
        self._worth = worth
        self._seeds = Seeds(space)
        names = [name for name in space.seeds if name.isidentifier()]
        self._tunable = {name: found for name in names if (found := _Parameters.of(name)).names}
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
            return self._proposal(name, self._tunable[name].drawn(generator), self._published[name])
        drawn = generator.sample(self._members, min(settings.tournament_size, len(self._members)))
        parent = max(drawn, key=lambda member: self._worth(member.candidate))
        values = self._tunable[parent.name].moved(parent.values, generator, settings.spread)
        return self._proposal(parent.name, values, parent.candidate)

    def _proposal(self, name: str, values: Values, parent: Candidate) -> Proposal:
        chosen = self._tunable[name].chosen(values)
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
            self._members.append(_Member(candidate, origin.name, self._tunable[origin.name].values(chosen)))

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
