"""``lossevo hof``: the hall of fame of a run, or one of its losses in full."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lossevo.cli import folders
from lossevo.cli.terminal import print_json
from lossevo.errors import LossevoError

if TYPE_CHECKING:
    from rich.console import Console

    from lossevo.experiment import Entry
    from lossevo.expression import Expression
    from lossevo.expression.algebra import Simplified

_BARS = "▁▂▃▄▅▆▇█"
_PROFILED = ("value", "gradient")
_PROBABILITIES = (0.01, 0.1, 0.3, 0.7, 0.9, 0.99)
"""Where value and gradient of a loss network are shown."""


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
    pareto: Annotated[
        bool,
        typer.Option(
            "--pareto", help="List the losses that no other beats in all of score, complexity and time per step."
        ),
    ] = False,
    map_file: Annotated[
        Path | None,
        typer.Option(
            "--map",
            metavar="FILE",
            help="Draw a map of the search to FILE.svg or .png: losses that pull a network alike lie together, "
            "coloured by the score of their shortest trainings.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the best losses of a run, or show one in full.

    The list holds the hand-crafted losses, trained under the same budget, too. One loss is shown with its formula as
    it was trained and simplified, LaTeX, tree, coefficients, lineage and training curves. LaTeX and picture are of the
    simplified formula, which has the same values and gradients. A loss network, which has no formula, is shown by what
    it takes, and by its value and gradient.

    \b
    Examples:
      lossevo hof runs/mine --top 20
      lossevo hof runs/mine --show 1 --tree loss.svg
      lossevo hof runs/mine --show 3fa9c1d2 --no-simplify
      lossevo hof runs/mine --pareto
      lossevo hof runs/mine --map map.svg
      lossevo hof runs/mine --json | jq '.[0].formula'
      lossevo hof runs/mine --show 1 --json | jq -r .simplified.latex
    """
    from dataclasses import asdict

    if show is None and (tree is not None or no_simplify):
        raise LossevoError("--tree and --no-simplify are for one loss; say which with --show RANK or --show ID")
    if show is not None and pareto:
        raise LossevoError("--pareto lists losses and --show shows one; give one of the two")
    if map_file is not None:
        if show is not None or pareto or as_json:
            raise LossevoError("--map draws the whole search; give it without --show, --pareto and --json")
        _draw_map(run, map_file)
        return
    if tree is not None:
        _check_picture(tree)

    from lossevo.cli.tables import console, hall_of_fame_table, score_legend, search_findings
    from lossevo.experiment import hall_of_fame

    entries = hall_of_fame.read(run)
    if show is not None:
        entry = hall_of_fame.find(entries, show, run)
        out = console(quiet=as_json)
        if "learned" in entry.loss and tree is None:
            details = {**_network_details(entry, entries), **_history(run, entry)}
        else:
            simple = None if no_simplify else _simplified(entry.expression, out)
            details = {**_formula_details(entry, simple), **_history(run, entry)}
            if tree is not None:
                _draw_tree(entry.expression if simple is None else simple.expression, tree)
        if as_json:
            print_json(details)
        else:
            _print(out, entry, details)
            if tree is not None:
                out.print(f"\nTree drawn to {tree}", markup=False, highlight=False, soft_wrap=True)
        return
    if pareto:
        _print_pareto(entries, top, run, as_json=as_json)
        return
    if as_json:
        print_json([asdict(entry) for entry in entries[:top]])
        return
    out = console()
    out.print(hall_of_fame_table(entries, top or 10, run))
    out.print(score_legend(entries), style="dim", highlight=False)
    for line in search_findings(run):
        out.print(line, style="dim", highlight=False, markup=False)


def _check_picture(file: Path) -> None:
    """Refuse what cannot be drawn, before anything takes time."""
    from lossevo.report.files import kind_of

    kind_of(file)
    folders.new_place(file)


def _draw_tree(expression: Expression, file: Path) -> None:
    from lossevo.report.files import write_picture
    from lossevo.report.tree_figure import tree_picture

    write_picture(tree_picture(expression), file)


def _draw_map(run: Path, file: Path) -> None:
    """Draw where the losses of a search lie."""
    _check_picture(file)
    from lossevo.cli.tables import console
    from lossevo.metrics import Objective
    from lossevo.report.files import write_picture
    from lossevo.report.map_figure import map_picture
    from lossevo.search import read_config
    from lossevo.search.run_map import map_of

    config = read_config(run)
    objective = Objective.parse(config.objective)
    title = objective.title if objective.direction == "higher" else f"minus {objective.title}"
    out = console()
    with folders.preparing(out) as progress:
        found = map_of(run, progress=progress)
    write_picture(map_picture(found, f"{title} after {config.lengths[0]} steps"), file)
    out.print(f"Map of {len(found.scores)} losses drawn to {file}", markup=False, highlight=False, soft_wrap=True)


