"""Writing nnU-Net v2 raw data sets: what ``lossevo data convert`` and ``lossevo data phantom`` make.

The folder appears at once when it is complete; a kill half way leaves a folder beside it whose name says so.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lossevo.cpus import usable_cpus
from lossevo.data.cohort import Case, Cohort
from lossevo.data.geometry import LARGEST_SKEW, Affine, largest_distance_mm, skew, spacing_of, straightened
from lossevo.data.labels import SEPARATE, LabelScheme, classes_of
from lossevo.data.loading import read_case
from lossevo.data.output_folder import refuse_overlap, refuse_used
from lossevo.data.readers import read_cohort, scan
from lossevo.data.readers.table import subject_of
from lossevo.data.regridding import image_onto, label_onto, upright_grid
from lossevo.data.scan import CaseFiles
from lossevo.data.splits import k_folds, splits_json, stated_folds, subjects_of_folds
from lossevo.data.subjects import CohortWarning
from lossevo.errors import LossevoError

Progress = Callable[[int, int, str], None]

# nnU-Net's own number of folds, and the seed that it draws them with.
FOLDS, FOLDS_SEED = 5, 12345
_ENDING = ".nii.gz"
# A grid that is not at right angles is written as the nearest one that is if that moves no voxel by more than this
# share of its smallest side. Image and label move alike. Beyond it, both are resampled.
LARGEST_MOVE_VOXELS = 0.5
_STRAIGHTENED = f"got the nearest grid that has them; no voxel moved by more than {LARGEST_MOVE_VOXELS:g} of its side"
_RESAMPLED = "were resampled to a grid that has them (image linearly, label by nearest neighbour)"


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

    Axes are flipped and permuted to RAS, so that image and label are stored alike, and every voxel stays where it is.
    Intensities keep their values (as integers where they are integers, else 32-bit floats). nnU-Net wants axes at right
    angles: a case without them gets the nearest grid with them, and is resampled to one if the two differ by more than
    ``LARGEST_MOVE_VOXELS``; a :class:`~lossevo.data.subjects.CohortWarning` says so.
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
    changes: dict[str, str | None] = {}
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f"{place.name}.incomplete-{secrets.token_hex(4)}")
        part.mkdir()
        try:
            for folder in ("imagesTr", "labelsTr"):
                (part / folder).mkdir()
            with ThreadPoolExecutor(usable_cpus()) as pool:
                job = partial(_write_case, part, name_of, read)
                for done, (case, change) in enumerate(zip(cohort.cases, pool.map(job, cohort.cases), strict=True), 1):
                    changes[case.case_id] = change
                    if progress is not None:
                        progress(done, len(cohort.cases), case.case_id)
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
    _tell(changes)


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


def _write_case(folder: Path, name_of: Mapping[str, str], read: Callable[[Case], Item], case: Case) -> str | None:
    """Write a case; returns what had to be done to its grid."""
    item, change = _upright(read(case))
    name = name_of[case.case_id]
    for channel, voxels in enumerate(item.image):
        _save(_compact(voxels), item.affine, folder / "imagesTr" / f"{name}_{channel:04d}{_ENDING}")
    _save(item.label, item.affine, folder / "labelsTr" / f"{name}{_ENDING}")
    return change


def _upright(item: Item) -> tuple[Item, str | None]:
    """The case on a grid at right angles, and what was done to it beyond rounding."""
    shape = item.label.shape
    straight = straightened(item.affine, shape)
    moved = largest_distance_mm(item.affine, straight, shape) / min(spacing_of(item.affine))
    if moved <= LARGEST_MOVE_VOXELS:
        return replace(item, affine=straight), _STRAIGHTENED if skew(item.affine) > LARGEST_SKEW else None
    grid, size = upright_grid(item.affine, shape)
    image = np.stack([image_onto(channel, item.affine, grid, size) for channel in item.image])
    return Item(image, label_onto(item.label, item.affine, grid, size), grid), _RESAMPLED


def _tell(changes: Mapping[str, str | None]) -> None:
    """Warn of the cases whose grid was changed."""
    for change in (_STRAIGHTENED, _RESAMPLED):
        if cases := [case_id for case_id, made in changes.items() if made == change]:
            some = ", ".join(cases[:5]) + (f" and {len(cases) - 5} more" if len(cases) > 5 else "")
            warnings.warn(
                f"{len(cases)} case(s) with axes that are not at right angles {change}: {some}",
                CohortWarning,
                stacklevel=2,
            )


def _save(voxels: NDArray[Any], affine: Affine, file: Path) -> None:
    """Write a volume whose axes are at right angles, so that the qform says the same as the sform."""
    import nibabel as nib

    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
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
