"""Writing nnU-Net v2 raw data sets: what ``lossevo data convert`` and ``lossevo data phantom`` make.

The folder appears at once when it is complete; a kill half way leaves a folder beside it whose name says so.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from lossevo.data.cohort import Case, Cohort
from lossevo.data.files import Affine
from lossevo.data.labels import SEPARATE, LabelScheme, classes_of
from lossevo.data.loading import read_case
from lossevo.data.output_folder import refuse_overlap, refuse_used
from lossevo.data.readers import read_cohort, scan
from lossevo.data.readers.table import subject_of
from lossevo.data.scan import CaseFiles
from lossevo.data.splits import k_folds, splits_json, stated_folds, subjects_of_folds
from lossevo.errors import LossevoError

Progress = Callable[[int, int, str], None]

# nnU-Net's own number of folds, and the seed that it draws them with.
FOLDS, FOLDS_SEED = 5, 12345
_ENDING = ".nii.gz"


@dataclass(frozen=True, slots=True)
class Item:
    """A case to be written: image (M, X, Y, Z), label (X, Y, Z) with the values of the classes, and affine (RAS)."""

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    affine: Affine


def convert(
    source: str | Path,
    out: str | Path,
    *,
    format: str | None = None,
    labels: LabelScheme = SEPARATE,
    name: str | None = None,
    progress: Progress | None = None,
) -> Cohort:
    """Write the labelled cases of a data set as nnU-Net v2 raw; returns the cohort that was written.

    Nothing is resampled: axes are flipped and permuted to RAS, so that image and label are stored alike, and every
    voxel stays where it is. Intensities keep their values (as integers where they are integers, else 32-bit floats).
    ``dataset.json`` also says which patient each case is of. ``splits_final.json`` is written where the source states
    folds, and where patients have several cases, which nnU-Net's own folds would part; it belongs into the folder
    that nnU-Net preprocesses to.

    Raises:
        LossevoError: the source cannot be read or a case of it not be used, its folds part a patient, or ``out`` is in
            use, cannot be written, or is around or inside the source or the current folder.
    """
    refuse_overlap(Path(out), Path(source))
    refuse_used(Path(out))
    found = scan(source, format=format)
    cohort = read_cohort(source, format=format, labels=labels)
    classes = classes_of(labels, found.label_names.values(), source=str(source))
    table = np.zeros(1 + max(found.label_names), dtype=np.uint8)
    for value, structure in found.label_names.items():
        table[value] = classes.of_structure[structure]

    def read(case: Case) -> Item:
        stored = read_case(_files(case), found)
        return Item(stored.image, table[stored.label], stored.affine)

    origin = {"name": name or cohort.name, "converted_from": f"{found.format}: {found.folder.resolve()}"}
    folds = {case.case_id: _files(case).fold for case in cohort.cases}
    write_nnunet(cohort, Path(out), read, folds=folds, description=origin, progress=progress)
    return cohort


def write_generated(
    cohort: Cohort, out: str | Path, *, description: Mapping[str, Any], progress: Progress | None = None
) -> None:
    """Write a cohort that lies nowhere, such as the phantom, as nnU-Net v2 raw, centred at the origin.

    Raises:
        LossevoError: ``out`` is in use or cannot be written.
    """

    def read(case: Case) -> Item:
        volume = case.load()
        affine = np.diag([*volume.spacing_mm, 1.0])
        affine[:3, 3] = [
            -side * (size - 1) / 2 for side, size in zip(volume.spacing_mm, volume.label.shape, strict=True)
        ]
        return Item(volume.image, volume.label, affine)

    write_nnunet(cohort, Path(out), read, folds={}, description=description, progress=progress)


def write_nnunet(
    cohort: Cohort,
    out: Path,
    read: Callable[[Case], Item],
    *,
    folds: Mapping[str, int | None],
    description: Mapping[str, Any],
    progress: Progress | None = None,
) -> None:
    """Write the cases that ``read`` gives, as many at a time as there are CPUs; ``folds`` are those stated by case id.

    Raises:
        LossevoError: ``out`` is in use or cannot be written, two cases would get the same name, the folds part a
            patient, or ``read`` raises it.
    """
    refuse_overlap(out)
    refuse_used(out)
    place = out.resolve()  # of 'x/..' no name is left to write beside
    name_of = _names(cohort)
    splits = _splits(cohort, name_of, folds)
    document = _document(cohort, name_of) | dict(description)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f"{place.name}.incomplete-{secrets.token_hex(4)}")
        part.mkdir()
        try:
            for folder in ("imagesTr", "labelsTr"):
                (part / folder).mkdir()
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                job = partial(_write_case, part, name_of, read)
                for done, case_id in enumerate(pool.map(job, cohort.cases), start=1):
                    if progress is not None:
                        progress(done, len(cohort.cases), case_id)
            if splits is not None:
                (part / "splits_final.json").write_text(splits, encoding="utf-8")
            text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
            (part / "dataset.json").write_text(text, encoding="utf-8")
            if place.exists():
                place.rmdir()
            part.rename(place)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as problem:
        raise LossevoError(f"{out}: cannot be written ({problem.strerror or problem})") from None


def _names(cohort: Cohort) -> dict[str, str]:
    """Case id -> a name that is safe in file names."""
    name_of = {case.case_id: re.sub(r"[^A-Za-z0-9_.-]+", "-", case.case_id) for case in cohort.cases}
    taken: dict[str, str] = {}
    for case_id, name in name_of.items():
        if (other := taken.setdefault(name.lower(), case_id)) != case_id:
            raise LossevoError(f"cases {other} and {case_id} would both be called {name}; rename one of them")
    return name_of


def _splits(cohort: Cohort, name_of: Mapping[str, str], folds: Mapping[str, int | None]) -> str | None:
    """The text of splits_final.json; None if nnU-Net's own folds will do."""
    subject_of = {case.case_id: case.subject for case in cohort.cases}
    if len({fold for fold in folds.values() if fold is not None}) >= 2:
        tested = subjects_of_folds(stated_folds(folds), subject_of, source=f"the folds of {cohort.name}")
    elif 2 <= len(cohort.subjects) < len(subject_of):
        tested = k_folds(cohort.subjects, min(FOLDS, len(cohort.subjects)), seed=FOLDS_SEED)
    else:
        return None
    return splits_json(tested, {name_of[case_id]: subject for case_id, subject in subject_of.items()})


