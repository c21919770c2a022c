"""What readers share: listing files by name, and naming cases after them."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lossevo.data.files import ENDINGS, VOLUME_ENDINGS
from lossevo.data.loading import label_values
from lossevo.data.scan import Problem, error
from lossevo.errors import LossevoError, shown

# Of a label: 16 bits, as label maps have at most; and no spine has so many structures.
LARGEST_VALUE = 2**16 - 1
MOST_STRUCTURES = 255
_DIGITS = 10


def hidden(name: str) -> bool:
    """Whether a name is one that no data set means: macOS leaves ``._x`` and ``__MACOSX`` twins in archives."""
    return name.startswith(".") or name == "__MACOSX"


def listed(folder: Path, endings: str | tuple[str, ...] = VOLUME_ENDINGS) -> list[Path]:
    """The folder's files with these endings, sorted by name; empty if there is no such folder.

    By name alone: a git-annex pointer may be a link to nowhere.
    """
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = [
            entry.name
            for entry in entries
            if entry.name.lower().endswith(endings) and not hidden(entry.name) and not entry.is_dir()
        ]
    return [folder / name for name in sorted(names)]


def folders(folder: Path) -> list[Path]:
    """The folder's sub-folders, sorted by name."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir() and not hidden(entry.name)]
    return [folder / name for name in sorted(names)]


def walk(folder: Path, *, depth: int) -> Iterator[Path]:
    """The folder and its sub-folders down to ``depth`` levels below it, parents first, sorted."""
    yield folder
    if depth > 0:
        for item in folders(folder):
            yield from walk(item, depth=depth - 1)


def child(folder: Path, name: str) -> Path | None:
    """The sub-folder of that name, whatever its case; None if there is none."""
    return next((item for item in folders(folder) if item.name.lower() == name.lower()), None)


def lone_folders(path: Path) -> list[Path]:
    """The path, and what it comes down to while a folder holds nothing but one other, as archives are unpacked."""
    places = [path]
    while len(places) < 4 and places[-1].is_dir():
        visible = [item for item in places[-1].iterdir() if not hidden(item.name)]
        if len(visible) != 1 or not visible[0].is_dir():
            break
        places.append(visible[0])
    return places


def stem(file: Path | str) -> str:
    """A file's name without its ending, ``.nii.gz`` being one."""
    name = Path(file).name
    ending = next((ending for ending in ENDINGS if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)] if ending else name


def unique_ids(files: Sequence[Path], root: Path) -> list[str]:
    """A name for each file: its stem, with the folders that lead to it from ``root`` where stems are not unique."""
    count = Counter(stem(file) for file in files)
    ids = []
    for file in files:
        name = stem(file)
        if count[name] > 1:
            inside = file.is_relative_to(root)
            parents = file.relative_to(root).parent.parts if inside else file.parent.parts[1:]
            name = "_".join([*parents, name])
        ids.append(re.sub(r"_0000$", "", name))
    return ids if len(set(ids)) == len(ids) else [stem(file) for file in files]


def read_json(file: Path, expected: str) -> dict[str, Any]:
    """A JSON object; ``expected`` says what it should hold.

    Raises:
        LossevoError: it cannot be read, or is no object.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as problem:
        raise LossevoError(f"{file}: not readable as JSON ({problem})") from problem
    if not isinstance(document, dict):
        raise LossevoError(f"{file}: expected a JSON object with {expected}")
    return document


def json_label_names(labels: Any, file: Path) -> dict[int, str]:
    """``{"L1": 1}`` (nnU-Net v2) or ``{"1": "L1"}`` (Decathlon, nnU-Net v1) as value -> name, the 0 included.

    Raises:
        LossevoError: neither of the two, or a value or name that is not unique.
    """
    if not isinstance(labels, dict) or not labels:
        raise LossevoError(f'{file}: "labels" must map names to values, such as {{"background": 0, "L1": 1}}')
    if all(key.isdecimal() and len(key) < _DIGITS and isinstance(value, str) for key, value in labels.items()):
        if len(set(labels.values())) < len(labels):
            raise LossevoError(f'{file}: "labels" gives the same name to several values')
        names = {int(value): name for value, name in labels.items()}
    else:
        for name, value in labels.items():
            if isinstance(value, list):
                raise LossevoError(
                    f'{file}: label "{name}" is the region {shown(value)}, and regions are not supported; name each '
                    "value of the label maps, and make classes of them with --labels FILE.yaml"
                )
            if isinstance(value, bool) or not isinstance(value, int):
                raise LossevoError(f'{file}: label "{name}" has the value {shown(value)}, expected an integer')
        if len(set(labels.values())) < len(labels):
            raise LossevoError(f'{file}: "labels" must have unique values, got {shown(sorted(labels.values()))}')
        names = {value: name for name, value in labels.items()}
    for value, name in names.items():
        if name.lower() == "ignore":
            raise LossevoError(f'{file}: the "ignore" label is not supported; leave out the partly annotated cases')
        if name.lower() == "background" and value != 0:
            raise LossevoError(f'{file}: "background" has the value {value}, expected 0')
    return names


def json_channel_names(channels: Any, file: Path) -> tuple[str, ...]:
    """``{"0": "T1", "1": "T2"}`` as names in order.

    Raises:
        LossevoError: not that.
    """
    if (
        not isinstance(channels, dict)
        or set(channels) != {str(index) for index in range(len(channels))}
        or not channels
    ):
        raise LossevoError(f'{file}: "channel_names" must map "0", "1", ... to names, such as {{"0": "T2"}}')
    return tuple(str(channels[str(index)]) for index in range(len(channels)))


def found_label_names(files: Sequence[Path]) -> tuple[dict[int, str], list[Problem]]:
    """Names for the label values of a data set that has none: ``foreground``, or ``label 1``, ``label 2``, ….

    The label maps are opened for it.
    """
    values: set[int] = set()
    problems = []
    for file in files:
        try:
            found = label_values(file)
        except LossevoError as problem:
            problems.append(error("unreadable-label", str(problem), file))
            continue
        if odd := [value for value in found if not 0 < value <= LARGEST_VALUE]:
            message = f"{file}: label value {odd[0]}, expected 0 to {LARGEST_VALUE}; is it a label map?"
            problems.append(error("unexpected-label-value", message, file))
        elif len(found) > MOST_STRUCTURES:
            message = f"{file}: {len(found)} label values, expected at most {MOST_STRUCTURES}; is it an image?"
            problems.append(error("unexpected-label-value", message, file))
        else:
            values.update(found)
    names = {value: f"label {value}" for value in sorted(values)}
    return ({1: "foreground"} if values <= {1} else names), problems
