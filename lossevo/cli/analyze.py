"""``lossevo analyze``: figures and numbers on what losses do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lossevo.cli import folders, options
from lossevo.cli.terminal import print_json
from lossevo.errors import LossevoError

if TYPE_CHECKING:
    from rich.console import Console

    from lossevo.analysis import AnalysedLoss
    from lossevo.comparison import Contender
    from lossevo.losses import LossModule


def analyze(
    out: Annotated[
        Path | None, typer.Option("--out", help="New folder, or one of an earlier analysis.", show_default=False)
    ] = None,
    losses: Annotated[
        str | None,
        typer.Option("--losses", help="Hand-crafted losses, separated by commas.", show_default="all"),
    ] = None,
    hof: options.Hof = None,
    loss_file: options.LossFile = None,
    loss_module: options.LossModuleOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print analysis.json, and nothing else.")] = False,
) -> None:
    """Explain losses by figures: one page, and every figure as PNG and SVG.

    Value and gradient over p; gradient over the distance to the boundary; how much of the gradient falls on the
    foreground; what a shift, a missing object and a false one cost; time and memory of a call. Writes index.html,
    figures/, CSV tables and analysis.json; docs/analysis.md says how everything is defined.

    \b
    Examples:
      lossevo analyze --out analysis
      lossevo analyze --losses dice,cross_entropy,boundary --hof runs/mine:1 --out analysis
      lossevo analyze --losses dice --loss-module my_losses.py:MyLoss --out analysis
    """
    if out is None:
        raise LossevoError("--out is missing; name a new folder for the analysis")
    folders.new_place(out)

    from lossevo import analysis, report
    from lossevo.cli.tables import console, rows_table
    from lossevo.comparison import contenders_from
    from lossevo.losses import names

    screen = console(quiet=as_json)
    chosen = names() if losses is None else [name.strip() for name in losses.split(",") if name.strip()]
    options.tell_ranks(screen, hof)
    modules = options.loss_modules(loss_module)
    contenders = contenders_from(chosen, hof or (), loss_file or (), loss_modules=modules)
    analysed = [_loss(contender, modules) for contender in contenders]
    report.prepare_folder(out)
    with _progress(screen) as progress:
        result = analysis.analyze(analysed, progress=progress)
        report.write(result, out)
    if as_json:
        print_json(analysis.to_document(result))
        return
    screen.print(rows_table(report.terminal_rows(result)))
    screen.print(
        "start, late: share of the gradient that falls on 5 % foreground, before and late in training.\n"
        "shift, miss, false: cost of an error, where 1 is the cost of predicting nothing.\n"
        "ms, saved: time of a call, and bytes kept for the backward pass per byte of logits.",
        style="dim",
        highlight=False,
    )
    screen.print(
        f"\nWritten to {out}: index.html, figures/, *.csv, analysis.json", highlight=False, markup=False, soft_wrap=True
    )


def _loss(contender: Contender, modules: Sequence[LossModule]) -> AnalysedLoss:
    from lossevo.analysis import AnalysedLoss

    if "module" in contender.spec:
        return AnalysedLoss.of_module(
            contender.name, contender.formula, next(one for one in modules if one.spec == contender.spec)
        )
    if "name" in contender.spec:
        return AnalysedLoss.of_catalogue(contender.spec["name"])
    if contender.literature:
        known = AnalysedLoss.of_catalogue(contender.literature)
        return replace(known, name=contender.name, formula=contender.formula, spec=contender.spec)
    return AnalysedLoss.found(contender.name, contender.formula, contender.origin, contender.spec)


@contextmanager
def _progress(screen: Console) -> Iterator[Callable[[int, int, str], None]]:
    """A line that changes in a terminal, a line per loss elsewhere."""
    if not screen.is_terminal:
        yield lambda done, total, name: screen.print(
            f"{time.strftime('%H:%M:%S')} [{done + 1}/{total}] {name}", markup=False, highlight=False
        )
        return
    with screen.status("analysing") as status:
        yield lambda done, total, name: status.update(f"analysing {done + 1}/{total}: {name}")
