"""What an evolved loss costs, beside the same formula compiled by DEAP and beside the hand-written modules.

::

    python benchmarks/expressions.py
    python benchmarks/expressions.py --random 200 --size 2x6x48 --rounds 9 --csv expressions.csv

Contenders are our generated value-and-gradient function; ``deap.gp.compile`` of the same tree, nested lambdas that
autograd differentiates; and, for the losses of the literature, the hand-written module. Random expressions come from
the search space "segmentation" and have passed its screening. Times are of forward and backward on one thread, in CPU
time of that thread; medians over rounds in which the contenders take turns. "Saved" are the bytes that autograd keeps
from forward to backward per byte of the logits, those of logits and target, which exist anyway, not counted.
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from deap import gp
from torch import Tensor

from lossevo.analysis.cost import saved_bytes
from lossevo.expression import COEFFICIENT, CONSTANT, DISTANCE_SCALE_MM, Expression, Node, unicode
from lossevo.losses import create, expressible_names, expression_of, expression_parameters, signed_distance_map
from lossevo.losses.base import one_hot
from lossevo.losses.symbolic import ExpressionLoss
from lossevo.search.genetic import Variation
from lossevo.search.screening import Screening
from lossevo.search.space import load_space

Loss = Callable[[], Tensor]
EPSILON = 1e-4
SPATIAL = (2, 3, 4)


def guard(x: Tensor | float) -> Tensor:
    x = torch.as_tensor(x)
    return torch.where(x < 0, x.clamp(max=-EPSILON), x.clamp(min=EPSILON))


def floor(x: Tensor | float) -> Tensor:
    return torch.as_tensor(x).clamp(min=EPSILON)


PLAIN: dict[str, tuple[int, Callable[..., object]]] = {
    "add": (2, lambda a, b: a + b),
    "sub": (2, lambda a, b: a - b),
    "mul": (2, lambda a, b: a * b),
    "div": (2, lambda a, b: a / guard(b)),
    "neg": (1, lambda a: -a),
    "pow": (2, lambda a, b: floor(a) ** b),
    "log": (1, lambda a: floor(a).log()),
    "exp": (1, lambda a: torch.as_tensor(a).clamp(max=20).exp()),
    "sqrt": (1, lambda a: floor(a).sqrt()),
    "square": (1, lambda a: a * a),
    "abs": (1, abs),
    "tanh": (1, lambda a: torch.as_tensor(a).tanh()),
    "sigmoid": (1, lambda a: torch.as_tensor(a).sigmoid()),
    "min": (2, lambda a, b: torch.minimum(torch.as_tensor(a), torch.as_tensor(b))),
    "max": (2, lambda a, b: torch.maximum(torch.as_tensor(a), torch.as_tensor(b))),
    "sum": (1, lambda x: x.sum(SPATIAL, keepdim=True)),
    "mean": (1, lambda x: x.mean(SPATIAL, keepdim=True)),
    "batch_sum": (1, lambda x: x.sum((0, *SPATIAL), keepdim=True)),
    "batch_mean": (1, lambda x: x.mean((0, *SPATIAL), keepdim=True)),
    "class_mean": (1, lambda x: x.mean()),
    "class_sum": (1, lambda x: x.sum(1).mean()),
    "foreground_mean": (1, lambda x: x[:, 1:].mean()),
}
"""The primitives as one writes them for DEAP: REGION values keep their dimensions, so that they broadcast."""


TERMINALS_BY_HAND: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "p": lambda logits, labels, distance: logits.softmax(1),
    "y": lambda logits, labels, distance: one_hot(labels, logits.shape[1]).to(logits.dtype),
    "logp": lambda logits, labels, distance: logits.log_softmax(1),
    "d": lambda logits, labels, distance: (distance / DISTANCE_SCALE_MM).clamp(-1, 1),
    "t": lambda logits, labels, distance: torch.tensor(0.0),
}


def by_deap(expression: Expression) -> Callable[..., Tensor]:
    """The expression compiled by DEAP: a function of its terminals, in their order, and the coefficients."""
    names = [*sorted(expression.terminals), *(f"c{slot}" for slot in range(len(expression.coefficients)))]
    primitives = gp.PrimitiveSet("loss", len(names))
    primitives.renameArguments(**{f"ARG{index}": name for index, name in enumerate(names)})
    for name, (arity, function) in PLAIN.items():
        primitives.addPrimitive(function, arity, name=name)

    def text(node: Node) -> str:
        if node.name == CONSTANT:
            return str(node.value)
        if node.name == COEFFICIENT:
            return f"c{node.value}"
        return f"{node.name}({', '.join(map(text, node.children))})" if node.children else node.name

    compiled: Callable[..., Tensor] = gp.compile(text(expression.root), primitives)
    return compiled


def contenders(expression: Expression, logits: Tensor, labels: Tensor, distance: Tensor) -> tuple[Loss, Loss]:
    """Ours and DEAP's, ready to call."""
    ours, theirs = ExpressionLoss(expression), by_deap(expression)
    coefficients = [torch.tensor(value) for value in expression.coefficients]

    def deap() -> Tensor:
        read = {name: TERMINALS_BY_HAND[name](logits, labels, distance) for name in sorted(expression.terminals)}
        return theirs(*read.values(), *coefficients)

    return lambda: ours(logits, labels, distance if ours.uses_distance_map else None), deap


