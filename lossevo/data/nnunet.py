"""Reader of nnU-Net v2 raw data sets: ``dataset.json``, ``imagesTr/CASE_XXXX.nii.gz``, ``labelsTr/CASE.nii.gz``.

The format: https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md. One case is one subject.
``dataset.json`` may also be in the older style (nnU-Net v1, Medical Segmentation Decathlon) that calls the channels
``modality`` and maps ``{"1": "name"}``, as long as the files are named as above.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from lossevo.data.cohort import Case, Cohort, Grid, Volume
from lossevo.errors import LossevoError

READABLE_ENDINGS = (".nii.gz", ".nii")

# Two affines count as one when no voxel of the volume lies further apart than this share of the smallest voxel side:
# a quaternion in a header is rounded, a label drawn on another grid is off by half a voxel or more.
AFFINE_TOLERANCE_VOXELS = 0.1


def read_nnunet(path: str | Path) -> Cohort:
    """Read the training part of an nnU-Net v2 raw data set; only label headers, voxels are for each case's ``load``.

    Raises:
        LossevoError: the folder, ``dataset.json`` or a file it calls for is missing or malformed. ``Case.load`` raises
            it for files that cannot be read, shapes or affines that differ, voxels that are not finite, and label
            values that ``dataset.json`` does not name.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise LossevoError(
            f"{folder}: no such folder; expected an nnU-Net raw data set (dataset.json, imagesTr, labelsTr)"
        )
    description_file = folder / "dataset.json"
    description = _read_description(description_file)
    class_names = _class_names(description.get("labels"), description_file)
    channel_names = _channel_names(description.get("channel_names", description.get("modality")), description_file)
    ending = description.get("file_ending", ".nii.gz")
    if ending not in READABLE_ENDINGS:
        raise LossevoError(
            f"{description_file}: file_ending {ending!r} cannot be read, only {' and '.join(READABLE_ENDINGS)}; "
            "convert the images and labels"
        )
    files = _find_files(folder, ending, channels=len(channel_names))
    expected = description.get("numTraining", len(files))
    if expected != len(files):
        raise LossevoError(
            f"{description_file}: numTraining is {expected}, but imagesTr holds {len(files)} case(s); "
            "complete the data set or correct the number"
        )
    cases = tuple(
        Case(case_id, case_id, functools.partial(_load, case_id, images, label, class_names), _read_grid(label))
        for case_id, (images, label) in sorted(files.items())
    )
    return Cohort(folder.resolve().name, class_names, channel_names, cases)


