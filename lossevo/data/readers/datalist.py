"""JSON lists of images and labels: Medical Segmentation Decathlon (``dataset.json``) and MONAI datalists with folds.

::

    {"labels": {"0": "background", "1": "L1"}, "modality": {"0": "MRI"},
     "training": [{"image": "./imagesTr/x.nii.gz", "label": "./labelsTr/x.nii.gz", "fold": 0}, …]}

Paths are relative to the file. A list of images are channels; a 4D image (Decathlon) has its channels last. Of lossevo
are ``subject`` (the patient) and ``case`` of an item; without ``subject`` a case is a subject, unless its name or path
follows BIDS (``sub-01_…``, ``sub-01/…``). ``validation`` cases have labels and take part; those of ``test`` and
``testing`` do not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lossevo.data.readers.listing import (
    found_label_names,
    json_channel_names,
    json_label_names,
    listed,
    read_json,
    stem,
)
from lossevo.data.readers.reader import Reader
from lossevo.data.readers.table import Row, cases_from, channel_names_of
from lossevo.data.scan import Problem, Scan, error
from lossevo.errors import LossevoError, shown


def is_datalist(file: Path) -> bool:
    """Whether a JSON file lists images and labels, and any of its images is where the list says.

    An nnU-Net v1 ``dataset.json`` has such a list too, but of names that its files do not have.
    """
    return any(image.is_symlink() or image.exists() for image in _images(file))


def is_list_of_elsewhere(file: Path) -> bool:
    """Whether a JSON file lists images and labels, none of which is where it says: it may have another base folder."""
    if not any(True for _ in _images(file)) or is_datalist(file):
        return False
    return not any(re.search(r"_\d{4}$", stem(image)) for image in listed(file.parent / "imagesTr"))


def _images(file: Path) -> Iterator[Path]:
    """The first image of each case of a list, up to one that is none; nothing if it is no list."""
    try:
        for item in json.loads(file.read_text(encoding="utf-8-sig"))["training"]:
            yield file.parent / (item["image"][0] if isinstance(item["image"], list) else item["image"])
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return


def datalist_of_elsewhere(path: Path) -> bool:
    """Whether a path is, or holds, nothing but a list of files that are elsewhere."""
    return _file(path, is_list_of_elsewhere) is not None


def _file(path: Path, wanted: Callable[[Path], bool] = is_datalist) -> Path | None:
    candidates = listed(path, ".json") if path.is_dir() else [path] if path.suffix == ".json" else []
    found = [file for file in candidates if wanted(file)]
    if len(found) > 1:
        raise LossevoError(
            f"{path}: {len(found)} datalists ({', '.join(file.name for file in found)}); give one of the files"
        )
    return found[0] if found else None


def _scan(path: Path) -> Scan:
    file = _file(path) or _file(path, is_list_of_elsewhere) or (path if path.is_file() else path / "dataset.json")
    if not file.is_file():
        raise LossevoError(f"{path}: no JSON file with a list 'training' of images and labels")
    description = read_json(file, "a list 'training' of images and labels")
    problems: list[Problem] = []
    rows = []
    for part in ("training", "validation"):
        items = description.get(part, [])
        if not isinstance(items, list):
            raise LossevoError(f'{file}: "{part}" must be a list of images and labels')
        for number, item in enumerate(items):
            try:
                rows.append(_row(item))
            except (KeyError, TypeError, ValueError, OverflowError):
                expected = '{"image": FILE, "label": FILE} and perhaps "fold": NUMBER'
                message = f"{file}: {part}[{number}] is {shown(item)}, expected {expected}"
                problems.append(error("invalid-item", message, file))
    cases, more = cases_from(rows, file)
    if "labels" in description:
        names, named_in = json_label_names(description["labels"], file), file.name
        label_names = {value: name for value, name in sorted(names.items()) if value}
        unreadable: list[Problem] = []
    else:
        label_names, unreadable = found_label_names([label.file for case in cases for label in case.labels])
        named_in = "the other labels"
    modality = description.get("channel_names", description.get("modality"))
    channel_names = json_channel_names(modality, file) if modality is not None else channel_names_of(cases)
    problems += [*more, *unreadable]
    return Scan("datalist", file.parent, cases, label_names, channel_names, tuple(problems), labels_named_in=named_in)


def _row(item: dict[str, Any]) -> Row:
    images = item["image"] if isinstance(item["image"], list) else [item["image"]]
    fold = item.get("fold")
    if fold is not None and (isinstance(fold, bool) or not isinstance(fold, int)):
        raise ValueError
    if not images or not all(isinstance(name, str) and name for name in (*images, item["label"])):
        raise ValueError
    return Row(
        images=tuple(images),
        label=item["label"],
        subject=None if item.get("subject") is None else str(item["subject"]),
        case_id=None if item.get("case") is None else str(item["case"]),
        fold=fold,
    )


DATALIST = Reader(
    "datalist",
    "a JSON file with a list 'training' of images and labels (Decathlon, MONAI)",
    lambda path: _file(path) is not None,
    _scan,
)
