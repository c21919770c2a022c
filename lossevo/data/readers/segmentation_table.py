"""BIDS tables of what the values of a segmentation mean: ``…_dseg.tsv`` with the columns ``index`` and ``name``."""

from __future__ import annotations

import csv
from pathlib import Path

from lossevo.errors import LossevoError


def read_segmentation_table(file: Path) -> dict[int, str]:
    """Value -> name, without the background 0.

    Raises:
        LossevoError: it cannot be read, columns are missing, or a value comes twice.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            lines = list(csv.DictReader(stream, delimiter="\t"))
        names = {int(line["index"]): line["name"].strip() for line in lines}
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise LossevoError(f"{file}: not readable as a table ({problem})") from None
    except (KeyError, ValueError, AttributeError):
        raise LossevoError(
            f"{file}: expected tab-separated columns index and name, with a whole number and a name in each line"
        ) from None
    if len(names) < len(lines):
        raise LossevoError(f"{file}: an index comes twice; give each structure one of its own")
    found = {value: name for value, name in sorted(names.items()) if value}
    if not found or min(found) < 0:
        raise LossevoError(f"{file}: expected at least one structure, with an index above 0")
    return found
