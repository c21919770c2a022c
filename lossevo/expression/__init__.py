"""The language of losses: kinds, primitives, trees, canonical form, code generation, rendering.

>>> from lossevo.expression import Expression
>>> dice = Expression.parse("1 - foreground_mean(2 * sum(p * y) / sum(p + y))")
>>> sorted(dice.terminals)
['p', 'y']
"""

from lossevo.expression.canonical_form import canonical
from lossevo.expression.codegen import (
    Code,
    compile_expression,
    compile_with_gradient,
    generate,
)
from lossevo.expression.primitives import DISTANCE_SCALE_MM, PRIMITIVES, TERMINALS, Kind, Primitive, Terminal
from lossevo.expression.rendering import latex, structure_text, text, tree, unicode
from lossevo.expression.trees import COEFFICIENT, CONSTANT, Expression, ExpressionError, Node, constant, renumber

__all__ = [
    "COEFFICIENT",
    "CONSTANT",
    "DISTANCE_SCALE_MM",
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
    "renumber",
    "structure_text",
    "text",
    "tree",
    "unicode",
]
