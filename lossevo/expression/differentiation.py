"""Reverse-mode differentiation of expression graphs: the gradient of a loss is one more voxel expression."""

from __future__ import annotations

from collections.abc import Sequence

from lossevo.expression.graph import reachable
from lossevo.expression.operations import OPERATIONS
from lossevo.expression.rewriting import at_true, split
from lossevo.expression.values import Extent, Value


def gradients(result: Value, inputs: Sequence[Value]) -> list[Value]:
    """∂result/∂input for each input, in the graph of ``result``, a SCALAR.

    What a value receives may have fewer numbers than the value: it then is the same for all that they stand for.
    """
    graph = result.graph
    order = reachable([result])
    depends = set(inputs)
    for value in order:
        if any(operand in depends for operand in value.operands):
            depends.add(value)
    received: dict[Value, Value] = {result: graph.number(1)}
    for value in reversed(order):
        derivative = OPERATIONS[value.operation].derivative if value.operands else None
        if value not in depends or value not in received or derivative is None:
            continue
        own: dict[Value, Value] = {}
        parts = derivative(received[value], value, *value.operands)
        for operand, part, extent in zip(value.operands, parts, _taken(value), strict=True):
            if part is not None and operand in depends:
                part = _summed(part, extent, operand.extent)
                own[operand] = own[operand] + part if operand in own else part
        for operand, part in own.items():
            received[operand] = received[operand] + part if operand in received else part
    return [received.get(value, graph.number(0)) for value in inputs]


def gradient_of_logits(result: Value) -> Value:
    """∂result/∂logits for result(p, log p, m) with p = softmax(logits) and the margin m.

    With a = ∂L/∂p and b = ∂L/∂(log p) it is p a - p S + b where S = Σ_c (p a + b), and what the margin gives beside it.
    What concerns the true class alone is added to it there.
    """
    probability, log_probability, margin = (result.graph.input(name) for name in ("p", "logp", "m"))
    a, b, by_margin = gradients(result, (probability, log_probability, margin))
    dense, true = split(a)
    at_truth = at_true(probability) * true
    shift = at_truth + b("across_classes")
    if dense.extent in (Extent.SCALAR, Extent.PIXEL):
        # The same for all classes: a softmax does not notice.
        gradient = b - probability * shift
    else:
        # Multiplied out, so that the map whose sum is needed is a part of the result.
        product = probability * dense
        gradient = product - probability * (product("across_classes") + shift) + b
    if true.number != 0:
        gradient = gradient + at_truth("one_hot")
    return gradient if by_margin.number == 0 else gradient + by_margin("margin_gradient")


def _taken(value: Value) -> Sequence[Extent]:
    """The extents to which the operands of a value are broadcast."""
    operation = OPERATIONS[value.operation]
    if operation.gives is None:
        return [value.extent] * len(value.operands)
    return operation.takes or [operand.extent for operand in value.operands]


def _summed(part: Value, from_extent: Extent, to_extent: Extent) -> Value:
    """``part``, one for each of ``from_extent``, summed over all that ``to_extent`` has but one for."""
    if from_extent is to_extent:
        return part
    if from_extent is Extent.PIXEL:
        return part("total")
    if to_extent is Extent.PIXEL:
        return part("across_classes")
    if from_extent is Extent.VOXEL:
        part = part("sum")
    if to_extent < Extent.REGION <= from_extent:
        part = part("over_images")
    return part("over_classes") if to_extent is Extent.SCALAR else part