def _print_pareto(entries: Sequence[Entry], top: int | None, run: Path, *, as_json: bool) -> None:
    """The losses that no other beats in all of score, complexity and time."""
    from dataclasses import asdict

    from lossevo.analysis.pareto import comparable, pareto
    from lossevo.cli.tables import console, hall_of_fame_table, score_legend

    out = console(quiet=as_json)
    with out.status("measuring what a step of each loss takes"):
        found = pareto(entries)[:top]
    if as_json:
        print_json([{**asdict(each.entry), "ms_per_step": round(each.milliseconds, 3)} for each in found])
        return
    shown = [each.entry for each in found]
    out.print(hall_of_fame_table(shown, len(shown), run, {each.entry.id: each.milliseconds for each in found}))
    out.print(
        f"No other of the {len(comparable(entries))} losses whose scores can be compared beats one of these in all of "
        "score, complexity and time. ms: value and gradient of two patches of 48³ voxels, measured now on one core; "
        "5 % count as nothing.",
        style="dim",
        highlight=False,
    )
    out.print(score_legend(shown), style="dim", highlight=False)


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


def _formula_details(entry: Entry, simple: Simplified | None) -> dict[str, Any]:
    """Everything known of a formula, as plain data."""
    from dataclasses import asdict

    from lossevo.expression import latex, tree, unicode

    expression = entry.expression
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
    }


def _network_details(entry: Entry, entries: Sequence[Entry]) -> dict[str, Any]:
    """Everything known of a loss network, as plain data: no formula, but what its value and gradient do."""
    from dataclasses import asdict

    from lossevo.analysis import AnalysedLoss
    from lossevo.analysis.profiles import profile
    from lossevo.experiment.origin import Distilled
    from lossevo.losses.neural import LossNetwork

    network = LossNetwork.from_json(entry.loss["learned"])
    analysed = AnalysedLoss.found(entry.id, entry.unicode, str(entry.origin), entry.loss)
    return {
        **asdict(entry),
        "inputs": list(network.inputs),
        "sizes": list(network.sizes),
        "activation": network.activation,
        "profile": [
            {"target": point.target, "p": point.p, "value": point.value, "gradient": point.gradient}
            for point in profile(analysed, _PROBABILITIES)
        ],
        "distilled": next((other.id for other in entries if isinstance(other.origin, Distilled)), None),
    }


def _history(run: Path, entry: Entry) -> dict[str, Any]:
    """Where a loss comes from, and its trainings."""
    from lossevo.experiment import Ledger

    with Ledger(run / "ledger.sqlite", read_only=True) as ledger:
        records = [record for record in ledger.records() if record.candidate == entry.id]
        return {
            "lineage": _lineage(ledger, entry.id),
            "trainings": [
                {
                    "phase": record.phase,
                    "seed": record.trial["seed"],
                    "steps": record.trial["steps"],
                    "status": record.outcome.status.value if record.outcome else "running",
                    **(_measured(record.outcome.value) if record.outcome and record.outcome.value else {}),
                }
                for record in records
            ],
        }


def _measured(payload: Mapping[str, Any]) -> dict[str, Any]:
    """What a training measured, and the mean of each metric."""
    from lossevo.training import Measurement

    measurement = Measurement.from_payload(payload)
    return {**payload, "means": {metric: measurement.mean(metric) for metric in measurement.values}}


def _lineage(ledger: Any, id_: str) -> list[dict[str, Any]]:
    """The loss and its ancestors, each once, breadth first."""
    from lossevo.experiment.ledger_values import Place
    from lossevo.losses.definitions import formula_of

    waiting, known, lineage = [(id_, 0)], {id_}, []
    while waiting:
        current, generation = waiting.pop(0)
        document = ledger.candidate(current)
        if document is None:
            continue
        origin, definition = Place(ledger.path, "candidates", current).lineage(document)
        formula = formula_of(definition)
        lineage.append({"id": current, "generation": generation, "origin": str(origin), "formula": formula})
        for parent in origin.parents:
            if parent not in known:
                known.add(parent)
                waiting.append((parent, generation + 1))
    return lineage


