"""SPIDER lumbar spine MRI (van der Graaf et al. 2024; https://zenodo.org/records/10159290).

``images/PATIENT_SEQUENCE.mha`` and ``masks/`` of the same names; the up to three series (t1, t2, t2_SPACE) of a patient
stay together in splits. Each of the two archives may have been unpacked into a folder of its own name.

Vertebrae are numbered from the bottom, so their levels are *counted*, not identified: 1 is called L5, 2 L4, …. In a
patient with four or six lumbar vertebrae every name is off by one. 101–125 are vertebrae that the edge of the image
cuts off (``L1 (partial)``); a label scheme makes them background, or merges them into the vertebra.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from lossevo.data.labels import LEVELS, PARTIAL, disc
from lossevo.data.readers.listing import child, listed, lone_folders, stem
from lossevo.data.readers.reader import Reader
from lossevo.data.scan import CaseFiles, LabelFile, Problem, Scan, error, warning

# From the bottom: L5 … L1, T12 … T1, C7 … C1, and what a 25th vertebra would be.
_COUNTED = [level for level in reversed(LEVELS) if level[0] != "S" and level not in ("L6", "T13")]
_BELOW = ["S1", *_COUNTED]
LABEL_NAMES = {
    **dict(enumerate(_COUNTED, start=1)),
    25: "vertebra 25",
    100: "canal",
    **{100 + number: f"{level}{PARTIAL}" for number, level in enumerate(_COUNTED, start=1)},
    125: f"vertebra 25{PARTIAL}",
    **{200 + number: disc(level, _BELOW[number - 1]) for number, level in enumerate(_COUNTED, start=1)},
    225: "disc 25",
}


def _pairs(path: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    folders = [child(path, name) if path.is_dir() else None for name in ("images", "masks")]
    images, masks = (
        {stem(file): file for file in listed(lone_folders(folder)[-1])} if folder else {} for folder in folders
    )
    return images, masks


def _matches(path: Path) -> bool:
    images, masks = _pairs(path)
    return bool(masks) and any(re.fullmatch(r"\d+_t[12](_.+)?", name, re.I) for name in images)


def _scan(path: Path) -> Scan:
    images, masks = _pairs(path)
    cases = []
    problems: list[Problem] = []
    for case_id in sorted(images.keys() | masks.keys(), key=_order):
        if case_id not in masks:
            file = images[case_id]
            problems.append(error("missing-label", f"{file}: no mask of this name in masks", file, case_id))
        elif case_id not in images:
            file = masks[case_id]
            problems.append(error("missing-image", f"{file}: no image of this name in images", file, case_id))
        elif (match := re.match(r"(\d+)_", case_id)) is None:
            file = images[case_id]
            message = f"{file}: expected a name like 12_t2.mha (patient, underscore, sequence)"
            problems.append(error("image-name", message, file, case_id))
        else:
            cases.append(CaseFiles(case_id, match[1], (images[case_id],), (LabelFile(masks[case_id]),)))
    if not cases and not problems:
        problems.append(error("empty", f"{path}: images and masks hold no .mha file: the cohort is empty", path))
    problems += _missing_of_overview(path / "overview.csv", images)
    problems.append(
        warning(
            "levels-counted",
            f"{path}: SPIDER counts vertebrae from the bottom; they are called L5, L4, … as if each patient had five "
            "lumbar vertebrae",
        )
    )
    return Scan(
        "spider",
        path,
        tuple(cases),
        LABEL_NAMES,
        ("MR",),
        tuple(problems),
        labels_named_in="SPIDER's table",
        names_of_format=True,
    )


def _order(case_id: str) -> tuple[int, str]:
    number = re.match(r"\d+", case_id)
    return (int(number[0]) if number else 0, case_id)


def _missing_of_overview(file: Path, images: dict[str, Path]) -> list[Problem]:
    """What overview.csv lists and is not there; the file is optional."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            names = [line.get("new_file_name") or "" for line in csv.DictReader(stream)]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    missing = sorted(filter(None, {stem(name.strip()) for name in names}.difference(images)), key=_order)
    if not missing:
        return []
    return [warning("incomplete", f"{file}: {len(missing)} of its series are not in images ({missing[0]}, …)", file)]


SPIDER = Reader("spider", "images/PATIENT_SEQUENCE.mha and masks/ of the same names", _matches, _scan)
