"""Code generation: an expression becomes straight-line PyTorch in which every shared sub-expression is computed once.

DEAP compiles a tree to nested lambdas, which compute shared sub-trees again and do not compile beyond a depth of about
200. Here each distinct node becomes one assignment, in an order in which operands come first. Coefficients are read
from a tensor ``c``, never written as literals, so that one piece of code serves every coefficient vector of a
structure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from lossevo.expression import safe_math
from lossevo.expression.primitives import TERMINALS, Kind
from lossevo.expression.trees import COEFFICIENT, CONSTANT, Expression, Node

HELPERS = ("safe_divide", "safe_power", "safe_log", "safe_exp", "safe_sqrt", "minimum", "maximum")
"""Functions of :mod:`lossevo.expression.safe_math` that generated code may call."""

LossFunction = Callable[[Mapping[str, Tensor], Tensor], Tensor | float]
"""``loss(inputs, coefficients) -> scalar``; see :func:`compile_expression`."""


@dataclass(frozen=True, slots=True)
class Code:
    """Generated code.

    ``lines`` of a function body, the name or number that holds the ``result``, the inputs and helpers that are used.
    """

    lines: tuple[str, ...]
    result: str
    terminals: tuple[str, ...]
    helpers: tuple[str, ...]
    uses_spatial: bool


def generate(root: Node) -> Code:
    """Straight-line code for ``root``.

    The code expects each used terminal as a tensor of that name, shape (B, C, *spatial), coefficients as 1-D tensor
    ``c``, and ``spatial``, the tuple of spatial dimensions.
    """
    names: dict[Node, str] = {}
    numbers: dict[Node, float] = {}
    lifted: dict[Node, str] = {}
    lines: list[str] = []

    def lift(node: Node) -> str:
        """A REGION value with trailing dimensions, to stand beside VOXEL maps."""
        if node not in lifted:
            name = names[node]
            lifted[node] = f"{name}_map"
            lines.append(f"{lifted[node]} = {name}.reshape(*{name}.shape, *[1 for _ in spatial])")
        return lifted[node]

    def operand(child: Node, kind: Kind) -> str:
        if child in numbers:
            return _literal(numbers[child])
        return lift(child) if child.kind is Kind.REGION and kind is Kind.VOXEL else names[child]

    def visit(node: Node) -> None:
        if node in names or node in numbers:
            return
        for child in node.children:
            visit(child)
        if node.name == CONSTANT:
            numbers[node] = float(node.value)
        elif node.name == COEFFICIENT:
            names[node] = f"c[{node.value}]"
        elif node.primitive is None:
            names[node] = node.name
        elif all(child in numbers for child in node.children):
            numbers[node] = _constant_value(node, [numbers[child] for child in node.children])
        else:
            operands = [operand(child, node.kind) for child in node.children]
            names[node] = f"v{len(lines)}"
            lines.append(f"{names[node]} = {node.primitive.torch.format(*operands)}")

    visit(root)
    source = "\n".join(lines)
    return Code(
        lines=tuple(lines),
        result=operand(root, root.kind),
        terminals=tuple(name for name in TERMINALS if Node(name) in names),
        helpers=tuple(name for name in HELPERS if f"{name}(" in source),
        uses_spatial="spatial" in source,
    )


def _literal(value: float) -> str:
    """A number as an operand in Python source; a power of constants may overflow, and ``inf`` is no literal."""
    text = repr(value) if math.isfinite(value) else f'float("{value}")'
    return f"({text})" if value < 0 else text


def _constant_value(node: Node, operands: list[float]) -> float:
    """What an operation gives on numbers: the operation compiled on coefficients instead, and called once."""
    slots = tuple(Node(COEFFICIENT, value=index) for index in range(len(operands)))
    return float(_compiled(Node(node.name, slots))({}, torch.tensor(operands, dtype=torch.float64)))


@lru_cache(maxsize=4096)
def _compiled(root: Node) -> LossFunction:
    code = generate(root)
    body = [f"{name} = inputs[{name!r}]" for name in code.terminals]
    if code.uses_spatial:
        body.append(f"spatial = tuple(range(2, {code.terminals[0]}.ndim))")
    body += code.lines
    source = "\n    ".join(["def loss(inputs, c):", *body, f"return {code.result}"])
    namespace: dict[str, Any] = {name: getattr(safe_math, name) for name in HELPERS}
    exec(
        compile(source, "<lossevo expression>", "exec"), namespace
    )  # code generated from a checked tree, never from text
    function: LossFunction = namespace["loss"]
    return function


def compile_expression(expression: Expression) -> LossFunction:
    """A function ``loss(inputs, coefficients) -> scalar`` for the structure of ``expression``; cached by structure.

    ``inputs`` maps terminal names to tensors of one shape (B, C, *spatial); ``coefficients`` is a 1-D tensor. An
    expression of constants alone gives a plain number.
    """
    return _compiled(expression.root)
