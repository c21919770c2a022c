"""How figures look: colours that colour-blind readers can tell apart, one line style per loss, files that never change
unless their content does.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from lossevo.analysis import AnalysedLoss
from lossevo.losses import describe, names

# Okabe & Ito 2008, without its yellow, which is too faint for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Also for print in grey, and where one curve lies on another.
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (4, 1.2, 1, 1.2)),
    (0, (1.2, 1)),
    (0, (9, 2)),
    (0, (2.5, 1.5)),
    (0, (4, 1, 1, 1, 1, 1)),
)
WIDTHS = (2.2, 2.0, 1.9, 1.8, 1.6, 1.4, 1.2)
GREY = "#666666"
FAINT = "#dddddd"

_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eeeeee",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "svg.hashsalt": "lossevo",
    "path.simplify_threshold": 0.2,
    # Names of classes, cases and losses are somebody else's; a dollar in one is a dollar.
    "text.parse_math": False,
}


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A figure with what belongs to it.

    Attributes:
        name: of its files, without ending.
        section: of the page, in which it is shown.
        title: above it on the page.
        alt: what it shows, for who cannot see it.
        figure: itself.
    """

    name: str
    section: str
    title: str
    alt: str
    figure: Figure


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save figures in this style, whatever the user's matplotlib is set to."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


def rendered(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """The bytes of the figure's file: the same figure, the same bytes."""
    stream = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with styled():
        figure.savefig(stream, format=kind, dpi=140, metadata=metadata)
    return stream.getvalue()


def line_styles(losses: Iterable[AnalysedLoss]) -> dict[str, dict[str, Any]]:
    """Colour, dashes and width of each loss, the same in every analysis: they follow its place in its family."""
    count = Counter[str]()
    place: dict[str, int] = {}
    for name in names():
        family = describe(name).family
        place[name] = count[family]
        count[family] += 1
    styles = {}
    for loss in losses:
        number = place.get(loss.name, count[loss.family])
        count[loss.family] += loss.name not in place
        look = number % len(COLOURS)
        # From the eighth loss of a family on, colours come back with other dashes.
        dashes = (number + number // len(COLOURS)) % len(DASHES)
        styles[loss.name] = {"color": COLOURS[look], "linestyle": DASHES[dashes], "linewidth": WIDTHS[look]}
    return styles


def panels_of(losses: Sequence[AnalysedLoss], most: int = 8) -> list[tuple[str, list[AnalysedLoss]]]:
    """Losses by family, under the families' names; a family of more than ``most`` in several parts of equal size."""
    panels = []
    for family in dict.fromkeys(loss.family for loss in losses):
        members = [loss for loss in losses if loss.family == family]
        parts = -(-len(members) // most)
        size = -(-len(members) // parts)
        for part in range(parts):
            suffix = f" ({part + 1} of {parts})" if parts > 1 else ""
            panels.append((f"{family}{suffix}", members[part * size : (part + 1) * size]))
    return panels


def note(figure: Figure, text: str) -> None:
    """A line in small print at the foot of a figure."""
    figure.supxlabel(text, fontsize=7.5, color=GREY)


def family_rows(axes: Axes, losses: Sequence[AnalysedLoss]) -> dict[str, float]:
    """Set up one row per loss from top to bottom, a heading above each family; returns each loss's height."""
    heights: dict[str, float] = {}
    ticks: list[float] = []
    labels: list[str] = []
    y = 0.0
    family = None
    for loss in losses:
        if loss.family != family:
            y -= 0.4 if family is not None else 0.0
            family = loss.family
            ticks.append(y)
            labels.append(family.upper())
            y -= 1
        heights[loss.name] = y
        ticks.append(y)
        labels.append(shortened(loss.name))
        y -= 1
    axes.set_yticks(ticks, labels)
    axes.set_ylim(y + 0.4, 0.8)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    for label in axes.get_yticklabels():
        if label.get_text().isupper():
            label.set_fontsize(7.5)
            label.set_color(GREY)
    return heights


def logarithmic(axes: Axes, direction: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with plain numbers: as formulas they would need ``text.parse_math``."""
    axes.set(**{f"{direction}scale": "log"})
    axis = axes.xaxis if direction == "x" else axes.yaxis
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(_PlainNumbers(labelOnlyBase=False))


class _PlainNumbers(LogFormatter):
    """0.2 and 0.5 where there is room for them."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def shortened(name: str, most: int = 30) -> str:
    """A name that fits beside a figure: of a long one, its end."""
    return name if len(name) <= most else f"…{name[1 - most :]}"
