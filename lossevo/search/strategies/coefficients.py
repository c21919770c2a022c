"""CMA-ES on the coefficients of one structure, by ask and tell (Hansen's ``cma``)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from lossevo.expression import COEFFICIENT, CONSTANT, Expression, Node
from lossevo.search.space import Tuning

_LEAST_POPULATION = 4
LEAST_BUDGET = _LEAST_POPULATION + 1
"""Trainings of the smallest generation and of what it favours."""
_MULTIPLICATIVE = ("mul", "div", "neg")
_CURVED = ("log_mean_exp", "batch_log_mean_exp")
"""The only reductions that a positive factor does not come out of."""


def evolution_strategy(start: np.ndarray, sigma: float, population: int, generator: np.random.Generator) -> Any:
    """``cma``'s strategy: it says nothing, reads no file, and draws from ``generator`` alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it misses matplotlib, which only its plots need
        import cma

        options = {
            "popsize": population,
            "randn": lambda *shape: generator.standard_normal(shape),
            "seed": math.nan,  # leaves numpy's global generator alone
            "signals_filename": "",  # else it obeys a file of this name in the working folder
            "verbose": -9,
            "verb_log": 0,
        }
        return cma.CMAEvolutionStrategy(start, sigma, options)


def readable(value: float) -> float:
    """Six digits: more than any training can tell apart, and formulas that can be read."""
    return float(f"{value:.6g}")


class CoefficientTuner:
    """Ask for coefficient vectors, tell what they are worth; larger is better.

    The first point asked for is the start itself (injected), as PySR does it, so tuning knows what it has to beat. On
    a log scale the search runs over log|c| and every coefficient keeps its sign; zeros are moved linearly.
    """

    def __init__(
        self,
        expression: Expression,
        slots: Sequence[int],
        settings: Tuning,
        generator: np.random.Generator,
        *,
        budget: int | None = None,
    ) -> None:
        if not slots:
            raise ValueError("an expression without coefficients cannot be tuned")
        self.expression = expression
        self._slots = list(slots)
        start = np.array(expression.coefficients)[self._slots]
        self._log = (settings.scale == "log") & (start != 0)
        self._sign = np.sign(start)
        default = 4 + int(3 * math.log(len(self._slots)))
        # Two small generations teach more than none where the budget has no room for one of the usual size.
        size = default if budget is None else min(default, max(_LEAST_POPULATION, budget // 2))
        self._strategy = evolution_strategy(self._encode(start), settings.sigma, size, generator)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._strategy.inject([self._encode(start)], force=True)

    @property
    def population(self) -> int:
        """Vectors per generation, 4 + ⌊3 ln n⌋ for n coefficients, fewer if the budget is small."""
        return int(self._strategy.popsize)

    def ask(self) -> list[Expression]:
        """The next generation."""
        return [self._decode(vector) for vector in self._strategy.ask()]

    def tell(self, generation: Sequence[Expression], values: Sequence[float]) -> None:
        """What the expressions of a generation are worth."""
        vectors = [self._encode(np.array(expression.coefficients)[self._slots]) for expression in generation]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._strategy.tell(vectors, [-value for value in values])

    def favourite(self) -> Expression:
        """The mean of the search distribution: under noise a better guess than the best vector seen."""
        return self._decode(self._strategy.mean)

    def _encode(self, coefficients: np.ndarray) -> np.ndarray:
        return np.where(self._log, np.log(np.where(self._log, np.abs(coefficients), 1.0)), coefficients)

    def _decode(self, vector: np.ndarray) -> Expression:
        exponents = np.where(self._log, np.clip(vector, -20.0, 20.0), 0.0)
        values = np.where(self._log, self._sign * np.exp(exponents), vector)
        coefficients = list(self.expression.coefficients)
        for slot, value in zip(self._slots, values, strict=True):
            coefficients[slot] = readable(value)
        return self.expression.with_coefficients(coefficients)


def with_slots(expression: Expression, settings: Tuning) -> Expression:
    """The expression with the coefficient slots that ``settings`` asks for; one per node if it has none of its own."""
    if settings.coefficients == "per_node" or not expression.coefficients:
        return per_node(expression)
    return expression


def per_node(expression: Expression) -> Expression:
    """One coefficient, initially 1, per node, but for those that another absorbs (GLO's second phase).

    Within a product or quotient the operands' factors are absorbed by that of the whole; a coefficient leaf needs no
    factor; a reduction absorbs the factor of its operand, because it is linear. The whole loss gets none: its scale
    does not matter to the optimiser.
    """
    values = list(expression.coefficients)

    def factor(node: Node) -> Node:
        values.append(1.0)
        return Node("mul", (Node(COEFFICIENT, value=len(values) - 1), node))

    def visit(node: Node, absorbed: bool) -> Node:
        if node.name == COEFFICIENT:
            return node
        reduces = node.primitive is not None and not node.primitive.elementwise and node.name not in _CURVED
        linear = node.name in _MULTIPLICATIVE or reduces
        children = tuple(visit(child, linear) for child in node.children)
        rebuilt = Node(node.name, children, node.value) if children else node
        if node.name == CONSTANT and node.value == 0:
            return rebuilt
        return rebuilt if absorbed else factor(rebuilt)

    return Expression.of(visit(expression.root, True), values)
