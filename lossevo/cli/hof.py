"""``lossevo hof``: the hall of fame of a run, or one of its losses in full."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lossevo.errors import LossevoError

if TYPE_CHECKING:
    from rich.console import Console

    from lossevo.expression import Expression
    from lossevo.expression.algebra import Simplified
    from lossevo.search import Entry

_BARS = "▁▂▃▄▅▆▇█"


def hof(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    top: Annotated[
        int | None, typer.Option("--top", min=1, help="How many losses to list.", show_default="10, in JSON all")
    ] = None,
    show: Annotated[
        str | None, typer.Option("--show", help="Show one loss in full: its rank or id.", show_default=False)
    ] = None,
    tree: Annotated[
        Path | None,
        typer.Option("--tree", help="With --show: draw the formula's tree to FILE.svg or .png.", show_default=False),
    ] = None,
    no_simplify: Annotated[
        bool, typer.Option("--no-simplify", help="With --show: leave the formula as it was trained.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the best losses of a run, or show one in full.

    The list holds the hand-crafted losses, trained under the same budget, too. One loss is shown with its formula as
    it was trained and simplified, LaTeX, tree, coefficients, lineage and training curves. LaTeX and picture are of the
    simplified formula, which has the same values and gradients.

    \b
    Examples:
      lossevo hof runs/mine --top 20
      lossevo hof runs/mine --show 1 --tree loss.svg
      lossevo hof runs/mine --show 3fa9c1d2 --no-simplify
      lossevo hof runs/mine --json | jq '.[0].formula'
      lossevo hof runs/mine --show 1 --json | jq -r .simplified.latex
    """
    import json
    from dataclasses import asdict

    if show is None and (tree is not None or no_simplify):
        raise LossevoError("--tree and --no-simplify are for one loss; say which with --show RANK or --show ID")
    if tree is not None:
        from lossevo.report.tree_figure import kind_of, write_tree

        kind_of(tree)  # before anything takes time

    from lossevo.cli.tables import LEGEND, console, hall_of_fame_table
    from lossevo.search import hall_of_fame

    entries = hall_of_fame.read(run)
    if show is not None:
        entry = hall_of_fame.find(entries, show, run)
        out = console(quiet=as_json)
        simple = None if no_simplify else _simplified(entry.expression, out)
        details = _details(run, entry, simple)
        if tree is not None:
            write_tree(entry.expression if simple is None else simple.expression, tree)
        if as_json:
            print(json.dumps(details, indent=1, ensure_ascii=False))
        else:
            _print(out, entry, details)
            if tree is not None:
                out.print(f"\nTree drawn to {tree}", markup=False, highlight=False, soft_wrap=True)
        return
    if as_json:
        print(json.dumps([asdict(entry) for entry in entries[:top]], indent=1, ensure_ascii=False))
        return
    out = console()
    out.print(hall_of_fame_table(entries, top or 10))
    out.print(LEGEND, style="dim", highlight=False)


def _simplified(expression: Expression, out: Console) -> Simplified:
    """The formula made shorter by algebra, if that is the same loss."""
    from concurrent.futures import ThreadPoolExecutor

    from lossevo.expression.algebra import simplified

    def judge() -> Callable[[Expression], bool]:
        from lossevo.search.equivalence import same_loss

        return same_loss(expression)

    # What judges is made ready while SymPy works in its own process.
    with out.status("simplifying the formula"), ThreadPoolExecutor(1) as pool:
        judging = pool.submit(judge)
        return simplified(expression, lambda candidate: judging.result()(candidate))


