"""``lossevo losses``: the catalogue of hand-crafted losses, or one of them in full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from lossevo.cli.terminal import note, print_json
from lossevo.errors import LossevoError

if TYPE_CHECKING:
    from rich.table import Table

    from lossevo.losses import Explanation


class _Group(TyperGroup):
    """Who writes the name of a loss alone is told how to ask for it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None:
            raise LossevoError(f"'lossevo losses {args[0]}' is no command; write: lossevo losses show {args[0]}")
        return super().resolve_command(ctx, args)


losses = typer.Typer(cls=_Group)


@losses.callback(invoke_without_command=True)
def catalogue(
    context: typer.Context,
    family: Annotated[
        Literal["distribution", "region", "distance", "compound", "adaptive", "learned", "installed"] | None,
        typer.Option("--family", help="List one family only.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: what 'show' knows of each loss.")] = False,
) -> None:
    """List the hand-crafted losses, or explain one of them.

    For each loss its formula, what it is for, its parameters with their defaults, and its source. docs/losses tells
    how the families differ, which loss generalises which, and which to try first. The family 'installed' are losses
    that other packages bring, with the package as their source; docs/own_loss.md tells how, and how to use a loss of
    your own.

    \b
    Examples:
      lossevo losses
      lossevo losses --family region
      lossevo losses show tversky
      lossevo losses --json | jq '.[] | select(.uses_distance_map) | .name'
    """
    if context.invoked_subcommand is not None:
        if family or as_json:
            raise LossevoError(
                "--family and --json before 'show' have no effect; write: lossevo losses show NAME --json"
            )
        return
    from lossevo.losses import explain, names

    everything = [*map(explain, names()), *_installed()] if family != "installed" else _installed()
    explanations = [explanation for explanation in everything if family in (None, explanation.family)]
    if as_json:
        print_json([_document(explanation) for explanation in explanations])
        return
    from lossevo.cli.tables import console

    out = console()
    out.print(_table(explanations))
    out.print(
        "p probability, g target, i voxel of Ω, c class, s smooth; TP = Σ p g, FP = Σ p (1-g), FN = Σ (1-p) g.\n"
        "One loss in full: lossevo losses show NAME",
        style="dim",
        highlight=False,
    )


def _installed() -> list[Explanation]:
    """The losses that packages bring; what is wrong with one is said, in a line."""
    from lossevo.losses import explain, installed_losses

    found = []
    for loss in installed_losses():
        try:
            loss.factory()
            found.append(explain(loss.name))
        except LossevoError as problem:
            note(problem)
    return found


@losses.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of the loss.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Explain one loss.

    Formula, every parameter with its meaning, the same loss in the loss language, its relatives, and how to use it.

    \b
    Examples:
      lossevo losses show tversky
      lossevo losses show boundary --json | jq .parameters
    """
    from lossevo.losses import explain

    explanation = explain(name)
    if as_json:
        print_json(_document(explanation))
    else:
        _print(explanation)


def _document(explanation: Explanation) -> dict[str, Any]:
    """The explanation as JSON holds it."""
    from dataclasses import asdict

    return {**asdict(explanation), "relations": [str(relation) for relation in explanation.relations]}


def _table(explanations: Sequence[Explanation]) -> Table:
    """Losses by family; a line tells of each what fits between 100 and 150 columns."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("loss", no_wrap=True)
    table.add_column("formula, what it is for", ratio=3)
    table.add_column("parameters, source", ratio=2)
    family = None
    for explanation in explanations:
        if explanation.family != family:
            family = explanation.family
            table.add_row(Text(family, "bold"))
        parameters = ", ".join(f"{item.name}={_value(item.default)}" for item in explanation.parameters) or "none"
        table.add_row(
            f"  {explanation.name}",
            Text.assemble(f"{explanation.formula}\n", (explanation.purpose, "dim")),
            Text.assemble(f"{parameters}\n", (explanation.source, "dim")),
            end_section=True,
        )
    return table


def _value(default: object) -> str:
    """A default as one would write it, but floats shortened: ``gamma=1.333``."""
    return f"{default:.4g}" if isinstance(default, float) else str(default)


def _print(explanation: Explanation) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from lossevo.cli.tables import console

    out = console()

    def section(title: str, *lines: str) -> None:
        out.print(f"\n{title}", style="bold", highlight=False)
        for line in lines:
            out.print(Padding(line, (0, 0, 0, 2), expand=False), highlight=False)

    out.print(Text.assemble((explanation.name, "bold"), f"  {explanation.family}"))
    out.print(explanation.summary, highlight=False)
    section("Formula", explanation.formula)
    section("What it is for", explanation.purpose)
    section("Source", explanation.source)
    section("What it computes", *explanation.text.splitlines())
    if explanation.parameters:
        section("Parameters")
        grid = Table.grid(padding=(0, 2))
        for item in explanation.parameters:
            grid.add_row(f"  {item.name} = {_value(item.default)}", item.meaning)
        out.print(grid, highlight=False)
    else:
        section("Parameters", "none")
    if explanation.expression is not None:
        section("In the loss language (lossevo.Expression.parse reads it)", explanation.expression)
    if explanation.relations:
        section("Relatives (each identity is tested)", *map(str, explanation.relations))
    out.print("\nUse", style="bold")
    for line in explanation.usage.splitlines():
        out.print(f"  {line}", highlight=False, soft_wrap=True)
