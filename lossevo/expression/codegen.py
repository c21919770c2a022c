"""Code generation: an expression becomes straight-line PyTorch in which every shared sub-expression is computed once.

DEAP compiles a tree to nested lambdas, which compute shared sub-trees again and do not compile beyond a depth of about
200. Here each distinct value of the expression's graph becomes one assignment, operands first. Coefficients are read
from a tensor ``c``, never written as literals, so that one piece of code serves every coefficient vector of a
structure. Where a formula is itself not finite (a power that overflows), what comes out need not be what its operations
one by one would give: sums and products are taken apart and put together again.

:func:`generate` and :func:`compile_expression` give the loss alone, for PyTorch to differentiate.
:func:`compile_with_gradient` gives the loss and its gradient with respect to the logits in one function: what both
need is computed once, and nothing but the gradient has to be kept for the backward pass.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from lossevo.expression import neighbourhoods, safe_math
from lossevo.expression.differentiation import gradient_of_logits
from lossevo.expression.graph import Graph, reachable
from lossevo.expression.labels import LABEL_FUNCTIONS
from lossevo.expression.memory import MEMORY_FUNCTIONS
from lossevo.expression.operations import OPERATIONS
from lossevo.expression.placement import WITH_MEMORY, full, non_negative
from lossevo.expression.primitives import EPSILON, TERMINALS, Kind
from lossevo.expression.trees import COEFFICIENT, CONSTANT, Expression, Node
from lossevo.expression.values import Extent, Value

INPUTS = ("logp", "p", "y", "d", "m", "t")
"""What generated code may be given: the maps, and the training's progress. log p comes first because p is then one
exponential away."""

HELPERS: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {
        "guard": safe_math.guard,
        **{
            function.__name__: function
            for function in (
                neighbourhoods.avg_pool,
                neighbourhoods.gaussian,
                neighbourhoods.max_pool,
                neighbourhoods.max_pool_gradient,
                neighbourhoods.margin_gradient,
                neighbourhoods.top_weights,
                neighbourhoods.max_weights,
            )
        },
    }
)
"""Functions that generated code may call; an exported ``loss.py`` has copies."""

LossFunction = Callable[[Mapping[str, Tensor], Tensor], Tensor | float]
"""``loss(inputs, coefficients) -> scalar``; see :func:`compile_expression`."""

GradientFunction = Callable[[Mapping[str, Tensor], Tensor], tuple[Tensor | float, Tensor | float]]
"""``loss(inputs, coefficients) -> scalar, gradient``; see :func:`compile_with_gradient`."""


@dataclass(frozen=True, slots=True)
class Code:
    """Generated code.

    ``lines`` of a function body, the names or numbers that hold the ``results``, the inputs and helpers that are used.
    """

    lines: tuple[str, ...]
    results: tuple[str, ...]
    inputs: tuple[str, ...]
    helpers: tuple[str, ...]
    uses_spatial: bool

    @property
    def result(self) -> str:
        """The only result."""
        (result,) = self.results
        return result

    @property
    def map(self) -> str:
        """The name of a map (B, C, *spatial) that the code is given."""
        return next((name for name in self.inputs if name != "t"), "logits")


def lower(root: Node, graph: Graph) -> Value:
    """The value of a tree in ``graph``."""
    return lower_all(root, graph)[root]


def lower_all(root: Node, graph: Graph) -> dict[Node, Value]:
    """The values of a tree and of every tree in it, in ``graph``; operands first."""
    values: dict[Node, Value] = {}
    of_batch: dict[Node, bool] = {}

    def is_of_batch(node: Node) -> bool:
        """Whether it is written with one number for each class of the batch, whatever it is simplified to."""
        if node not in of_batch:
            primitive = node.primitive
            of_batch[node] = (
                primitive.over_batch
                if primitive is not None and primitive.source is Kind.VOXEL
                else all(is_of_batch(child) for child in node.children if child.kind is Kind.REGION)
            )
        return of_batch[node]

    def value(node: Node) -> Value:
        if node not in values:
            values[node] = made(node)
        return values[node]

    def made(node: Node) -> Value:
        if node.name == CONSTANT:
            return graph.number(node.value)
        if node.name == COEFFICIENT:
            return graph.coefficient(node.value)
        if node.primitive is None:
            terminal = TERMINALS[node.name]
            return terminal.build(graph.input(terminal.input))
        operands = [value(child) for child in node.children]
        if node.primitive.build_of_batch is not None and is_of_batch(node.children[0]):
            return node.primitive.build_of_batch(*operands)
        return node.primitive.build(*operands)

    value(root)
    return values


@lru_cache(maxsize=16)
def lower_with_gradient(root: Node, *, hard: bool) -> tuple[Mapping[Node, Value], Value]:
    """The values of a tree and of every tree in it, and the gradient with respect to the logits, in one graph.

    With ``hard`` the target is labels. The last few are kept: what may overflow, what it costs and the code are asked
    for one after the other.
    """
    values = lower_all(root, Graph(hard=hard))
    return MappingProxyType(values), gradient_of_logits(values[root])


def generate(root: Node) -> Code:
    """Straight-line code for ``root``.

    The code expects each input that it uses as a tensor of that name, shape (B, C, *spatial) but for the number ``t``,
    coefficients as 1-D tensor ``c``, and ``spatial``, the tuple of spatial dimensions.
    """
    return _Writer([lower(root, Graph())], like=next(_maps(root), ""), frugal=False).code()


def generate_with_gradient(root: Node, *, hard: bool = False) -> Code:
    """Code as of :func:`generate` with two results: the loss and its gradient with respect to the logits.

    Memory is used again as soon as it can be, so that PyTorch could not differentiate it. It may need p where only
    log p is written, and ``logits``. With ``hard`` it expects ``labels`` (B, 1, *spatial) in place of y.
    """
    values, gradient = lower_with_gradient(root, hard=hard)
    return _Writer([values[root], gradient], like="logits", frugal=True).code()


def _maps(root: Node) -> Iterator[str]:
    """The maps that the terminals of a tree are made of."""
    used = {TERMINALS[node.name].input for node in root.walk() if node.name in TERMINALS}
    return (name for name in INPUTS if name in used and name != "t")


class _Writer:
    """Writes the values that the results are made of, one line each.

    ``like`` names a tensor of the shape (B, C, *spatial) where one is needed. With ``frugal`` a value that is no longer
    needed gives its memory to what is made of it, or is deleted.
    """

    def __init__(self, results: Sequence[Value], *, like: str, frugal: bool) -> None:
        self.results = results
        self.like = like
        self.frugal = frugal
        self.values = reachable(results)
        self.inputs = {str(value.detail) for value in self.values if value.operation == "input"}
        if any(value.operation in ("size", "foreground") for value in self.values):
            self.inputs.add(like)
        self.only_true_log = frugal and all(
            value.operation == "at_true" for value in self.values if any(x.detail == "logp" for x in value.operands)
        )
        if self.only_true_log and "logp" in self.inputs:
            self.inputs = self.inputs - {"logp"} | {"p"}
        self.fused = self._fused() if frugal else set()
        self.uses = Counter(
            operand for value in self.values if value not in self.fused for operand in self._operands(value)
        )
        self.uses.update(results)
        self.names: dict[Value, str] = {}
        self.full = full(self.values)
        self.non_negative = non_negative(self.values) if frugal else set()
        self.lifted: dict[Value, str] = {}
        self.lines: list[str] = []

    def code(self) -> Code:
        """All lines."""
        for value in self.values:
            if value not in self.fused:
                self.names[value] = self._leaf(value) if not value.operands else self._line(value)
        source = "\n".join(self.lines)
        return Code(
            lines=tuple(self.lines),
            results=tuple(self._result(result) for result in self.results),
            inputs=tuple(name for name in INPUTS if name in self.inputs),
            helpers=tuple(name for name in HELPERS if re.search(rf"\b{name}\(", source)),
            uses_spatial="spatial" in source,
        )

    def _result(self, result: Value) -> str:
        """What is returned; a map is the caller's own."""
        borrowed = self.frugal and result.extent is Extent.VOXEL and not self._owns_memory(result)
        return f"{self.names[result]}.clone()" if borrowed else self.names[result]

    def _fused(self) -> set[Value]:
        """Products of maps that are added once: ``x + a·b`` is one operation."""
        uses = Counter(operand for value in self.values for operand in value.operands)
        uses.update(self.results)
        sums = (value for value in self.values if value.operation in ("add", "sub"))
        return {
            product
            for x, product in (value.operands for value in sums)
            if x.extent is product.extent is Extent.VOXEL
            and product.operation == "mul"
            and uses[product] == 1
            # A scalar may be a Python number, of which PyTorch's fused operation takes only a literal one.
            and all(factor.extent is not Extent.SCALAR or factor.number is not None for factor in product.operands)
        }

    def _operands(self, value: Value) -> tuple[Value, ...]:
        """The operands of a value, where one is fused into it that one's."""
        return tuple(
            inner for operand in value.operands for inner in (operand.operands if operand in self.fused else (operand,))
        )

    def _leaf(self, value: Value) -> str:
        match value.operation:
            case "number":
                return _literal(float(value.detail))
            case "coefficient":
                return f"c[{value.detail}]"
            case "input":
                return str(value.detail)
        name, like = str(value.detail or value.operation), self.like
        made = {
            "images": f"{like}.shape[0]",
            "classes": f"{like}.shape[1]",
            "voxels": f"{like}[0, 0].numel()",
            "foreground": f"torch.nn.functional.pad({like}.new_zeros(1), (0, {like}.shape[1] - 1), value=1.0)[None]",
        }
        self.lines.append(f"{name} = {made[name]}")
        return name

    def _line(self, value: Value) -> str:
        operands = self._operands(value)
        if OPERATIONS[value.operation].commutative and len(operands) == 2:
            first, second = operands
            if self._may_overwrite(second, [first], value) and not self._may_overwrite(first, [second], value):
                operands = (second, first)
        written = [self._operand(operand, value) for operand in operands]
        name = f"v{len(self.lines)}"
        target = operands[0] if self._may_overwrite(operands[0], operands[1:], value) else None
        if len(operands) > len(value.operands):
            memory = written[0] if target else "map_like(logits)"
            made = _sum_with_product(value.operation, operands, written, memory)
        elif self.only_true_log and operands[0].detail == "logp":
            made = "log_at_true(logits, p, labels)"
        else:
            made = self._made(value, operands, written, in_place=target is not None)
        if target:
            name = self.names[target]
            self.lines.append(made)
        else:
            self.lines.append(f"{name} = {made}")
        for operand in set(operands):
            self.uses[operand] -= operands.count(operand)
            if self.frugal and not self.uses[operand] and operand.operands and operand is not target:
                if self._owns_memory(operand):
                    self.lines.append(f"release({self.names[operand]})")
                self.lines.append(f"del {self.names[operand]}")
        return name

    def _made(self, value: Value, operands: Sequence[Value], written: Sequence[str], *, in_place: bool) -> str:
        """An operation, written into the memory of its first operand or of a map that is no longer needed."""
        operation = value.operation
        if operation == "guard" and operands[0] in self.non_negative:
            operation, written = "floor", [*written, str(EPSILON)]
        if in_place:
            return OPERATIONS[operation].inplace.format(*written)
        if self.frugal and value in self.full and operation in WITH_MEMORY:
            like = f"{'map' if value.extent is Extent.VOXEL else 'pixels'}_like(logits)"
            if operation in _ARITHMETIC and _is_python(operands[0]):
                written = [f"{self.like}.new_tensor({written[0]})", *written[1:]]
            return WITH_MEMORY[operation].format(*written, out=like)
        return OPERATIONS[operation].torch.format(*written)

    def _owns_memory(self, value: Value) -> bool:
        """Whether it is a map with memory of its own, of full size, which may be written to."""
        return bool(value.operands) and value in self.full and value.operation != "spread"

    def _may_overwrite(self, target: Value, others: Sequence[Value], value: Value) -> bool:
        """Whether ``value`` can be written into the memory of an operand."""
        return (
            self.frugal
            and self._owns_memory(target)
            and target.extent is value.extent
            and bool(OPERATIONS[value.operation].inplace)
            and self.uses[target] == 1
            and target not in others
        )

    def _operand(self, operand: Value, user: Value) -> str:
        """The name of an operand; a CLASS or REGION value beside VOXEL maps gets trailing dimensions."""
        name = self.names[operand]
        if _is_python(operand) and operand in user.operands[: _TENSOR_OPERANDS.get(user.operation, 0)]:
            return f"{self.like}.new_tensor({name})"
        if user.extent is not Extent.VOXEL or operand.extent not in (Extent.CLASS, Extent.REGION):
            return name
        if operand not in self.lifted:
            self.lifted[operand] = f"{name}_map"
            self.lines.append(f"{name}_map = {name}.reshape(*{name}.shape, *[1 for _ in spatial])")
        return self.lifted[operand]


