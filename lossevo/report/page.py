"""The page of an analysis: one HTML file with all figures inside, which needs nothing else, not even a network."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

import lossevo
from lossevo.analysis import DEFINITIONS, Analysis, summary
from lossevo.report.style import Picture

BEST_P_IS_CERTAINTY = 0.98
"""Above this, the lowest value lies at the end of the curve: the loss asks for certainty."""


def html(analysis: Analysis, pictures: Sequence[Picture], svg: Mapping[str, bytes]) -> str:
    """The text of ``index.html``; ``svg`` has the SVG file of every picture under its name."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(percent=percent, number=number)
    template = environment.from_string(files("lossevo.report").joinpath("analysis.html.j2").read_text("utf-8"))
    rows = _rows(summary(analysis))
    about = {loss.name: loss for loss in analysis.losses}
    return template.render(
        version=lossevo.__version__,
        definitions=DEFINITIONS,
        rows=rows,
        about=about,
        families=list(dict.fromkeys(row["family"] for row in rows)),
        pictures={picture.section: [p for p in pictures if p.section == picture.section] for picture in pictures},
        data_uris={name: _data_uri(content) for name, content in svg.items()},
        certainty=BEST_P_IS_CERTAINTY,
    )


def terminal_rows(analysis: Analysis) -> list[dict[str, str]]:
    """The summary as text, one row per loss; the catalogue's fit in 80 columns."""
    return [
        {
            "loss": row["loss"],
            "start": percent(row["untrained_5"]),
            "late": percent(row["trained_5"]),
            "shift": number(row["shift"]),
            "miss": number(row["missing"]),
            "false": number(row["false"]),
            "ms": number(row["milliseconds"]),
            "saved": number(row["saved_per_input_byte"]),
        }
        for row in _rows(summary(analysis))
    ]


def percent(share: float) -> str:
    """``0.523`` as ``52 %``; what is no number as a dash."""
    return f"{100 * share:.0f} %" if math.isfinite(share) else "–"


def number(value: float) -> str:
    """Two significant digits at least, no exponent below a million; what is no number as a dash."""
    if not math.isfinite(value):
        return "–"
    if abs(value) >= 1e6 or 0 < abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """One mapping per loss, with an ``id`` for links."""
    return [
        {"id": f"loss-{number}", **{str(key): value for key, value in row.items()}}
        for number, row in enumerate(table.to_dict("records"), start=1)
    ]


def _data_uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