def _details(run: Path, entry: Entry, simple: Simplified | None) -> dict[str, Any]:
    """Everything known of one loss, as plain data."""
    from dataclasses import asdict

    from lossevo.expression import latex, tree, unicode
    from lossevo.search import Ledger

    expression = entry.expression
    with Ledger(run / "ledger.sqlite", read_only=True) as ledger:
        trainings = [training for training in ledger.trainings() if training.subject == entry.id]
        return {
            **asdict(entry),
            "latex": latex(expression),
            "simplified": None
            if simple is None
            else {
                "formula": str(simple.expression),
                "unicode": unicode(simple.expression),
                "latex": latex(simple.expression),
                "complexity": simple.expression.complexity,
                "note": simple.note,
            },
            "tree": tree(expression),
            "lineage": _lineage(ledger, entry.id),
            "trainings": [
                {
                    "phase": training.phase,
                    "seed": training.request["seed"],
                    "steps": training.request["budget_steps"],
                    "status": training.outcome.status.value if training.outcome else "running",
                    **(dict(training.outcome.value) if training.outcome and training.outcome.value else {}),
                }
                for training in trainings
            ],
        }


def _lineage(ledger: Any, id_: str) -> list[dict[str, Any]]:
    """The loss and its ancestors, each once, breadth first."""
    from lossevo.expression import Expression, unicode
    from lossevo.search.candidate import Origin

    waiting, known, lineage = [(id_, 0)], {id_}, []
    while waiting:
        current, generation = waiting.pop(0)
        document = ledger.candidate(current)
        if document is None:
            continue
        origin = Origin.from_json(document["origin"])
        formula = unicode(Expression.from_json(document["loss"]))
        lineage.append({"id": current, "generation": generation, "origin": str(origin), "formula": formula})
        for parent in origin.parents:
            if parent not in known:
                known.add(parent)
                waiting.append((parent, generation + 1))
    return lineage


def _print(out: Console, entry: Entry, details: dict[str, Any]) -> None:
    from rich.markup import escape

    from lossevo.cli.tables import score_text
    from lossevo.expression import legend

    def section(title: str, *lines: str) -> None:
        out.print(f"\n[bold]{title}[/bold]")
        for line in lines:
            out.print(f"  {escape(line)}", highlight=False, soft_wrap=True)

    out.print(f"[bold]{entry.id}[/bold]  rank {entry.rank}, {escape(entry.origin)}", highlight=False)
    out.print(f"Dice {escape(score_text(entry))}, complexity {entry.complexity:g}", highlight=False)
    section("Formula", entry.unicode)
    for symbol, meaning in legend(entry.expression):
        out.print(f"  {escape(f'{symbol:<8} {meaning}')}", style="dim", highlight=False, soft_wrap=True)
    section("Text (Expression.parse reads it)", entry.formula)
    simple = details["simplified"]
    if simple is not None and not simple["note"]:
        section(f"Simplified, complexity {entry.complexity:g} → {simple['complexity']:g}", simple["unicode"])
        section("Text of the simplified formula", simple["formula"])
    elif simple is not None:
        out.print(f"  Not simplified: {escape(simple['note'])}", style="dim", highlight=False, soft_wrap=True)
    section("LaTeX", (simple or details)["latex"])
    section("Tree", *details["tree"].splitlines())
    coefficients = entry.expression.coefficients
    section("Coefficients", ", ".join(f"c{slot} = {value:g}" for slot, value in enumerate(coefficients)) or "none")
    section("Lineage", *(f"{'  ' * step['generation']}{step['id']}  {step['origin']}" for step in details["lineage"]))
    section("Trainings", *(_training_line(training) for training in details["trainings"]))


def _training_line(training: dict[str, Any]) -> str:
    """One training: Dice at its checkpoints, and the course of its training loss as bars."""
    told = f"{training['phase']:12} seed {training['seed']:<6} {training['status']}"
    if "score" not in training:
        return told
    checkpoints = ", ".join(f"step {step}: {dice:.4f}" for step, dice in training["validation_curve"])
    return f"{told}  Dice {training['score']:.4f} ({checkpoints})  loss {_bars([y for _, y in training['curve']])}"


def _bars(values: list[float], width: int = 24) -> str:
    """Values as a row of bars, from the smallest to the largest."""
    if not values:
        return ""
    step = max(1, len(values) // width)
    means = [sum(chunk) / len(chunk) for chunk in (values[i : i + step] for i in range(0, len(values), step))]
    low, high = min(means), max(means)
    return "".join(_BARS[int((value - low) / (high - low or 1.0) * (len(_BARS) - 1))] for value in means)
