"""The language of losses: kinds, primitives, trees, canonical form, code generation, rendering.

>>> from lossevo.expression import Expression
>>> dice = Expression.parse("1 - foreground_mean(2 * sum(p * y) / sum(p + y))")
>>> sorted(dice.terminals)
['p', 'y']
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from lossevo.expression.canonical_form import canonical
from lossevo.expression.primitives import DISTANCE_SCALE_MM, PRIMITIVES, TERMINALS, Kind, Primitive, Terminal
from lossevo.expression.rendering import latex, legend, structure_text, text, tree, unicode
from lossevo.expression.trees import COEFFICIENT, CONSTANT, Expression, ExpressionError, Node, constant, renumber

if TYPE_CHECKING:
    from lossevo.expression.codegen import INPUTS, Code, compile_expression, compile_with_gradient, generate

__all__ = [
    "COEFFICIENT",
    "CONSTANT",
    "DISTANCE_SCALE_MM",
    "INPUTS",
    "PRIMITIVES",
    "TERMINALS",
    "Code",
    "Expression",
    "ExpressionError",
    "Kind",
    "Node",
    "Primitive",
    "Terminal",
    "canonical",
    "compile_expression",
    "compile_with_gradient",
    "constant",
    "generate",
    "latex",
    "legend",
    "renumber",
    "structure_text",
    "text",
    "tree",
    "unicode",
]

if not TYPE_CHECKING:
    # Imported when first used: to read, write and simplify formulas takes no PyTorch.
    def __getattr__(name: str) -> object:
        if name in __all__:
            return getattr(import_module("lossevo.expression.codegen"), name)
        raise AttributeError(f"module 'lossevo.expression' has no attribute '{name}'")
