"""What the proof against overflow turns down in the screening, what it lets through, and what it costs.

    python benchmarks/screening.py --candidates 2000 [RUN ...]

Half of the candidates are random trees of the search space, half children of its seeds and, if folders of runs are
given, of the losses in their halls of fame. Each is judged by interval arithmetic and, whatever that says, measured.
Times are CPU time of one thread.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from lossevo.expression import Expression, ExpressionError
from lossevo.expression.dangers import is_safe
from lossevo.search import screening
from lossevo.search.genetic import Variation
from lossevo.search.space import SearchSpace, load_space

PAIRS = ("crossover", "combine")
"""Operators that take two parents."""


def candidates(space: SearchSpace, runs: list[Path], generator: random.Random) -> Iterator[tuple[str, Expression]]:
    """Random trees and children in turn, each once, that depend on target and prediction."""
    variation = Variation(space, generator)
    known = [*space.seed_expressions().values(), *(expression for run in runs for expression in hall_of_fame(run))]
    parents = [tree for expression in known if (tree := variation.trees.to_tree(expression)) is not None]
    weights = {name: weight for name, weight in space.strategy.operators.model_dump().items() if name != "random"}
    seen: set[str] = set()
    kind = "random"
    while True:
        if kind == "random":
            tree = variation.random_tree()
        else:
            (operator,) = generator.choices(list(weights), list(weights.values()))
            tree = getattr(variation, operator)(*generator.sample(parents, 2 if operator in PAIRS else 1))
        try:
            expression = variation.trees.to_expression(tree) if variation.within_limits(tree) else None
        except ExpressionError:
            continue
        if expression is None or expression.hash in seen or not screening.depends_on_both(expression):
            continue
        seen.add(expression.hash)
        yield kind, expression
        kind = "child" if kind == "random" else "random"


def hall_of_fame(run: Path) -> list[Expression]:
    """The losses of a finished run."""
    return [
        Expression.from_json(entry["loss"]["expression"])
        for entry in json.loads((run / "hall_of_fame.json").read_text())
    ]


def main() -> None:
    """Print a table for each kind of candidate."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("runs", nargs="*", type=Path)
    options.add_argument("--candidates", type=int, default=2000)
    options.add_argument("--space", default="segmentation")
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    for run in chosen.runs:
        rejected = [str(expression) for expression in hall_of_fame(run) if not is_safe(expression)]
        print(f"{run}: {len(rejected)} of its hall of fame turned down", *rejected, sep="\n  ")
    measuring = screening.Screening(2)
    found: Counter[tuple[str, bool, str]] = Counter()
    seconds = {"proof": 0.0, "measurements": 0.0}
    made = candidates(load_space(chosen.space), chosen.runs, random.Random(chosen.seed))
    for _ in range(chosen.candidates):
        kind, expression = next(made)
        began = time.thread_time()
        safe = is_safe(expression)
        proved = time.thread_time()
        failed = measuring.try_out(expression).failed
        seconds["proof"] += proved - began
        seconds["measurements"] += time.thread_time() - proved
        found[kind, safe, str(failed or "passes")] += 1
    for kind in ("random", "child"):
        total = sum(count for (of, _, _), count in found.items() if of == kind)
        for safe, judged in ((False, "turned down"), (True, "proved safe")):
            fates = {fate: count for (of, was, fate), count in sorted(found.items()) if (of, was) == (kind, safe)}
            print(f"{kind}: {sum(fates.values())} of {total} {judged}; measured: {fates}")
    each = {what: 1000 * taken / chosen.candidates for what, taken in seconds.items()}
    print(f"{each['proof']:.2f} ms for the proof, {each['measurements']:.2f} ms for the measurements after it")


if __name__ == "__main__":
    main()
