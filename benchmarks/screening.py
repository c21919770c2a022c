"""What the proof against overflow turns down in the screening, what it lets through, and what it costs.

    python benchmarks/screening.py --candidates 2000 [RUN ...]

Half of the candidates are random trees of the search space, half children of its seeds and, if folders of runs are
given, of the losses in their halls of fame. Each is judged by interval arithmetic and, whatever that says, measured.
Then others are screened as a search does it, and the time that each check takes is shown. Times are CPU time of one
thread.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from lossevo.expression import Expression, ExpressionError
from lossevo.expression.dangers import is_safe
from lossevo.search import screening
from lossevo.search.genetic import Variation
from lossevo.search.space import SearchSpace, load_space

PAIRS = ("crossover", "combine")
"""Operators that take two parents."""


def proposals(
    space: SearchSpace, runs: list[Path], generator: random.Random
) -> Iterator[tuple[str, Expression | None]]:
    """Random trees and children in turn; None is one beyond the limits of the space or the language."""
    variation = Variation(space, generator)
    known = [*space.seed_expressions().values(), *(expression for run in runs for expression in hall_of_fame(run))]
    parents = [tree for expression in known if (tree := variation.trees.to_tree(expression)) is not None]
    weights = {name: weight for name, weight in space.strategy.operators.model_dump().items() if name != "random"}
    for kind in itertools.cycle(("random", "child")):
        if kind == "random":
            tree = variation.random_tree()
        else:
            (operator,) = generator.choices(list(weights), list(weights.values()))
            tree = getattr(variation, operator)(*generator.sample(parents, 2 if operator in PAIRS else 1))
        try:
            yield kind, variation.trees.to_expression(tree) if variation.within_limits(tree) else None
        except ExpressionError:
            yield kind, None


def candidates(made: Iterator[tuple[str, Expression | None]]) -> Iterator[tuple[str, Expression]]:
    """Those that depend on target and prediction, each once."""
    seen: set[str] = set()
    for kind, expression in made:
        if expression is None or expression.hash in seen or not screening.depends_on_both(expression):
            continue
        seen.add(expression.hash)
        yield kind, expression


def hall_of_fame(run: Path) -> list[Expression]:
    """The losses of a finished run."""
    return [
        Expression.from_json(entry["loss"]["expression"])
        for entry in json.loads((run / "hall_of_fame.json").read_text())
    ]


TIMED = {
    "inputs": "depends_on_both",
    "overflow": "is_safe",
    "finite, flat, equivalent": "gradients",
    "descent": "_descent",
}
"""Checks and the function of the screening that does their work; the code of a candidate is made for ``gradients``."""


def screened(made: Iterator[tuple[str, Expression | None]], count: int) -> None:
    """Screen so many proposals, each by the checks up to the one it fails, and print what each check takes."""
    seconds: Counter[str] = Counter()
    calls: dict[str, set[str]] = {check: set() for check in TIMED}
    current = ""

    def timed(check: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*given: Any, **named: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*given, **named)
            finally:
                seconds[check] += time.thread_time() - began
                calls[check].add(current)

        return measured

    measuring = screening.Screening(2)
    originals = {name: getattr(screening, name) for name in TIMED.values()}
    for check, name in TIMED.items():
        setattr(screening, name, timed(check, originals[name]))
    total = 0.0
    for _, expression in itertools.islice(made, count):
        began = time.thread_time()
        current = expression.hash if expression is not None else ""
        measuring.screen(expression)
        total += time.thread_time() - began
    for name, function in originals.items():
        setattr(screening, name, function)
    print("\n| check | candidates | ms for each of them | ms for each proposed |\n|---|--:|--:|--:|")
    for check, taken in seconds.items():
        print(
            f"| {check} | {len(calls[check])} | {1000 * taken / len(calls[check]):.2f} | {1000 * taken / count:.2f} |"
        )
    print(f"| all | {count} | {1000 * total / count:.2f} | {1000 * total / count:.2f} |")
    print(f"{count / total:.0f} candidates per second and core; {count - sum(measuring.rejected.values())} passed")


def main() -> None:
    """Print a table for each kind of candidate, and the times of the checks."""
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
    made = proposals(load_space(chosen.space), chosen.runs, random.Random(chosen.seed))
    for kind, expression in itertools.islice(candidates(made), chosen.candidates):
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
    screened(made, chosen.candidates)


if __name__ == "__main__":
    main()
