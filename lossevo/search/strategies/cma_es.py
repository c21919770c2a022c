"""CMA-ES on the parameters of one formula, generation by generation (Hansen's ``cma``)."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lossevo.experiment.candidate import Candidate
from lossevo.experiment.origin import Evolved
from lossevo.expression import Expression, ExpressionError
from lossevo.search.space import SearchSpace
from lossevo.search.strategies.coefficients import evolution_strategy, readable
from lossevo.search.strategies.seeds import Seeds
from lossevo.search.strategies.strategy import Proposal
from lossevo.search.strategy_settings import CmaEs
from lossevo.search.valuation import Worth

SAMPLE = Evolved("cma-es")
MEAN = Evolved("cma-es mean")
_DRAWS = 1000
"""So often another vector is drawn instead of one that is not to be trained."""

Vector = NDArray[np.float64]


class Form:
    """A formula with parameters, each of which may stand in several places.

    Args:
        formula: with ``{0}``, ``{1}``, … where the parameters stand.
        start: the parameters that a search begins with.
        by_logarithm: whether the logarithms of positive parameters are searched, not themselves.
    """

    def __init__(self, formula: str, start: Sequence[float], *, by_logarithm: bool = False) -> None:
        self._template = Expression.parse(formula.format(*(f"{number}.0" for number in range(len(start)))))
        self._of_slot = [int(number) for number in self._template.coefficients]
        self._by_logarithm = by_logarithm
        values = np.array(start, dtype=np.float64)
        self.start: Vector = np.log(values) if by_logarithm else values

    def parameters(self, vector: Vector) -> list[float]:
        """The parameters at a point of the search, with the digits that they have in the formula."""
        with np.errstate(over="ignore"):
            values = np.exp(vector) if self._by_logarithm else vector
        return [readable(value) for value in values]

    def expression(self, vector: Vector) -> Expression:
        """The formula at a point of the search.

        Raises:
            ExpressionError: a parameter is beyond the limits of the language.
        """
        parameters = self.parameters(vector)
        return self._template.with_coefficients([parameters[number] for number in self._of_slot])

    def vector(self, expression: Expression) -> Vector | None:
        """The inverse of :meth:`expression`; None if it is another formula."""
        if expression.root != self._template.root:
            return None
        values = np.zeros(len(self.start))
        values[self._of_slot] = expression.coefficients
        if not self._by_logarithm:
            return values
        return np.log(values) if bool((values > 0).all()) else None


def always(parameters: Sequence[float]) -> bool:
    """Accepts all parameters."""
    return True


class CmaEsSearch:
    """The seeds of the space, then generations of vectors; waits at the end of each.

    A vector that may not be trained is drawn again. After each generation the mean of the distribution is trained,
    too: under noise it is a better guess than the best vector. CMA-ES is not told what it scores.

    What it knows follows from what it was told. A vector is drawn from the distribution when it is asked for, so one
    that is turned down leaves nothing behind.

    Args:
        space: whose seeds are trained first.
        settings: as the space states them.
        form: the formula.
        size: vectors in a generation.
        worth: what a candidate is worth.
        accepts: whether a formula with these parameters may be trained.
    """

    def __init__(
        self,
        space: SearchSpace,
        settings: CmaEs,
        form: Form,
        size: int,
        worth: Worth,
        accepts: Callable[[Sequence[float]], bool],
    ) -> None:
        self.courses = 0
        self._settings = settings
        self._form = form
        self._size = size
        self._worth = worth
        self._accepts = accepts
        self._seeds = Seeds(space)
        self._taken: set[str] = set()
        self._generation: list[tuple[Candidate, Vector]] = []
        self._scored: set[str] = set()
        self._mean: Expression | None = None
        self._begin()

    def _begin(self) -> None:
        """Begin a course."""
        # What it draws itself does not count.
        own = np.random.default_rng(0)
        self._cma = evolution_strategy(self._form.start, self._settings.sigma, self._size, own)
        self.courses += 1

    def ask(self, generator: random.Random) -> Proposal | None:
        """A seed, the mean after a generation, or a vector of the next one; None until a generation has its scores."""
        if seed := self._seeds.ask():
            return seed
        if self._mean is not None:
            return Proposal(self._mean, MEAN, given=True)
        if len(self._generation) == self._size:
            return None
        for _ in range(_DRAWS):
            found = self._written(self._drawn(generator))
            if found is not None:
                return Proposal(found, SAMPLE)
        return Proposal(None, SAMPLE)

    def _drawn(self, generator: random.Random) -> Vector:
        """A vector of the distribution; the distribution stays as it is."""
        distribution = self._cma
        distribution.sm.update_now()
        normal = np.array([generator.gauss(0, 1) for _ in self._form.start])
        step = distribution.sigma_vec * distribution.sm.transform(normal)
        return np.asarray(distribution.mean + distribution.sigma * step)

    def _written(self, vector: Vector) -> Expression | None:
        """The formula at this point; None if it may not be trained, or was."""
        try:
            expression = self._form.expression(vector)
        except ExpressionError:
            return None
        accepted = self._accepts(self._form.parameters(vector)) and expression.hash not in self._taken
        return expression if accepted else None

    def take(self, candidate: Candidate) -> None:
        """Count it towards the generation."""
        self._seeds.take(candidate)
        self._taken.add(candidate.definition.hash)
        if candidate.origin == MEAN:
            self._mean = None
        elif candidate.origin == SAMPLE and (vector := self._form.vector(candidate.expression)) is not None:
            self._generation.append((candidate, vector))

    def tell(self, candidate: Candidate) -> None:
        """Move the distribution when all of a generation have a score."""
        if any(member is candidate for member, _ in self._generation):
            self._scored.add(candidate.definition.hash)
        if len(self._scored) < self._size:
            return
        distribution = self._cma
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            distribution.ask()  # it wants to be asked; what was drawn from it is the generation
            distribution.tell(
                [vector for _, vector in self._generation],
                [-self._worth(member) for member, _ in self._generation],
                check_points=False,  # nor does it know that they are samples of its own
            )
        self._generation, self._scored = [], set()
        self._mean = self._written(np.asarray(distribution.mean))
        if distribution.stop() or distribution.countiter >= self._settings.generations:
            self._begin()

    def state(self) -> dict[str, Any]:
        """Nothing: the distribution follows from what was told."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
