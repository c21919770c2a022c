"""The folder of an analysis: figures, page, tables.

::

    index.html                       the page, with everything in it
    figures/*.png, figures/*.svg     every figure on its own
    summary.csv                      one row per loss
    profiles.csv, distances.csv, shares.csv, responses.csv, costs.csv      one row per number
    analysis.json                    all of it; its ``made_by`` is how a folder is known
"""

from __future__ import annotations

import json
from pathlib import Path

from lossevo.analysis import Analysis, summary, to_document
from lossevo.csv_files import csv_text
from lossevo.documents import read_json
from lossevo.errors import LossevoError
from lossevo.report.files import write_file
from lossevo.report.overview_figures import OVERVIEWS
from lossevo.report.page import html
from lossevo.report.profile_figures import distance_picture, profile_pictures
from lossevo.report.scene_figure import scenes_picture
from lossevo.report.style import Picture, rendered, styled

_DOCUMENT = "analysis.json"


def prepare_folder(folder: Path) -> None:
    """Make the folder if there is none.

    Raises:
        LossevoError: it is in use by something else than an earlier analysis, or cannot be made.
    """
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not _is_analysis(folder))):
        raise LossevoError(f"{folder}: exists already and is no analysis; nothing is overwritten, give another folder")
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise LossevoError(f"{folder}: cannot be made ({problem.strerror or problem})") from None


def write(analysis: Analysis, folder: Path) -> None:
    """Write all files into a prepared folder, in place of those of an earlier analysis.

    Raises:
        LossevoError: a file cannot be written.
    """
    pictures = draw(analysis)
    # An earlier analysis may have had families that this one lacks.
    for file in (folder / "figures").glob("profile-*.*"):
        if file.suffix in (".png", ".svg"):
            file.unlink()
    svg = {picture.name: rendered(picture.figure, "svg") for picture in pictures}
    for picture in pictures:
        write_file(folder / "figures" / f"{picture.name}.svg", svg[picture.name])
        write_file(folder / "figures" / f"{picture.name}.png", rendered(picture.figure, "png"))
    for name, table in {"summary": summary(analysis), **analysis.tables}.items():
        columns = [str(column) for column in table.columns]
        lines = table.astype(object).where(table.notna(), None).itertuples(index=False, name=None)
        text = csv_text(columns, (dict(zip(columns, line, strict=True)) for line in lines))
        write_file(folder / f"{name}.csv", text.encode())
    write_file(folder / "index.html", html(analysis, pictures, svg).encode())
    write_file(folder / _DOCUMENT, (to_json(analysis) + "\n").encode())


def draw(analysis: Analysis) -> list[Picture]:
    """All figures, in the order of the page."""
    with styled():
        return [
            scenes_picture(),
            *profile_pictures(analysis),
            distance_picture(analysis),
            *(overview(analysis) for overview in OVERVIEWS),
        ]


def to_json(analysis: Analysis) -> str:
    """The text of ``analysis.json``."""
    return json.dumps(to_document(analysis), indent=1, ensure_ascii=False, allow_nan=False)


def _is_analysis(folder: Path) -> bool:
    try:
        document = read_json(folder / _DOCUMENT)
    except LossevoError:
        return False
    return isinstance(document, dict) and document.get("made_by") == "lossevo analyze"
