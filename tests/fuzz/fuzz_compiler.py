"""Fuzzing of what becomes of a valid expression: large, deep, shared, and nested in ways nobody would write.

    python tests/fuzz/fuzz_compiler.py --trees 200 --seed 0

Each tree must be judged (``dangers``) and compiled, with a target of labels and with one of probabilities, in bounded
time: equal parts must be handled once however many ways lead to them. What takes longer is a finding: it is printed,
and the exit status is 1.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice, product

from lossevo.expression import COEFFICIENT, PRIMITIVES, TERMINALS, Expression, ExpressionError, Kind, Node, constant
from lossevo.expression.codegen import generate_with_gradient
from lossevo.expression.dangers import dangers
from lossevo.expression.trees import MAX_NODES

SLOWEST_S = 10.0
"""Of CPU time, for one stage of one tree."""
HANGS_AFTER_S = 200

STAGES: dict[str, Callable[[Expression], object]] = {
    "text": lambda expression: Expression.parse(str(expression)),
    "hash": lambda expression: expression.hash,
    "dangers": dangers,
    "compile": lambda expression: _compiled(expression, hard=False),
    "compile for labels": lambda expression: _compiled(expression, hard=True),
}


def _compiled(expression: Expression, *, hard: bool) -> object:
    # Not by compile_with_gradient, which would keep a thousand large functions.
    return compile("\n".join(generate_with_gradient(expression.root, hard=hard).lines) or "0", "<fuzz>", "exec")


def signatures(name: str) -> list[tuple[Kind, ...]]:
    """The kinds of operands that a primitive takes."""
    primitive = PRIMITIVES[name]
    if primitive.source is not None:
        return [(primitive.source,)]
    parameters = (Kind.SCALAR,) * primitive.parameters
    return [kinds + parameters for kinds in product(Kind, repeat=primitive.arity - primitive.parameters)]


Word = tuple[str, tuple[Kind, ...]]
"""A primitive and the kinds of its operands."""

WORDS: list[Word] = [(name, kinds) for name in PRIMITIVES for kinds in signatures(name)]


def of_kind(node: Node, kind: Kind) -> Node:
    """A value made into one of another kind."""
    while node.kind > kind:
        node = Node("mean" if node.kind is Kind.VOXEL else "class_mean", (node,))
    if node.kind < kind:
        node = Node("mul", (Node("p") if kind is Kind.VOXEL else Node("sum", (Node("p"),)), node))
    return node


def loss_of(node: Node) -> Expression:
    """The loss that a value becomes."""
    values = [1.5 - 0.25 * (slot % 11) for slot in range(MAX_NODES)]
    return Expression.of(of_kind(node, Kind.SCALAR), values)


def leaf(generator: random.Random, kind: Kind) -> Node:
    """A small value."""
    names = [name for name, terminal in TERMINALS.items() if terminal.kind is kind]
    if kind is Kind.SCALAR and (not names or generator.random() < 0.7):
        return generator.choice((constant(2), Node(COEFFICIENT, value=0)))
    return Node(generator.choice(names)) if names else of_kind(Node("p"), kind)


def chain(generator: random.Random, words: list[Word], *, shared: bool) -> Expression:
    """Words nested in one another in turn, as deep as may be; ``shared``: what is inside stands in every place."""
    node, best = Node("p"), None
    try:
        for depth in range(200):
            name, kinds = words[depth % len(words)]
            place = generator.randrange(len(kinds))
            operands = [
                of_kind(node, kind) if shared or i == place else leaf(generator, kind) for i, kind in enumerate(kinds)
            ]
            node = Node(name, tuple(operands))
            best = loss_of(node)
    except ExpressionError:
        pass
    return best or loss_of(Node("p"))


def heap(generator: random.Random) -> Expression:
    """What grows by joining what is there, most often what was made last, so that equal parts abound."""
    pool = {kind: [leaf(generator, kind) for _ in range(4)] for kind in Kind}
    words = generator.sample(WORDS, generator.choice((3, 8, len(WORDS))))
    recent = generator.choice((1, 2, 4, 12))
    best = loss_of(Node("p"))
    for _ in range(generator.choice((60, 200, 400))):
        name, kinds = generator.choice(words)
        operands = [
            generator.choice(pool[kind][-recent:] if generator.random() < 0.8 else pool[kind]) for kind in kinds
        ]
        try:
            node = Node(name, tuple(operands))
            made = loss_of(node)
        except ExpressionError:
            continue
        pool[node.kind].append(node)
        best = max(best, made, key=lambda expression: expression.root.size)
    return best


def trees(seed: int) -> Iterator[Expression]:
    """Every word nested in itself, then chains of two and three words and heaps, without end."""
    generator = random.Random(seed)
    for word in WORDS:
        for shared in (False, True):
            yield chain(generator, [word], shared=shared)
    yield from random_trees(generator)


def random_trees(generator: random.Random) -> Iterator[Expression]:
    """Chains of two to four words, and heaps."""
    while True:
        for shared in (False, True):
            yield chain(generator, generator.choices(WORDS, k=generator.randint(2, 4)), shared=shared)
        yield heap(generator)


@dataclass
class CompilerFuzzer:
    """A run over some trees."""

    trees: Iterator[Expression]
    slowest: dict[str, tuple[float, str]] = field(default_factory=lambda: dict.fromkeys(STAGES, (0.0, "")))
    findings: list[str] = field(default_factory=list)
    tried: int = 0
    nodes: int = 0

    def run(self, *, most_findings: int = 10, before_each: Callable[[], None] = lambda: None) -> None:
        """Try them all, or until there are as many findings as one wants to see."""
        for expression in self.trees:
            before_each()
            self.tried += 1
            self.nodes += expression.root.size
            for name, stage in STAGES.items():
                self._attempt(name, stage, expression)
            if len(self.findings) >= most_findings:
                return

    def _attempt(self, name: str, stage: Callable[[Expression], object], expression: Expression) -> None:
        shown = f"{expression.root.size} nodes, depth {expression.root.depth}: {str(expression)[:300]}"
        began = time.thread_time()
        try:
            stage(expression)
        except Exception:
            self.findings.append(f"{name} of {shown}\n{traceback.format_exc(limit=-6)[-2000:]}")
        taken = time.thread_time() - began
        self.slowest[name] = max(self.slowest[name], (taken, shown))
        if taken > SLOWEST_S:
            self.findings.append(f"{name} took {taken:.1f} s of {shown}")

    def __str__(self) -> str:
        """The result, a line for each stage."""
        lines = [f"{self.tried} trees of {self.nodes / max(self.tried, 1):.0f} nodes, {len(self.findings)} findings"]
        lines += [f"slowest {name}: {taken:.2f} s, {shown[:160]}" for name, (taken, shown) in self.slowest.items()]
        return "\n".join(lines)


def main() -> int:
    """Fuzz as the command line says; the exit status."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--trees", type=int, default=600)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    fuzzer = CompilerFuzzer(islice(trees(chosen.seed), chosen.trees))
    # A hang ends in a traceback of where it hangs.
    fuzzer.run(before_each=lambda: faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True))
    faulthandler.cancel_dump_traceback_later()
    print(*fuzzer.findings, fuzzer, sep="\n")
    return 1 if fuzzer.findings else 0


if __name__ == "__main__":
    sys.exit(main())
