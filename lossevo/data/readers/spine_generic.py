"""spine-generic (https://github.com/spine-generic/data-multi-subject): BIDS with labels of several kinds.

Images ``sub-unf01/anat/sub-unf01_T2w.nii.gz``; labels ``derivatives/labels/sub-unf01/anat/…_T2w_label-SC_seg.nii.gz``.
Kinds that are read: cord (``label-SC_seg``, formerly ``seg-manual``), canal, white and gray matter, lesion, and the
vertebrae and discs of ``label-spine_dseg`` with the values of TotalSpineSeg. Points (``discs_dlabel``) and rootlets are
no structures to segment. Each contrast is a case; a case takes part in what it has labels for. Labels of images that
were made of others (``rec-average``, ``space-other``), and series in 4D, are left out. The files come with ``git annex
get``.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from pathlib import Path

from lossevo.data.files import read_header
from lossevo.data.labels import disc
from lossevo.data.readers.bids_names import BidsName, match, second_label, subject_files, unmatched
from lossevo.data.readers.listing import stem
from lossevo.data.readers.reader import Reader
from lossevo.data.scan import CaseFiles, LabelFile, Problem, Scan, error, warning
from lossevo.errors import LossevoError

_C, _T, _L = ([f"{region}{n}" for n in range(1, count + 1)] for region, count in (("C", 7), ("T", 12), ("L", 6)))
_DISCS = [disc(upper, lower) for upper, lower in pairwise([*_C[1:], *_T, *_L[:5]])]
# TotalSpineSeg's numbers; white and gray matter and lesion, of which it has none, come behind them.
SPINE_MAP = {
    **dict(enumerate(_C, start=11)),
    **dict(enumerate(_T, start=21)),
    **dict(enumerate(_L, start=41)),
    50: "sacrum",
    **dict(zip([*range(63, 68), *range(71, 83), *range(91, 96)], _DISCS, strict=True)),
    100: disc("L5", "S1"),
}
# Later ones lie inside earlier ones, and win where they overlap.
KINDS = {"spine": None, "canal": 2, "SC": 1, "WM": 201, "GM": 202, "lesion": 203}
LABEL_NAMES = {**SPINE_MAP, 1: "cord", 2: "canal", 201: "white matter", 202: "gray matter", 203: "lesion"}


def _labels(path: Path) -> dict[Path, str]:
    """Label files and their kinds, newer names first."""
    found = {}
    for file in subject_files(path / "derivatives" / "labels"):
        name = BidsName.of(file)
        kind = name.entities.get("label")
        if kind is None and name.entities.get("seg") == "manual":
            found[file] = "SC"
        elif kind in KINDS and name.suffix == ("dseg" if kind == "spine" else "seg"):
            found[file] = kind
    return dict(sorted(found.items(), key=lambda item: _is_old(item[0])))


def _is_old(label: Path) -> bool:
    """Whether a label has the name that ``label-SC_seg`` has taken the place of."""
    return "label" not in BidsName.of(label).entities


def _is_series(image: Path) -> bool:
    """Whether an image is 4D; reading it will tell what else is wrong."""
    try:
        return len(read_header(image).shape) == 4
    except LossevoError:
        return False


def _scan(path: Path) -> Scan:
    images = [file for file in subject_files(path) if not BidsName.of(file).is_label]
    kinds_of: dict[Path, dict[str, Path]] = defaultdict(dict)
    problems: list[Problem] = []
    for file, kind in _labels(path).items():
        found = match(file, images)
        if len(found.images) != 1:
            problems.append(unmatched(file, found, path))
        elif (first := kinds_of[found.images[0]].setdefault(kind, file)) == file:
            continue
        elif _is_old(file) and not _is_old(first):
            message = f"{file}: left out, as {first.name} is of the same structure, by its newer name"
            problems.append(warning("older-label", message, file))
        else:
            problems.append(second_label(file, first))
    for image in filter(_is_series, list(kinds_of)):
        del kinds_of[image]
        images.remove(image)
        message = f"{image}: a series in 4D, expected one volume; it is left out with its labels"
        problems.append(warning("series", message, image))
    cases = tuple(
        CaseFiles(
            stem(image),
            f"sub-{BidsName.of(image).entities['sub']}",
            (image,),
            tuple(LabelFile(kinds_of[image][kind], value) for kind, value in KINDS.items() if kind in kinds_of[image]),
        )
        for image in images
        if image in kinds_of
    )
    unlabelled = [image for image in images if image not in kinds_of]
    if unlabelled:
        message = f"{path}: {len(unlabelled)} images without label ({unlabelled[0].name}, …) are left out"
        problems.append(warning("missing-label", message, unlabelled[0]))
    if not cases:
        problems.append(error("empty", f"{path}: no image with a label: the cohort is empty", path))
    kinds = {kind for labels in kinds_of.values() for kind in labels}
    names = {
        value: name
        for value, name in LABEL_NAMES.items()
        if any(KINDS[kind] == value or (kind == "spine" and value in SPINE_MAP) for kind in kinds)
    }
    return Scan(
        "spine-generic",
        path,
        cases,
        names,
        ("MR",),
        tuple(problems),
        labels_named_in="TotalSpineSeg's table",
        names_of_format=True,
    )


SPINE_GENERIC = Reader(
    "spine-generic",
    "sub-…/anat/ and derivatives/labels/sub-…/anat/…_label-SC_seg.nii.gz",
    lambda path: bool(_labels(path)),
    _scan,
)
