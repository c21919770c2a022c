"""The losses that a search space begins with, proposed before anything else."""

from __future__ import annotations

from lossevo.experiment.candidate import Candidate
from lossevo.experiment.origin import HandCrafted, Seed
from lossevo.search.space import SearchSpace
from lossevo.search.strategies.strategy import Proposal


def given_by(space: SearchSpace) -> list[Proposal]:
    """The seeds of a space in its order, each once."""
    found: dict[str, Proposal] = {}
    for name, expression in space.seed_expressions().items():
        origin = HandCrafted(name) if name.isidentifier() else Seed()
        found.setdefault(expression.hash, Proposal(expression, origin, given=True))
    return [*found.values()]


class Seeds:
    """The seeds of a space that are not trained yet."""

    def __init__(self, space: SearchSpace) -> None:
        self._left = {seed.expression.hash: seed for seed in given_by(space) if seed.expression is not None}

    def __len__(self) -> int:
        return len(self._left)

    def ask(self) -> Proposal | None:
        """The next; None after the last."""
        return next(iter(self._left.values()), None)

    def take(self, candidate: Candidate) -> None:
        """Know that a seed is trained."""
        self._left.pop(candidate.definition.hash, None)
