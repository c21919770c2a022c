"""Tables for the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.table import Table
from rich.text import Text

from lossevo.cli.terminal import printable
from lossevo.errors import LossevoError

if TYPE_CHECKING:
    from lossevo.experiment import Entry

_WIDTH_OF_FILES = 150


class Screen(Console):
    """Standard output, on which text is what it is: no markup, no emoji, nothing that controls the terminal.

    Style is given by arguments and :class:`rich.text.Text`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """As Console does it, of printable text."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As Console does it; whatever was not text before is made printable now."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)

    def status(self, status: RenderableType, **options: Any) -> Status:
        """A line that changes in a terminal."""
        return _Status(_literal(status), console=self, **options)


class _Status(Status):
    def update(self, status: RenderableType | None = None, **options: Any) -> None:
        super().update(None if status is None else _literal(status), **options)


def _literal(text: RenderableType) -> RenderableType:
    return Text(printable(text)) if isinstance(text, str) else text


def console(*, quiet: bool = False) -> Screen:
    """Standard output: as wide as the terminal, or wide enough for tables in a file."""
    return Screen(quiet=quiet) if sys.stdout.isatty() else Screen(quiet=quiet, width=_WIDTH_OF_FILES)


def hall_of_fame_table(
    entries: Sequence[Entry], top: int, run: Path, milliseconds: Mapping[str, float] | None = None
) -> Table:
    """The first ``top`` entries of the hall of fame of ``run``, and the best hand-crafted loss if it is not among them.

    Where validation subjects lack a class the ledger tells the false alarms, which Dice does not count.
    ``milliseconds`` are what a step of each takes, by its id. Below it stands what the words of their formulas mean.

    Raises:
        LossevoError: an entry's loss is damaged.
    """
    shown = list(entries[:top])
    literature = [entry for entry in entries if entry.literature]
    if literature and not any(entry in shown for entry in literature):
        shown.append(literature[0])
    words = _words(shown)
    width = max(map(len, words), default=0)
    caption = Text("\n".join(f"{word:<{width}}  {meaning}" for word, meaning in words.items()))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=caption, caption_justify="left", caption_style="dim")
    table.add_column("rank", justify="right")
    table.add_column("id")
    table.add_column(f"{_title(entries)} ± SE (seeds)", no_wrap=True)
    lengths = len({entry.steps for entry in entries}) > 1
    if lengths:
        table.add_column("steps", justify="right")
    alarms = _false_alarms(run)
    if alarms:
        table.add_column("false alarms", justify="right", no_wrap=True)
    table.add_column("complexity", justify="right")
    if milliseconds is not None:
        table.add_column("ms", justify="right")
    table.add_column("origin")
    table.add_column("formula", ratio=1)
    for entry in shown:
        table.add_row(
            str(entry.rank),
            entry.id,
            score_text(entry),
            *([str(entry.steps)] if lengths else []),
            *([alarms.get(entry.id, "–")] if alarms else []),
            f"{entry.complexity:g}",
            *([f"{milliseconds[entry.id]:.1f}"] if milliseconds is not None else []),
            str(entry.origin),
            entry.unicode,
            style="" if entry.confirmed else "dim",
        )
    return table


def _false_alarms(run: Path) -> dict[str, str]:
    """Of each loss that was trained ``3/16``: in how many of the cases and classes without a label it finds something.

    Over all its trainings. Empty where every label has every class, or the run has no ledger that can be read.
    """
    from lossevo.experiment import Ledger

    found: dict[str, list[int]] = {}
    with suppress(LossevoError), Ledger(run / "ledger.sqlite", read_only=True) as ledger:
        for record in ledger.records():
            measured = record.outcome.value if record.outcome else None
            if measured is not None and "false_voxels" in measured:
                voxels = [count for classes in measured["false_voxels"].values() for count in classes.values()]
                found.setdefault(record.candidate, []).extend(voxels)
    return {loss: f"{sum(count > 0 for count in voxels)}/{len(voxels)}" for loss, voxels in found.items()}


def rows_table(rows: Sequence[Mapping[str, str]]) -> Table:
    """Rows of text as a table: the first column to the left, figures to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, title in enumerate(rows[0]):
        table.add_column(title, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row.values())
    return table


def score_text(entry: Entry) -> str:
    """``0.7712 ± 0.0031 (3)``; a score on which the loss was chosen, and which is therefore too high, in brackets."""
    error = "      –" if entry.score_se is None else f"{entry.score_se:.4f}"
    text = f"{entry.score:.4f} ± {error} ({entry.seeds})"
    return text if entry.confirmed else f"[{text}]"


def _words(entries: Iterable[Entry]) -> dict[str, str]:
    """The words that formulas use, and the inputs of loss networks, with what they mean."""
    from lossevo.expression import Expression, legend
    from lossevo.losses.neural import LEGEND as OF_INPUTS

    words: dict[str, str] = {}
    for entry in entries:
        found = entry.definition
        words |= legend(found) if isinstance(found, Expression) else {name: OF_INPUTS[name] for name in found.inputs}
    return words


def score_legend(entries: Sequence[Entry]) -> str:
    """What the scores of a hall of fame are."""
    from lossevo.metrics import Objective

    steps = {entry.steps for entry in entries}
    length = f" after {steps.pop()} steps" if len(steps) == 1 else ", those with the longest trainings first"
    lower = bool(entries) and Objective.parse(entries[0].objective).direction == "lower"
    return (
        f"{_title(entries)}: mean over seeds and the validation subjects whose labels have a structure"
        f"{length}{', lower is better' if lower else ''}. In brackets: not trained again with new seeds, so biased by "
        "selection."
    )


def search_findings(run: Path) -> list[str]:
    """What a search that has ended found out about its own measurements; nothing of others."""
    from lossevo.metrics import Objective
    from lossevo.search import read_config
    from lossevo.search.findings import read_findings
    from lossevo.search.learning_rates import read_sweep

    found = read_findings(run)
    told = [] if found is None else found.texts()
    sweep = read_sweep(run)
    if sweep is not None:
        objective = Objective.parse(read_config(run).objective)
        told += sweep.texts(objective.unit, objective.displayed)
    return told


def _title(entries: Sequence[Entry]) -> str:
    from lossevo.metrics import Objective

    return Objective.parse(entries[0].objective).title if entries else "score"
