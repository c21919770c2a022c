"""The meaning of the loss language, written a second time: slow, recursive, without generated code or shared results.

Shapes follow the documentation: SCALAR (), REGION (B, C) or (1, C), VOXEL (B, C, *spatial).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, product

import torch
from torch import Tensor

from lossevo.expression import PRIMITIVES, Expression, Kind, Node

EPSILON = 1e-4


def random_inputs(shape: tuple[int, ...], *, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """A random tensor (B, C, *spatial) for every terminal, in its range.

    p and log p are unrelated leaves: what is zero because they are one distribution (Σp - 1) is zero up to rounding,
    and rounding would decide about signs and clamps.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform() -> Tensor:
        return torch.rand(shape, generator=generator, dtype=dtype)

    labels = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    if shape[0] > 1 and shape[1] > 2:  # class 1 is in each image, the last one not in the first
        labels[0][labels[0] == shape[1] - 1] = 0
        labels.flatten(1)[:, 0] = 1
    return {
        "p": uniform().requires_grad_(),
        "y": torch.nn.functional.one_hot(labels, shape[1]).movedim(-1, 1).to(dtype).contiguous(),
        "logp": uniform().log().requires_grad_(),
        "d": 2 * uniform() - 1,
        "m": (20 * uniform() - 10).requires_grad_(),
        "t": torch.tensor(0.3, dtype=dtype),
    }


def gradients(value: Tensor, of: Sequence[Tensor]) -> list[Tensor]:
    """The gradient of a scalar; zero for what it does not depend on."""
    if not value.requires_grad:
        return [torch.zeros_like(tensor) for tensor in of]
    return list(torch.autograd.grad(value, of, retain_graph=True, materialize_grads=True))


def _away_from_zero(x: Tensor) -> Tensor:
    sign = torch.where(x < 0, -torch.ones_like(x), torch.ones_like(x))
    return torch.where(x.abs() >= EPSILON, x, sign * EPSILON)


def _at_least(x: Tensor, bound: float) -> Tensor:
    return torch.where(x >= bound, x, torch.full_like(x, bound))


def _at_most(x: Tensor, bound: float) -> Tensor:
    return torch.where(x <= bound, x, torch.full_like(x, bound))


def _curve(x: Tensor, *parameters: Tensor) -> Tensor:
    """By de Casteljau's construction from the control points."""
    increments = torch.stack([torch.ones_like(parameters[0]), *(parameter.abs() for parameter in parameters)])
    points = [
        torch.zeros_like(x),
        *((increments.cumsum(0) / increments.sum(0))[i] + 0 * x for i in range(len(increments))),
    ]
    x = x.clamp(0, 1)
    while len(points) > 1:
        points = [(1 - x) * a + x * b for a, b in pairwise(points)]
    return points[0]


def _neighbours(x: Tensor) -> Tensor:
    """The 3^n voxels around each voxel, in a last dimension; beyond the image is its nearest voxel."""
    axes = range(2, x.ndim)
    around = []
    for offsets in product((-1, 0, 1), repeat=len(axes)):
        index = [slice(None), slice(None)]
        moved = x
        for axis, offset in zip(axes, offsets, strict=True):
            index = (torch.arange(x.shape[axis]) + offset).clamp(0, x.shape[axis] - 1)
            moved = moved.index_select(axis, index)
        around.append(moved)
    return torch.stack(around, -1)


def _binomial(axes: int) -> Tensor:
    weights = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64) / 4
    return torch.tensor([math.prod(w) for w in product(weights.tolist(), repeat=axes)], dtype=torch.float64)


def _present(r: Tensor, y: Tensor) -> Tensor:
    """1 for the foreground classes that each row of r has."""
    voxels = y.flatten(2).sum(2)
    if r.shape[0] == 1:
        voxels = voxels.sum(0, keepdim=True)
    present = (voxels >= 0.5).to(r.dtype)
    present[:, 0] = 0
    return present


READS_TARGET = frozenset(
    name for name in PRIMITIVES if name.endswith(("target_mean", "complement_mean", "topk_mean", "log_mean_exp"))
) | {"present_mean", "frequency_mean"}
"""Primitives whose meaning takes the target, too."""

