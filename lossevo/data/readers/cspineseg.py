"""CSpineSeg cervical spine MRI (Duke; MIDRC H6K0-A61V; Scientific Data 2025;12:1695).

``annotation/593973-NNNNNN_Study-MR-N_Series-M.nii.gz`` are the images, ``segmentation/…_SEG.nii.gz`` the labels:
vertebral bodies and discs, without levels. Patients may have several exams, which stay together in splits. One series
of the release is a localizer and left out.
"""

from __future__ import annotations

import re
from pathlib import Path

from lossevo.data.files import read_header
from lossevo.data.readers.listing import child, listed, stem
from lossevo.data.readers.reader import Reader
from lossevo.data.scan import CaseFiles, LabelFile, Problem, Scan, error, warning
from lossevo.errors import LossevoError

# Series 1.2.826.0.1.3680043.10.474.593973.22529. Sagittal exams have some 16 slices.
LOCALIZER_UID = "593973.22529"
LOCALIZER_SHAPE = [56, 512, 512]
_NAME = re.compile(r"(\d+-\d+)_Study-.+_Series-.+", re.I)


def _pairs(path: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    found = []
    for name in ("annotation", "segmentation"):
        folder = child(path, name) if path.is_dir() else None
        found.append(
            {re.sub(r"_SEG$", "", stem(file), flags=re.I): file for file in (listed(folder) if folder else [])}
        )
    return found[0], found[1]


def _matches(path: Path) -> bool:
    images, labels = _pairs(path)
    return bool(labels) and any(_NAME.fullmatch(name) for name in images)


def _scan(path: Path) -> Scan:
    images, labels = _pairs(path)
    problems: list[Problem] = []
    cases = []
    for case_id in sorted(images.keys() | labels.keys()):
        file = images.get(case_id) or labels[case_id]
        match = _NAME.fullmatch(case_id)
        if case_id not in labels:
            problems.append(error("missing-label", f"{file}: no segmentation/{case_id}_SEG.nii.gz", file, case_id))
        elif case_id not in images:
            problems.append(error("missing-image", f"{file}: no annotation/{case_id}.nii.gz", file, case_id))
        elif match is None:
            message = f"{file}: expected a name like 593973-000001_Study-MR-1_Series-2.nii.gz"
            problems.append(error("image-name", message, file, case_id))
        elif _is_localizer(file):
            message = f"{file}: the localizer that this data set is known to contain; left out"
            problems.append(warning("localizer", message, file, case_id))
        else:
            cases.append(CaseFiles(case_id, match[1], (file,), (LabelFile(labels[case_id]),)))
    if not cases and not problems:
        problems.append(error("empty", f"{path}: annotation holds no image: the cohort is empty", path))
    names = {1: "vertebral body", 2: "disc"}
    return Scan("cspineseg", path, tuple(cases), names, ("T2",), tuple(problems), labels_named_in="CSpineSeg's table")


def _is_localizer(file: Path) -> bool:
    """By its name or size: files are not named after the series' UID."""
    if LOCALIZER_UID in file.name:
        return True
    try:
        return sorted(read_header(file).shape) == LOCALIZER_SHAPE
    except LossevoError:
        return False  # reading the case will say what is wrong


CSPINESEG = Reader(
    "cspineseg", "annotation/PATIENT_Study-…_Series-….nii.gz and segmentation/…_SEG.nii.gz", _matches, _scan
)
