"""What of a ``loss.py`` is this loss alone: what its formula reads, the formula, and its numbers."""

from __future__ import annotations

import ast
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from lossevo.expression import DISTANCE_SCALE_MM, Code, Expression, generate, legend, unicode
from lossevo.expression.codegen import HELPERS
from lossevo.expression.neighbourhoods import margin
from lossevo.losses import base
from lossevo.losses.definitions import Definition, loss_of
from lossevo.losses.neural import LEGEND, LossNetwork, log_odds
from lossevo.losses.signed_distance import signed_distance_in_torch
from lossevo.losses.soft_targets import has_minimum_at_target

LINE_LENGTH = 120
_EXPRESSION_WIDTH = 96


@dataclass(frozen=True, slots=True)
class Body:
    """The parts of a ``loss.py`` that differ from loss to loss.

    Attributes:
        formula: as a reader sees it.
        legend: symbols and what they mean.
        remark: what a reader should know of it, or nothing.
        called: functions of lossevo that are copied into the file.
        buffers: names, each with the lines that register it.
        reads: names, each with how ``forward`` gets it from ``logits``, ``target`` and ``distance_map``.
        arguments: what ``forward`` calls ``formula`` with.
        code: the function ``formula``.
        numbers: statements at the end of the file.
        uses_distance_map: whether there has to be one.
        changes: whether it knows the progress of a training.
        takes_soft_labels: whether it is smallest where the prediction equals soft labels.
    """

    formula: str
    legend: Sequence[tuple[str, str]]
    remark: str
    called: Sequence[Callable[..., object]]
    buffers: Mapping[str, Sequence[str]]
    reads: Mapping[str, str]
    arguments: Sequence[str]
    code: str
    numbers: Sequence[str] = ()
    uses_distance_map: bool = False
    changes: bool = False
    takes_soft_labels: bool = True


def body_of(definition: Definition) -> Body:
    """The body of a loss."""
    body = _of_network(definition) if isinstance(definition, LossNetwork) else _of_expression(definition)
    return replace(body, takes_soft_labels=has_minimum_at_target(loss_of(definition), classes=2, axes=3))


_HOT = "one_hot(target, logits.shape[1]).to(logits.dtype)"
_DISTANCE = f"(distance_map.to(logits.dtype) / {DISTANCE_SCALE_MM!r}).clamp(-1, 1)"

# --- a network ---

_NETWORK_READS = {
    "margin": ("m", "log_odds(logits)"),
    "probability": ("p", "torch.softmax(logits, dim=1)"),
    "target": ("g", "2 * y - 1"),
    "distance": ("d", _DISTANCE),
    "frequency": ("f", "y.mean(dim=[0, *range(2, y.ndim)], keepdim=True).expand_as(y)"),
}
"""How each input of a network is named and read, as in ``lossevo.losses.neural.INPUTS``; y is the one-hot target."""

_CALLED: Mapping[str, Callable[..., object]] = {"distance": signed_distance_in_torch, "margin": log_odds}

_ACTIVATIONS = {
    "elu": "nn.functional.elu",
    "relu": "torch.relu",
    "softplus": "nn.functional.softplus",
    "tanh": "torch.tanh",
}


def _of_network(network: LossNetwork) -> Body:
    names = [_NETWORK_READS[name][0] for name in network.inputs]
    layers = [f"layer_{number}" for number in range(1, len(network.layers) + 1)]
    lines = [
        f"def formula({''.join(f'{name}: Tensor, ' for name in names)}layers: Sequence[Tensor]) -> Tensor:",
        '    """L from maps (B, C, *spatial) and the layers of the network; every voxel of a map is a column."""',
        f"    values = torch.stack([{', '.join(names)}])[:, :, 1:].flatten(1)  # without the background",
        "    for layer in layers[:-1]:",
        f"        values = {_ACTIVATIONS[network.activation]}(layer @ values)",
        "    return nn.functional.softplus(layers[-1] @ values).mean()",
    ]
    return Body(
        formula=str(network),
        legend=[(_NETWORK_READS[name][0], f"{name}: {LEGEND[name]}") for name in network.inputs],
        remark="",
        called=[base.one_hot, *(_CALLED[name] for name in network.inputs if name in _CALLED)],
        buffers={
            layer: [f'        self.register_buffer("{layer}", torch.tensor({layer.upper()}, dtype=torch.float64))']
            for layer in layers
        },
        reads={"y": _HOT, **dict(_NETWORK_READS[name] for name in network.inputs)},
        arguments=[*names, "[layer.to(logits) for layer in self.buffers()]"],
        code="\n".join(lines),
        numbers=[_matrix(name.upper(), rows) for name, rows in zip(layers, network.layers, strict=True)],
        uses_distance_map="distance" in network.inputs,
    )