_ARITHMETIC = frozenset({"add", "sub", "mul", "div", "neg"})
_TENSOR_OPERANDS: Mapping[str, int] = MappingProxyType(
    {
        **dict.fromkeys(("log", "exp", "sqrt", "abs", "sign", "tanh", "sigmoid", "softplus", "guard"), 1),
        **dict.fromkeys(("floor", "ceiling", "at_least", "at_most", "max_pool_gradient", "margin_gradient"), 1),
        **dict.fromkeys(("minimum", "maximum", "below"), 2),
    }
)
"""How many operands, from the first, have to be tensors; elsewhere a Python number will do."""


def _is_python(value: Value) -> bool:
    """Whether generated code holds a value as a Python number: sizes, and what is made of them."""
    if not value.operands:
        return value.operation in ("number", "size")
    return value.operation in _ARITHMETIC and all(_is_python(operand) for operand in value.operands)


def _sum_with_product(operation: str, operands: Sequence[Value], written: Sequence[str], memory: str) -> str:
    """``x ± a·b`` in one operation, into ``memory``."""
    x, a, b = written
    minus = "-" if operation == "sub" else ""
    if operands[2].number is not None:  # numbers come last
        return f"torch.add({x}, {a}, alpha={minus}{b}, out={memory})"
    return f"torch.addcmul({x}, {a}, {b}, value={minus}1, out={memory})"


