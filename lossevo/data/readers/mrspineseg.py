"""MRSpineSeg challenge (T2 sagittal, lower spine): ``train/MR/Case12.nii.gz`` and ``train/Mask/mask_case12.nii.gz``."""

from __future__ import annotations

import re
from pathlib import Path

from lossevo.data.labels import disc
from lossevo.data.readers.listing import child, listed, stem
from lossevo.data.readers.reader import Reader
from lossevo.data.scan import CaseFiles, LabelFile, Problem, Scan, error

_VERTEBRAE = ("sacrum", "L5", "L4", "L3", "L2", "L1", "T12", "T11", "T10", "T9")
_LEVELS = ("S1", *_VERTEBRAE[1:])
LABEL_NAMES = {
    **dict(enumerate(_VERTEBRAE, start=1)),
    **{10 + number: disc(_LEVELS[number], _LEVELS[number - 1]) for number in range(1, 10)},
}


def _pairs(path: Path) -> tuple[dict[int, list[Path]], dict[int, list[Path]]]:
    """Images and masks by case number, one each unless something is wrong; ``path`` is ``train`` or the folder above
    it.
    """
    train = (child(path, "train") if path.is_dir() else None) or path
    found: list[dict[int, list[Path]]] = []
    for name, pattern in (("MR", r"case[ _-]?(\d+)"), ("Mask", r"mask[ _-]?case[ _-]?(\d+)")):
        folder = child(train, name) if train.is_dir() else None
        numbered: dict[int, list[Path]] = {}
        for file in listed(folder) if folder else []:
            if match := re.fullmatch(pattern, stem(file), re.I):
                numbered.setdefault(int(match[1]), []).append(file)
        found.append(numbered)
    return found[0], found[1]


def _scan(path: Path) -> Scan:
    images, masks = _pairs(path)
    problems: list[Problem] = []
    for number in sorted(images.keys() ^ masks.keys()):
        [file, *_] = images.get(number) or masks[number]
        code, other = (
            ("missing-label", f"Mask/mask_case{number}") if number in images else ("missing-image", f"MR/Case{number}")
        )
        problems.append(error(code, f"{file}: no {other}.nii.gz beside it", file, f"Case{number}"))
    for number, (first, *others) in [*images.items(), *masks.items()]:
        for file in others:
            message = f"{file}: the same number as {first.name}; rename or remove one"
            problems.append(error("duplicate-case", message, file, f"Case{number}"))
    cases = tuple(
        CaseFiles(f"Case{number}", f"Case{number}", (images[number][0],), (LabelFile(masks[number][0]),))
        for number in sorted(images.keys() & masks.keys())
    )
    if not cases and not problems:
        problems.append(error("empty", f"{path}: no train/MR/CaseN.nii.gz: the cohort is empty", path))
    named_in = "MRSpineSeg's table"
    return Scan(
        "mrspineseg", path, cases, LABEL_NAMES, ("T2",), tuple(problems), labels_named_in=named_in, names_of_format=True
    )


MRSPINESEG = Reader(
    "mrspineseg", "train/MR/CaseN.nii.gz and train/Mask/mask_caseN.nii.gz", lambda path: all(_pairs(path)), _scan
)
