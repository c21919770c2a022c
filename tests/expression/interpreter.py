"""The meaning of the loss language, written a second time: slow, recursive, without generated code or shared results.

Shapes follow the documentation: SCALAR (), REGION (B, C) or (1, C), VOXEL (B, C, *spatial).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from lossevo.expression import Expression, Kind, Node

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
    return {
        "p": uniform().requires_grad_(),
        "y": torch.nn.functional.one_hot(labels, shape[1]).movedim(-1, 1).to(dtype).contiguous(),
        "logp": uniform().log().requires_grad_(),
        "d": 2 * uniform() - 1,
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
    "sum": lambda x: x.flatten(2).sum(2),
    "mean": lambda x: x.flatten(2).sum(2) / x[0, 0].numel(),
    "batch_sum": lambda x: sum(x[b : b + 1].flatten(2).sum(2) for b in range(x.shape[0])),
    "batch_mean": lambda x: sum(x[b : b + 1].flatten(2).sum(2) for b in range(x.shape[0])) / x[:, 0].numel(),
    "class_mean": lambda r: r.sum() / r.numel(),
    "class_sum": lambda r: r.sum() / r.shape[0],
    "foreground_mean": lambda r: r[:, 1:].sum() / r[:, 1:].numel(),
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
        return MEANINGS[node.name](*operands)

    return value(expression.root)