def _literal(value: float) -> str:
    """A number as an operand in Python source; a power of constants may overflow, and ``inf`` is no literal."""
    text = repr(value) if math.isfinite(value) else f'float("{value}")'
    return f"({text})" if value < 0 else text


def _function(code: Code) -> Callable[..., Any]:
    spatial = [f"spatial = tuple(range(2, {code.map}.ndim))"] if code.uses_spatial else []
    text = "\n".join([*code.lines, *spatial])
    prologue = {"labels": 'inputs["labels"]', "logits": 'inputs["logits"]', "bins": "bins_of(labels, logits.shape[1])"}
    needed = {name for name in prologue if re.search(rf"\b{name}\b", text)}
    if "bins" in needed:
        needed |= {"labels", "logits"}
    body = [f"{name} = inputs[{name!r}]" for name in code.inputs]
    body += [f"{name} = {made}" for name, made in prologue.items() if name in needed]
    source = "\n    ".join(["def loss(inputs, c):", *body, *spatial, *code.lines, f"return {', '.join(code.results)}"])
    namespace: dict[str, Any] = {"torch": torch, **HELPERS, **LABEL_FUNCTIONS, **MEMORY_FUNCTIONS}
    # Code generated from a checked tree, never from text.
    exec(compile(source, "<lossevo expression>", "exec"), namespace)
    function: Callable[..., Any] = namespace["loss"]
    return function


