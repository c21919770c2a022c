"""VerSe'19 and '20 (CT), subject-based release, and data sets named alike (https://github.com/anjany/verse).

``rawdata/sub-verse004/sub-verse004[_dir-ax]_ct.nii.gz`` and ``derivatives/sub-verse004/…_seg-vert_msk.nii.gz``, below
any number of parts (``dataset-verse19training``, …). Several scans of a subject stay together in splits.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from lossevo.data.labels import LEVELS
from lossevo.data.readers.bids_names import BidsName, match, subject_files
from lossevo.data.readers.listing import folders, listed, stem, walk
from lossevo.data.readers.reader import Reader
from lossevo.data.scan import CaseFiles, LabelFile, Problem, Scan, error, warning

LABEL_NAMES = {
    **dict(enumerate((level for level in LEVELS if level[0] != "S" and level != "T13"), start=1)),
    26: "sacrum",
    27: "coccyx",
    28: "T13",
}
MASK = "_seg-vert_msk.nii.gz"


def _roots(path: Path) -> list[Path]:
    """The parts of the data set: folders with rawdata and derivatives."""
    return [folder for folder in walk(path, depth=2) if (folder / "rawdata").is_dir()] if path.is_dir() else []


def _matches(path: Path) -> bool:
    return any(
        listed(folder, MASK)
        for root in _roots(path)
        if (root / "derivatives").is_dir()
        for folder in (root / "derivatives", *folders(root / "derivatives"))
    )


def _scan(path: Path) -> Scan:
    cases: dict[str, CaseFiles] = {}
    problems: list[Problem] = []
    for root in _roots(path):
        images = [file for file in subject_files(root / "rawdata") if not BidsName.of(file).is_label]
        masks_of: dict[Path, list[Path]] = defaultdict(list)
        for mask in subject_files(root / "derivatives"):
            if mask.name.endswith(MASK):
                fitting = match(mask, images).images
                if len(fitting) == 1:
                    masks_of[fitting[0]].append(mask)
                else:
                    message = f"{mask}: {len(fitting)} images in rawdata fit its name, expected one"
                    problems.append(error("missing-image" if not fitting else "ambiguous-label", message, mask))
        for image in images:
            case_id = stem(image)
            masks = masks_of[image]
            if not masks:
                message = f"{image}: no mask …{MASK} in derivatives; the scan is left out"
                problems.append(warning("missing-label", message, image, case_id))
            elif len(masks) > 1 or case_id in cases:
                message = f"{image}: {len(masks)} masks, or a scan of the same name in another part; keep one"
                problems.append(error("duplicate-case", message, image, case_id))
            else:
                subject = f"sub-{BidsName.of(image).entities['sub']}"
                cases[case_id] = CaseFiles(case_id, subject, (image,), (LabelFile(masks[0]),))
    if not cases and not problems:
        problems.append(error("empty", f"{path}: rawdata holds no sub-…_ct.nii.gz: the cohort is empty", path))
    ordered = tuple(cases[case_id] for case_id in sorted(cases))
    return Scan(
        "verse",
        path,
        ordered,
        LABEL_NAMES,
        ("CT",),
        tuple(problems),
        labels_named_in="VerSe's table",
        names_of_format=True,
    )


VERSE = Reader("verse", f"rawdata/sub-…/…_ct.nii.gz and derivatives/sub-…/…{MASK}", _matches, _scan)