def _print(out: Console, entry: Entry, details: dict[str, Any]) -> None:
    from rich.text import Text

    from lossevo.cli.tables import score_text
    from lossevo.metrics import Objective

    def section(title: str, *lines: str) -> None:
        out.print(f"\n{title}", style="bold", highlight=False)
        for line in lines:
            out.print(f"  {line}", highlight=False, soft_wrap=True)

    out.print(Text.assemble((entry.id, "bold"), f"  rank {entry.rank}, {entry.origin}"))
    title = Objective.parse(entry.objective).title
    out.print(f"{title} {score_text(entry)}, complexity {entry.complexity:g}", highlight=False)
    section("Formula", entry.unicode)
    if "profile" in details:
        _print_network(out, section, details)
    else:
        _print_formula(out, section, entry, details)
    if details["lineage"]:
        section(
            "Lineage", *(f"{'  ' * step['generation']}{step['id']}  {step['origin']}" for step in details["lineage"])
        )
    section("Trainings", *(_training_line(training) for training in details["trainings"]))


def _print_network(out: Console, section: Callable[..., None], details: dict[str, Any]) -> None:
    from lossevo.cli.tables import rows_table
    from lossevo.losses.neural import LEGEND

    for name in details["inputs"]:
        out.print(f"  {name:<12} {LEGEND[name]}", style="dim", highlight=False, markup=False, soft_wrap=True)
    sizes = " → ".join(map(str, details["sizes"]))
    section("Network", f"{sizes}, {details['activation']}, no biases, softplus at its end")
    points = {(point["target"], point["p"]): point for point in details["profile"]}
    rows = [
        {"p": f"{p:g}"}
        | {
            f"{what}, target {target}": f"{round(points[target, p][what], 4) + 0.0:.4f}"
            for target in (1, 0)
            for what in _PROFILED
        }
        for p in _PROBABILITIES
    ]
    section(
        "Value and gradient of a voxel over its probability p of being foreground",
        "The value is 0 where it is right with 0.99; the gradient is by its logit, and descent goes against it.",
    )
    out.print(rows_table(rows))
    readable = details["distilled"]
    section(
        "Readable form",
        f"{readable}, which was distilled from it; see it with --show {readable}" if readable else "none in this run",
    )


def _print_formula(out: Console, section: Callable[..., None], entry: Entry, details: dict[str, Any]) -> None:
    from lossevo.expression import legend

    for symbol, meaning in legend(entry.expression):
        out.print(f"  {symbol:<8} {meaning}", style="dim", highlight=False, soft_wrap=True)
    section("Text (Expression.parse reads it)", entry.formula)
    simple = details["simplified"]
    if simple is not None and not simple["note"]:
        section(f"Simplified, complexity {entry.complexity:g} → {simple['complexity']:g}", simple["unicode"])
        section("Text of the simplified formula", simple["formula"])
    elif simple is not None:
        out.print(f"  Not simplified: {simple['note']}", style="dim", highlight=False, soft_wrap=True)
    section("LaTeX", (simple or details)["latex"])
    section("Tree", *details["tree"].splitlines())
    coefficients = entry.expression.coefficients
    section("Coefficients", ", ".join(f"c{slot} = {value:g}" for slot, value in enumerate(coefficients)) or "none")


def _training_line(training: dict[str, Any]) -> str:
    """One training: Dice at its checkpoints, and the course of its training loss as bars."""
    told = f"{training['phase']:12} seed {training['seed']!s:<6} {training['status']}"
    if "means" not in training:
        return told
    checkpoints = ", ".join(f"step {step}: {dice:.4f}" for step, dice in training["validation_curve"])
    voxels = [count for of_class in training.get("false_voxels", {}).values() for count in of_class.values()]
    alarms = f"  false alarms {sum(count > 0 for count in voxels)}/{len(voxels)}" if voxels else ""
    bars = _bars([y for _, y in training["curve"]])
    means = training["means"]  # in any order, and so by name
    more = "".join(f", {metric} {mean:.4f}" for metric, mean in means.items() if metric != "dice")
    return f"{told}  Dice {means['dice']:.4f} ({checkpoints}){more}{alarms}  loss {bars}"


def _bars(values: list[float], width: int = 24) -> str:
    """Values as a row of bars, from the smallest to the largest."""
    if not values:
        return ""
    step = max(1, len(values) // width)
    means = [sum(chunk) / len(chunk) for chunk in (values[i : i + step] for i in range(0, len(values), step))]
    low, high = min(means), max(means)
    return "".join(_BARS[int((value - low) / (high - low or 1.0) * (len(_BARS) - 1))] for value in means)