@lru_cache(maxsize=4096)
def _compiled(root: Node) -> LossFunction:
    return _function(generate(root))


@lru_cache(maxsize=4096)
def _compiled_with_gradient(root: Node, hard: bool) -> GradientFunction:
    return _function(generate_with_gradient(root, hard=hard))


def compile_expression(expression: Expression) -> LossFunction:
    """A function ``loss(inputs, coefficients) -> scalar`` for the structure of ``expression``; cached by structure.

    ``inputs`` maps the names of :data:`INPUTS` to tensors, the maps of one shape (B, C, *spatial); ``coefficients`` is
    a 1-D tensor. An expression of constants alone gives a plain number.
    """
    return _compiled(expression.root)


def compile_with_gradient(expression: Expression, *, hard: bool = False) -> GradientFunction:
    """A function ``loss(inputs, coefficients) -> scalar, gradient``; cached by structure.

    ``gradient`` (B, C, *spatial), or a number, is that of the loss with respect to the logits. ``inputs`` maps
    ``logits``, ``p`` and ``logp`` (their softmax and its logarithm), the expression's other inputs, and with
    ``hard`` instead of y ``labels`` (B, 1, *spatial, int64). The result cannot be differentiated.
    """
    return _compiled_with_gradient(expression.root, hard)
