"""A tree as a proposal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lossevo.experiment.origin import Origin
from lossevo.expression import ExpressionError
from lossevo.search.genetic import Variation
from lossevo.search.strategies.strategy import Proposal


def proposed(variation: Variation, tree: Sequence[Any], origin: Origin) -> Proposal:
    """The proposal of a tree; without an expression beyond the limits of the space or of the language."""
    if not variation.within_limits(tree):
        return Proposal(None, origin)
    try:
        return Proposal(variation.trees.to_expression(tree), origin)
    except ExpressionError:
        return Proposal(None, origin)