MEANINGS: Mapping[str, Callable[..., Tensor]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / _away_from_zero(b),
    "neg": lambda a: 0 - a,
    "pow": lambda a, b: torch.pow(_at_least(a, EPSILON), b),
    "log": lambda a: torch.log(_at_least(a, EPSILON)),
    "exp": lambda a: torch.exp(_at_most(a, 20)),
    "sqrt": lambda a: torch.sqrt(_at_least(a, EPSILON)),
    "square": lambda a: torch.pow(a, 2),
    "abs": torch.abs,
    "tanh": torch.tanh,
    "sigmoid": lambda a: torch.special.expit(a),
    "min": torch.minimum,
    "max": torch.maximum,
    "softplus": lambda a: torch.logaddexp(a, torch.zeros_like(a)),
    "greater": lambda a, b: torch.special.expit(10 * (a - b)),
    **{f"curve{n}": _curve for n in range(1, 5)},
    "avg_pool": lambda x: _neighbours(x).sum(-1) / 3 ** (x.ndim - 2),
    "gaussian": lambda x: (_neighbours(x) * _binomial(x.ndim - 2).to(x)).sum(-1),
    "max_pool": lambda x: _neighbours(x).amax(-1),
    "min_pool": lambda x: _neighbours(x).amin(-1),
    "morphological_gradient": lambda x: _neighbours(x).amax(-1) - _neighbours(x).amin(-1),
    "sum": lambda x: x.flatten(2).sum(2),
    "mean": lambda x: x.flatten(2).sum(2) / x[0, 0].numel(),
    "batch_sum": lambda x: sum(x[b : b + 1].flatten(2).sum(2) for b in range(x.shape[0])),
    "batch_mean": lambda x: sum(x[b : b + 1].flatten(2).sum(2) for b in range(x.shape[0])) / x[:, 0].numel(),
    **{
        f"{prefix}{name}": lambda x, y, over=over, reduce=reduce: reduce(over(x), over(y))
        for prefix, over in (("", lambda x: x.flatten(2)), ("batch_", lambda x: x.movedim(1, 0).flatten(1)[None]))
        for name, reduce in (
            ("target_mean", lambda x, y: (x * y).sum(2) / _away_from_zero(y.sum(2))),
            ("complement_mean", lambda x, y: (x * (1 - y)).sum(2) / _away_from_zero((1 - y).sum(2))),
            ("topk_mean", lambda x, y: x.sort(2, descending=True).values[..., : math.ceil(x.shape[2] / 10)].mean(2)),
            ("log_mean_exp", lambda x, y: x.logsumexp(2) - math.log(x.shape[2])),
        )
    },
    "class_mean": lambda r: r.sum() / r.numel(),
    "class_sum": lambda r: r.sum() / r.shape[0],
    "foreground_mean": lambda r: r[:, 1:].sum() / r[:, 1:].numel(),
    "present_mean": lambda r, y: (r * _present(r, y)).sum() / _away_from_zero(_present(r, y).sum()),
    "frequency_mean": lambda r, y: (r * y.mean((0, *range(2, y.ndim)))).sum() / r.shape[0],
    "class_max": lambda r: r.amax(1).mean(),
}


class NearJump(Exception):
    """A reduced denominator so close to zero that rounding decides about its sign."""


def interpret(expression: Expression, inputs: Mapping[str, Tensor], coefficients: Tensor) -> Tensor:
    """The value of ``expression``, a scalar tensor.

    Raises:
        NearJump: the value cannot be compared with another implementation's.
    """
    like = next(iter(inputs.values()))

    def value(node: Node) -> Tensor:
        if node.name == "constant":
            return torch.tensor(float(node.value), dtype=like.dtype)
        if node.name == "coefficient":
            return coefficients[node.value]
        if node.name in inputs:
            return inputs[node.name]
        if node.name == "f":
            return inputs["y"].mean((0, *range(2, like.ndim)))[None]
        operands = [value(child) for child in node.children]
        if node.name == "div" and any(inner.kind is Kind.REGION for inner in node.children[1].walk()):
            denominator = operands[1].detach()
            if bool((denominator.abs() < 1e-9).any()) and operands[1].requires_grad:
                raise NearJump
        if node.kind is Kind.VOXEL:
            operands = [
                operand.reshape(*operand.shape, *[1] * (like.ndim - 2)) if child.kind is Kind.REGION else operand
                for operand, child in zip(operands, node.children, strict=True)
            ]
        if node.name in READS_TARGET:
            operands.append(inputs["y"])
        return MEANINGS[node.name](*operands)

    return value(expression.root)