def _matrix(name: str, rows: Sequence[Sequence[float]]) -> str:
    """The statement that gives a matrix its name, in short lines."""
    lines = [f"{name} = ("]
    for row in rows:
        text = ", ".join(map(repr, row)) + ("," if len(row) == 1 else "")
        wrapped = textwrap.wrap(text, LINE_LENGTH - 8, break_on_hyphens=False)
        if len(wrapped) == 1:
            lines.append(f"    ({text}),")
        else:
            lines += ["    (", *(f"        {part}" for part in wrapped), "    ),"]
    return "\n".join([*lines, ")"])


# --- an expression ---

_READS = {
    "logp": "torch.log_softmax(logits, dim=1)",
    "p": "torch.softmax(logits, dim=1)",
    "y": _HOT,
    "d": _DISTANCE,
    "m": "margin(logits)",
    "t": "self.progress.to(logits)",
}
"""How each input of a formula is read."""


def _of_expression(expression: Expression) -> Body:
    code, coefficients = generate(expression.root), expression.coefficients
    # Where both are used p is exp(log p), as in the search.
    reads = _READS | ({"p": "logp.exp()"} if "logp" in code.inputs else {})
    called: list[Callable[..., object]] = [base.one_hot] if {"y", "d"} & set(code.inputs) else []
    called += [signed_distance_in_torch] if "d" in code.inputs else []
    called += [margin] if "m" in code.inputs else []
    buffers = {"coefficients": _buffer(coefficients)} if coefficients else {}
    if "t" in code.inputs:
        buffers["progress"] = ['        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))']
    return Body(
        formula=unicode(expression),
        legend=[*legend(expression)],
        remark="Numbers are rounded here; the class holds them exactly. ",
        called=[*called, *(HELPERS[name] for name in code.helpers)],
        buffers=buffers,
        reads={name: reads[name] for name in code.inputs},
        arguments=[*code.inputs, *(["c=self.coefficients.to(logits)"] if coefficients else [])],
        code=_formula(code, expression),
        uses_distance_map="d" in code.inputs,
        changes="t" in code.inputs,
    )


def _buffer(coefficients: tuple[float, ...]) -> list[str]:
    """The statement that registers the coefficients: on one line if it fits, else one coefficient a line."""
    values = ", ".join(map(repr, coefficients))
    line = f'        self.register_buffer("coefficients", torch.tensor([{values}], dtype=torch.float64))'
    if len(line) <= LINE_LENGTH:
        return [line]
    return [
        "        coefficients = [",
        *(f"            {value!r}," for value in coefficients),
        "        ]",
        '        self.register_buffer("coefficients", torch.tensor(coefficients, dtype=torch.float64))',
    ]


def _formula(code: Code, expression: Expression) -> str:
    """The formula as a function of its inputs."""
    names = [*code.inputs, *(["c"] if expression.coefficients else [])]
    lines = [
        f"def formula({', '.join(f'{name}: Tensor' for name in names)}) -> Tensor:",
        f'    """L from maps (B, C, *spatial){" and the coefficients c" if expression.coefficients else ""}."""',
    ]
    if code.uses_spatial:
        lines.append(f"    spatial = tuple(range(2, {code.map}.ndim))")
    return "\n".join([*lines, *(f"    {line}" for line in _folded(code))])


def _folded(code: Code) -> list[str]:
    """The code with values written where they are used, if they are used once and as far as lines stay short.

    The order of operations is kept: autograd adds up the gradients of a value in that order, and a file that equals the
    candidate bit for bit can be verified as such.
    """
    statements = [line.split(" = ", 1) for line in code.lines]
    used = Counter(name for _, value in statements for name in _names(value))
    written: dict[str, ast.expr] = {}
    pending: list[str] = []
    lines: list[str] = []

    def write_pending() -> None:
        for name in pending:
            lines.append(f"v{len(lines)} = {ast.unparse(written[name])}")
            written[name] = ast.parse(f"v{len(lines) - 1}", mode="eval").body
        pending.clear()

    for name, value in statements:
        operands = [operand for operand in _names(value) if operand in pending]
        others = pending[: len(pending) - len(operands)]
        text = ast.unparse(_substituted(value, written))
        if pending != others + operands or len(text) > _EXPRESSION_WIDTH:
            write_pending()
        else:
            pending = others
        written[name] = _substituted(value, written)
        pending.append(name)
        if used[name] > 1:
            write_pending()
    return [*lines, f"return {ast.unparse(_substituted(code.result, written))}"]


def _names(value: str) -> list[str]:
    """The names in an expression, from left to right: the order in which Python evaluates them."""
    names = [node for node in ast.walk(ast.parse(value)) if isinstance(node, ast.Name)]
    return [node.id for node in sorted(names, key=lambda node: node.col_offset)]


def _substituted(value: str, written: Mapping[str, ast.expr]) -> ast.expr:
    """The expression with the names in ``written`` replaced."""

    class Substitution(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return written.get(node.id, node)

    tree: ast.Expression = Substitution().visit(ast.parse(value, mode="eval"))
    return tree.body
