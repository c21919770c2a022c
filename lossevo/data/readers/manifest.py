"""A plain list of cases: a CSV file with the columns ``subject``, ``image`` and ``label``, and perhaps ``case`` and
``fold``.

::

    subject,image,label
    p01,images/p01_t1.nii.gz;images/p01_t2.nii.gz,labels/p01.nii.gz

Several images, separated by semicolons, are channels; paths are relative to the file. What the label values mean says
``NAME_dseg.tsv`` beside ``NAME.csv`` (columns ``index`` and ``name``, as in BIDS); without it the labels are opened to
see which values there are.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

from lossevo.data.readers.listing import found_label_names, listed
from lossevo.data.readers.reader import Reader
from lossevo.data.readers.segmentation_table import read_segmentation_table
from lossevo.data.readers.table import Row, cases_from, channel_names_of
from lossevo.data.scan import Problem, Scan, error
from lossevo.errors import LossevoError, shown

COLUMNS = ("subject", "image", "label")
# What spreadsheets write instead of the comma is recognised, to be told.
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}


def _is_manifest(file: Path) -> bool:
    try:
        # What follows the header may be in another encoding: it is then a list that cannot be read, not none at all.
        with file.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
            header = stream.readline()
        return any(set(COLUMNS) <= set(_header(header, delimiter)) for delimiter in _DELIMITERS)
    except (OSError, csv.Error):
        return False


def _header(line: str, delimiter: str) -> list[str]:
    return [cell.strip().lower() for cell in next(csv.reader([line], delimiter=delimiter), [])]


def _file(path: Path) -> Path | None:
    candidates = listed(path, ".csv") if path.is_dir() else [path] if path.suffix.lower() == ".csv" else []
    found = [file for file in candidates if _is_manifest(file)]
    if len(found) > 1:
        raise LossevoError(
            f"{path}: {len(found)} lists of cases ({', '.join(file.name for file in found)}); give one of the files"
        )
    return found[0] if found else None


def _scan(path: Path) -> Scan:
    file = _file(path)
    if file is None:
        raise LossevoError(f"{path}: no CSV file with the columns {', '.join(COLUMNS)}")
    rows, problems = _rows(file)
    cases, more = cases_from(rows, file)
    problems += more
    table = file.with_name(f"{file.stem}_dseg.tsv")
    if table.is_file():
        label_names, named_in = read_segmentation_table(table), table.name
    else:
        label_names, unreadable = found_label_names([label.file for case in cases for label in case.labels])
        named_in = "the other labels"
        problems += unreadable
    channels = channel_names_of(cases)
    return Scan("manifest", file.parent, cases, label_names, channels, tuple(problems), labels_named_in=named_in)


def _rows(file: Path) -> tuple[list[Row], list[Problem]]:
    columns, listed = _cells(file)
    rows = []
    problems = []
    for number, cells in listed:
        if len(cells) > len(columns):
            message = (
                f"{file}: line {number} has {len(cells)} cells, the header {len(columns)} ({', '.join(columns)}); put "
                "quotes around what contains a comma, and semicolons between channels"
            )
            problems.append(error("invalid-line", message, file))
            continue
        line = dict(zip(columns, cells, strict=False))
        images = tuple(image.strip() for image in line.get("image", "").split(";") if image.strip())
        missing = [column for column in COLUMNS if not (images if column == "image" else line.get(column))]
        if missing:
            message = f"{file}: line {number} has no {missing[0]}; give {','.join(COLUMNS)}"
            problems.append(error("invalid-line", message, file))
        elif not re.fullmatch("[0-9]{0,4}", line.get("fold", "")):
            message = f"{file}: line {number} has fold {shown(line['fold'])}, expected 0, 1, …"
            problems.append(error("invalid-line", message, file))
        else:
            fold = int(line["fold"]) if line.get("fold") else None
            rows.append(Row(images, line["label"], line["subject"], line.get("case"), fold))
    return rows, problems


def _cells(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names of the columns, and each line that is not blank with its number; empty cells at the end are dropped.

    Raises:
        LossevoError: it is no CSV file of commas in UTF-8, or a column comes twice.
    """
    number = 0
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            lines = csv.reader(stream, strict=True)
            columns = _trimmed([cell.lower() for cell in next(lines)])
            listed = []
            number = lines.line_num
            for cells in lines:
                if trimmed := _trimmed(cells):
                    listed.append((number + 1, trimmed))
                number = lines.line_num
    except UnicodeDecodeError as problem:
        raise LossevoError(f"{file}: not readable as UTF-8 ({problem}); save it in that encoding") from None
    except csv.Error as problem:
        raise LossevoError(f"{file}: not readable as CSV from line {number + 1} on ({problem})") from None
    if not set(COLUMNS) <= set(columns):
        delimiter = next(name for sign, name in _DELIMITERS.items() if any(sign in column for column in columns))
        raise LossevoError(f"{file}: its cells are separated by {delimiter}, expected commas")
    if twice := [name for name, count in Counter(columns).items() if name and count > 1]:
        raise LossevoError(f"{file}: the header names the column {twice[0]} twice; leave one")
    return columns, listed


def _trimmed(cells: list[str]) -> list[str]:
    """Cells without space around them, up to the last that is not empty."""
    stripped = [cell.strip() for cell in cells]
    return stripped[: max((n for n, cell in enumerate(stripped, start=1) if cell), default=0)]


MANIFEST = Reader(
    "manifest", "a CSV file with the columns subject,image,label", lambda path: _file(path) is not None, _scan
)