def screened(count: int, classes: int, seed: int = 0) -> Iterator[Expression]:
    """Random expressions of at least 20 nodes that pass the screening."""
    generator = random.Random(seed)
    variation, screening = Variation(load_space("segmentation"), generator), Screening(classes)
    found = 0
    while found < count:
        tree = variation.random_tree()
        expression = variation.trees.to_expression(tree)
        if screening.screen(expression) and expression.root.size >= 20:
            found += 1
            yield expression


def milliseconds(losses: Sequence[Loss], logits: Tensor, rounds: int) -> list[float]:
    times: list[list[float]] = [[] for _ in losses]
    for _ in range(rounds + 1):
        for loss, seconds in zip(losses, times, strict=True):
            logits.grad = None
            start = time.thread_time()
            loss().backward()  # type: ignore[no-untyped-call]
            seconds.append(time.thread_time() - start)
    return [1e3 * statistics.median(seconds[1:]) for seconds in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=200, help="random screened expressions of 20 nodes and more")
    parser.add_argument("--size", default="2x6x48", metavar="BxCxS")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    batch, classes, side = map(int, options.size.split("x"))
    torch.set_num_threads(1)

    generator = torch.Generator().manual_seed(0)
    shape = (batch, classes, side, side, side)
    labels = torch.randint(0, classes, (batch, 1, *shape[2:]), generator=generator)
    logits = (torch.randn(shape, generator=generator) + 2 * one_hot(labels, classes)).requires_grad_()
    distance = signed_distance_map(one_hot(labels, classes).float(), (1.0, 1.0, 1.0))
    given = (logits, labels, distance)
    rows: list[dict[str, object]] = []

    def measured(name: str, expression: Expression, hand: Loss | None = None) -> dict[str, object]:
        losses = [*contenders(expression, *given), *([hand] if hand else [])]
        times = milliseconds(losses, logits, options.rounds)
        saved = [saved_bytes(loss, given=given) / logits.untyped_storage().nbytes() for loss in losses[:2]]
        row = {
            "loss": name,
            "nodes": expression.root.size,
            "ms": times[0],
            "ms_deap": times[1],
            "ms_hand": times[2] if hand else None,
            "times_faster_than_deap": times[1] / times[0],
            "saved": saved[0],
            "saved_deap": saved[1],
            "formula": unicode(expression),
        }
        rows.append(row)
        return row

    print(f"{options.size}³, one thread; saved bytes per byte of logits")
    titles = ("nodes", "ms", "DEAP", "faster", "saved", "DEAP", "hand", "ours/hand")
    widths = (5, 7, 7, 7, 6, 6, 7, 9)
    print(f"{'loss':18}", *(f"{title:>{width}}" for title, width in zip(titles, widths, strict=True)))
    for name in expressible_names():
        module = create(name, **expression_parameters(name))
        row = measured(
            name,
            expression_of(name),
            lambda module=module: module(logits, labels, distance if module.uses_distance_map else None),
        )
        print(
            f"{name:18} {row['nodes']:5} {row['ms']:7.1f} {row['ms_deap']:7.1f} {row['times_faster_than_deap']:6.1f}x"
            f" {row['saved']:6.2f} {row['saved_deap']:6.1f} {row['ms_hand']:7.1f} {row['ms'] / row['ms_hand']:8.2f}x"
        )
    for index, expression in enumerate(screened(options.random, classes)):
        measured(f"random {index}", expression)
    chosen = [row for row in rows if str(row["loss"]).startswith("random")]
    if chosen:
        faster = sorted(float(str(row["times_faster_than_deap"])) for row in chosen)
        saved = sorted(float(str(row["saved"])) for row in chosen)
        print(
            f"{len(chosen)} random expressions: {statistics.median(faster):.1f} times faster than DEAP (median; "
            f"{faster[0]:.1f} to {faster[-1]:.1f}; at least 3 in {sum(x >= 3 for x in faster)}), "
            f"saved {saved[0]:.2f} to {saved[-1]:.2f}"
        )
    if options.csv:
        with options.csv.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
