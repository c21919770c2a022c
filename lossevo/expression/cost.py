"""What the generated gradient of an expression costs, estimated: with labels, or with a one-hot target.

With labels, what concerns a voxel's true class is computed once per voxel instead of once per voxel and class, but has
to be gathered and scattered. What pays depends on the number of classes and on how dear the operations are. The unit is
a product, per number, on a CPU. ``benchmarks/labels.py`` measures both: where one is much faster it is chosen, and
where they are close, or new memory happens to be cheap, the other may be.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from lossevo.expression.codegen import lower_with_gradient
from lossevo.expression.graph import reachable
from lossevo.expression.trees import Node
from lossevo.expression.values import Extent, Value

_DEAR: Mapping[str, float] = MappingProxyType(
    {"tanh": 16, "power": 12, "softplus": 8, "log": 6, "exp": 5, "sqrt": 3, "guard": 3, "below": 3, "sigmoid": 2}
    | {"sum": 0.5, "mean": 0.5, "batch_sum": 0.5, "batch_mean": 0.5}
)
"""Elementwise operations and sums that cost something else than a product."""

_PER_VOXEL: Mapping[str, float] = MappingProxyType(
    {"one_hot": 13, "plus_true": 12, "at_true": 10, "by_class": 12, "lookup": 3}
)
"""What labels cost: per voxel, however many classes there are."""

_INPUTS: Mapping[str, float] = MappingProxyType({"p": 6, "logp": 5, "y": 2})
_MEMORY = 0.5
"""A map that has left the caches, as about half of all results have."""


@lru_cache(maxsize=4096)
def labels_pay(root: Node, classes: int) -> bool:
    """Whether loss and gradient of a tree are computed sooner with labels than with a one-hot target."""
    return _cost(root, classes, hard=True) < _cost(root, classes, hard=False)


def _cost(root: Node, classes: int, *, hard: bool) -> float:
    made, gradient = lower_with_gradient(root, hard=hard)
    values = reachable([made[root], gradient])
    users = (value for value in values if any(operand.detail == "logp" for operand in value.operands))
    only_true_log = hard and all(value.operation == "at_true" for value in users)
    return sum(_of(value, classes, only_true_log=only_true_log) for value in values)


def _of(value: Value, classes: int, *, only_true_log: bool) -> float:
    if value.operation == "input":
        if value.detail == "logp" and only_true_log:
            return _DEAR["log"]
        return (_INPUTS[str(value.detail)] + _MEMORY) * classes if value.detail in _INPUTS else 0.0
    if value.operation in _PER_VOXEL:
        return _PER_VOXEL[value.operation] + ((0.5 + _MEMORY) * classes if value.operation == "one_hot" else 0)
    largest = max((value.extent, *(operand.extent for operand in value.operands)))
    numbers = {Extent.VOXEL: classes, Extent.PIXEL: 1}.get(largest, 0)
    return (_DEAR.get(value.operation, 1.0) + (_MEMORY / 2 if value.extent is Extent.VOXEL else 0)) * numbers