def _document(cohort: Cohort, name_of: Mapping[str, str]) -> dict[str, Any]:
    subjects = {name_of[case.case_id]: case.subject for case in cohort.cases}
    # A name may tell another patient than the source does.
    plain = all(case == subject == subject_of(case, Path(case), Path()) for case, subject in subjects.items())
    return {
        "channel_names": {str(channel): name for channel, name in enumerate(cohort.channel_names)},
        "labels": {name: value for value, name in enumerate(cohort.class_names)},
        "numTraining": len(cohort.cases),
        "file_ending": _ENDING,
        **({} if plain else {"subjects": subjects}),
    }


def _write_case(folder: Path, name_of: Mapping[str, str], read: Callable[[Case], Item], case: Case) -> str:
    item = read(case)
    name = name_of[case.case_id]
    for channel, voxels in enumerate(item.image):
        _save(_compact(voxels), item.affine, folder / "imagesTr" / f"{name}_{channel:04d}{_ENDING}")
    _save(item.label, item.affine, folder / "labelsTr" / f"{name}{_ENDING}")
    return case.case_id


def _save(voxels: NDArray[Any], affine: Affine, file: Path) -> None:
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    try:
        image.set_qform(affine, code=1, strip_shears=False)
    except HeaderDataError:
        # It cannot say what a sheared affine says; then there is none, rather than one that differs.
        image.header["qform_code"] = 0
    nib.save(image, file)


def _compact(voxels: NDArray[np.float32]) -> NDArray[Any]:
    """The same values in the smallest integer type that holds them, if they are integers."""
    low, high = float(voxels.min()), float(voxels.max())
    for kind in (np.uint8, np.int16, np.uint16, np.int32):
        limits = np.iinfo(kind)
        if limits.min <= low and high <= min(limits.max, 2**24) and np.array_equal(voxels, np.rint(voxels)):
            return voxels.astype(kind)
    return voxels


def _files(case: Case) -> CaseFiles:
    assert case.files is not None  # every reader names them
    return case.files


__all__ = ["Item", "convert", "write_generated", "write_nnunet"]