def _read_description(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise LossevoError(f"{file}: missing; an nnU-Net raw data set names its channels and labels there")
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LossevoError(f"{file}: not readable as JSON ({error})") from error
    if not isinstance(description, dict):
        raise LossevoError(f"{file}: expected a JSON object with channel_names, labels, numTraining and file_ending")
    return description


def _class_names(labels: Any, file: Path) -> tuple[str, ...]:
    if not isinstance(labels, dict) or not labels:
        raise LossevoError(f'{file}: "labels" must map names to values, such as {{"background": 0, "L1": 1}}')
    if all(key.isdecimal() and isinstance(value, str) for key, value in labels.items()):
        values = {name: int(value) for value, name in labels.items()}
        if len(values) < len(labels):
            raise LossevoError(f'{file}: "labels" gives the same name to several values')
    else:
        values = labels
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise LossevoError(
                f'{file}: label "{name}" has the value {value!r}, expected an integer (regions are not supported)'
            )
    if "ignore" in values:
        raise LossevoError(f'{file}: the "ignore" label is not supported; leave out the partly annotated cases')
    names = sorted(values, key=values.__getitem__)
    if [values[name] for name in names] != list(range(len(names))) or not 2 <= len(names) <= 256:
        raise LossevoError(
            f'{file}: "labels" must have the values 0 (background), 1, 2, ... without gaps and at least one foreground '
            f"class, got {sorted(values.values())}"
        )
    return ("background", *names[1:])


def _channel_names(channels: Any, file: Path) -> tuple[str, ...]:
    if (
        not isinstance(channels, dict)
        or set(channels) != {str(index) for index in range(len(channels))}
        or not channels
    ):
        raise LossevoError(f'{file}: "channel_names" must map "0", "1", ... to names, such as {{"0": "T2"}}')
    return tuple(str(channels[str(index)]) for index in range(len(channels)))


def _find_files(folder: Path, ending: str, *, channels: int) -> dict[str, tuple[list[Path], Path]]:
    """Case id -> its image files in channel order, and its label file."""
    images: dict[str, dict[int, Path]] = {}
    for file in _listed(folder / "imagesTr", ending):
        match = re.fullmatch(r"(.+)_(\d{4})", file.name.removesuffix(ending))
        if match is None:
            raise LossevoError(f"{file}: expected a name like CASE_0000{ending} (case, underscore, four-digit channel)")
        images.setdefault(match[1], {})[int(match[2])] = file
    labels = {file.name.removesuffix(ending): file for file in _listed(folder / "labelsTr", ending)}
    if not images and not labels:
        raise LossevoError(f"{folder}: imagesTr holds no {ending} file: the cohort is empty")
    for case_id in sorted(images.keys() | labels.keys()):
        if case_id not in labels:
            raise LossevoError(
                f"{next(iter(images[case_id].values()))}: no label {folder / 'labelsTr' / case_id}{ending}"
            )
        for channel in range(channels):
            if channel not in images.get(case_id, {}):
                raise LossevoError(f"{labels[case_id]}: no image {folder / 'imagesTr' / case_id}_{channel:04d}{ending}")
        if len(images[case_id]) > channels:
            raise LossevoError(
                f"{images[case_id][max(images[case_id])]}: dataset.json names {channels} channel(s) only; "
                "name this one there or remove the file"
            )
    return {case_id: ([images[case_id][c] for c in range(channels)], labels[case_id]) for case_id in images}


def _listed(folder: Path, ending: str) -> list[Path]:
    if not folder.is_dir():
        raise LossevoError(f"{folder}: no such folder; an nnU-Net raw data set keeps its training cases there")
    return sorted(file for file in folder.iterdir() if file.name.endswith(ending) and not file.name.startswith("."))


def _load(case_id: str, image_files: list[Path], label_file: Path, class_names: tuple[str, ...]) -> Volume:
    label, affine = _read_nifti(label_file)
    image = np.empty((len(image_files), *label.shape), dtype=np.float32)
    for channel, file in enumerate(image_files):
        voxels, image_affine = _read_nifti(file)
        if voxels.shape != label.shape:
            raise LossevoError(
                f"{file}: shape {voxels.shape} differs from {label.shape} of {label_file}; "
                "resample the label to the image"
            )
        distance_mm = _largest_distance_mm(image_affine, affine, label.shape)
        if distance_mm > AFFINE_TOLERANCE_VOXELS * min(_spacing_mm(affine)):
            raise LossevoError(
                f"{file}: its affine places voxels up to {distance_mm:.3g} mm away from where {label_file} has them; "
                "resample the label to the image"
            )
        image[channel] = voxels
        if not np.isfinite(image[channel]).all():
            count = np.count_nonzero(~np.isfinite(image[channel]))
            raise LossevoError(f"{file}: {count} voxel(s) are NaN or infinite; replace them or leave out the case")
    return Volume(case_id, case_id, image, _checked_label(label, label_file, class_names), _spacing_mm(affine))


def _read_nifti(file: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Voxels and affine with the axes flipped and permuted to the closest to right, anterior, superior."""
    with _readable(file):
        canonical = nib.as_closest_canonical(_open_nifti(file))
        return np.asanyarray(canonical.dataobj), canonical.affine


def _read_grid(file: Path) -> Grid:
    with _readable(file):
        stored = _open_nifti(file)
    x, y, z = np.argsort(nib.io_orientation(stored.affine)[:, 0])
    spacing_mm = _spacing_mm(stored.affine)
    return Grid((stored.shape[x], stored.shape[y], stored.shape[z]), (spacing_mm[x], spacing_mm[y], spacing_mm[z]))


def _open_nifti(file: Path) -> Any:
    stored = nib.load(file)
    if len(stored.shape) != 3:
        raise LossevoError(f"{file}: shape {stored.shape}, expected a 3D volume (one file per channel)")
    if stored.get_data_dtype().kind not in "uif":
        raise LossevoError(f"{file}: voxels of type {stored.get_data_dtype()}, expected integers or floats")
    if not np.isfinite(stored.affine).all() or np.linalg.det(stored.affine) == 0:
        raise LossevoError(f"{file}: its affine is singular, so voxel sizes are unknown; correct the header")
    return stored


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error) as error:
        raise LossevoError(f"{file}: not a readable NIfTI file, perhaps truncated ({error}); copy it again") from error


def _spacing_mm(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    # From the affine: the header's pixdim may disagree with the sform, and the sform is what viewers show.
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return (x, y, z)


def _largest_distance_mm(first: NDArray[np.float64], second: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """Largest distance between where two affines put a voxel; the maximum is at a corner of the volume."""
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, size - 1) for size in shape))])
    return float(np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1).max())


def _checked_label(label: NDArray[Any], file: Path, class_names: tuple[str, ...]) -> NDArray[np.uint8]:
    if not np.isfinite(label).all():
        raise LossevoError(f"{file}: the label has NaN or infinite voxels; expected integers")
    values = np.unique(label)
    # Header scaling leaves integers off by rounding; interpolation leaves them off by much more.
    whole = np.rint(values)
    if np.abs(values - whole).max() > 1e-3:
        worst = values[np.abs(values - whole).argmax()]
        raise LossevoError(f"{file}: label value {worst:.4g} is not an integer; was the label interpolated?")
    unknown = [int(value) for value in whole if not 0 <= value < len(class_names)]
    if unknown:
        raise LossevoError(
            f"{file}: label value(s) {', '.join(map(str, unknown[:5]))} not named in dataset.json, "
            f"which has 0 to {len(class_names) - 1}; name them there or correct the label"
        )
    integers: NDArray[np.uint8] = np.rint(label).astype(np.uint8)
    return integers
