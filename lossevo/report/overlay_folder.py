"""The folder of ``lossevo data show``.

::

    contact_sheet.png      the sagittal slices of all cases; contact_sheet_2.png and so on where they are many
    CASE.png               three planes of each case
    overlays.json          what was drawn from what, which picture is whose; its ``made_by`` is how a folder is known
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from lossevo.data import Cohort
from lossevo.documents import read_json
from lossevo.errors import LossevoError
from lossevo.report.files import file_names
from lossevo.report.overlays import Slice, case_figure, contact_sheet, cut
from lossevo.report.style import rendered, styled

MADE_BY = "lossevo data show"
_DOCUMENT = "overlays.json"
_PER_SHEET = 40

Progress = Callable[[int, int, str], None]


def write_overlays(
    cohort: Cohort, folder: Path, *, cases: int | None = None, progress: Progress | None = None
) -> tuple[LossevoError, ...]:
    """Draw every case, or the first ``cases``, and the contact sheets; one case in memory at a time.

    ``folder`` is new, or one of an earlier call, whose pictures are replaced. Returns what is wrong with the cases
    that cannot be drawn; they have an empty place in the contact sheet.

    Raises:
        LossevoError: the folder is used for something else or cannot be written, or not one case can be drawn.
    """
    _prepare(folder)
    chosen = cohort.cases[:cases]
    picture_of = file_names([case.case_id for case in cohort.cases], taken=("contact_sheet",))
    thumbnails: list[tuple[str, Slice | None]] = []
    mistakes = []
    for done, case in enumerate(chosen, start=1):
        try:
            volume = case.load()
        except LossevoError as mistake:
            mistakes.append(mistake)
            thumbnails.append((case.case_id, None))
        else:
            thumbnails.append((case.case_id, cut(volume, "sagittal")))
            with styled():
                figure = case_figure(volume, cohort.class_names, cohort.channel_names)
            _write(folder / f"{picture_of[case.case_id]}.png", rendered(figure, "png"))
        if progress is not None:
            progress(done, len(chosen), case.case_id)
    if len(mistakes) == len(chosen):
        raise mistakes[0] if mistakes else LossevoError(f"cohort {cohort.name}: it has no cases to draw")
    for sheet, start in enumerate(range(0, len(thumbnails), _PER_SHEET), start=1):
        with styled():
            figure = contact_sheet(thumbnails[start : start + _PER_SHEET], cohort.name)
        _write(folder / f"contact_sheet{f'_{sheet}' if sheet > 1 else ''}.png", rendered(figure, "png"))
    drawn = [name for name, part in thumbnails if part is not None]
    pictures = {name: f"{picture_of[name]}.png" for name in drawn}
    document = {
        "made_by": MADE_BY,
        "cohort": cohort.name,
        "classes": cohort.class_names[1:],
        "cases": drawn,
        "pictures": pictures,
    }
    _write(folder / _DOCUMENT, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())
    return tuple(mistakes)


def _prepare(folder: Path) -> None:
    """Make the folder, or clear it of the pictures of an earlier call."""
    try:
        if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not _is_ours(folder))):
            raise LossevoError(
                f"{folder}: exists already and holds no overlays; nothing is overwritten, give another folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        # First of all, so that the folder is known as ours after a kill half way.
        _write(folder / _DOCUMENT, json.dumps({"made_by": MADE_BY}).encode())
        for file in folder.glob("*.png"):
            file.unlink()
    except OSError as problem:
        raise LossevoError(f"{folder}: cannot be written ({problem.strerror or problem})") from None


def _is_ours(folder: Path) -> bool:
    try:
        document = read_json(folder / _DOCUMENT)
    except LossevoError:
        return False
    return isinstance(document, dict) and document.get("made_by") == MADE_BY


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as problem:
        raise LossevoError(f"{path}: cannot be written ({problem.strerror or problem})") from None
