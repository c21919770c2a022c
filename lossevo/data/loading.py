"""From the files of a case to its volume: one orientation, one grid for image and label, label values made classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lossevo.data.cohort import Grid, Volume
from lossevo.data.files import read_header, read_stored
from lossevo.data.geometry import Affine, largest_distance_mm, spacing_of
from lossevo.data.label_map import label_map
from lossevo.data.regridding import label_onto
from lossevo.data.scan import CaseFiles, LabelFile, Scan
from lossevo.data.stored import Geometry, Header, Stored, canonical, canonical_grid
from lossevo.errors import LossevoError

# Two affines count as one when no voxel of the volume lies further apart than this share of the smallest voxel side:
# a quaternion in a header is rounded, a label drawn on another grid is off by half a voxel or more.
AFFINE_TOLERANCE_VOXELS = 0.1
# Voxel sizes that differ by less were rounded.
SPACING_TOLERANCE = 1e-2
# Voxel sizes that nobody has written.
_UNWRITTEN_MM = (1.0, 1.0, 1.0)
# Of a label that is resampled to its image; more outside than this means that the two do not belong together.
LARGEST_SHARE_OUTSIDE = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class StoredCase:
    """Image (M, X, Y, Z) and label (X, Y, Z) of a case in RAS on the image's grid; label values are the files'."""

    image: NDArray[np.float32]
    label: NDArray[np.int32]
    affine: Affine


def read_case(files: CaseFiles, scan: Scan) -> StoredCase:
    """Read, check and re-orient the files of a case.

    Raises:
        LossevoError: a file cannot be read, shapes or affines differ, image voxels are not finite, or a label has
            values that are no integers or that ``scan.label_names`` does not have.
    """
    label_files = [label.file for label in files.labels]
    volumes = [*map(read_stored, files.images), *(_labelled(read_stored(file), file) for file in label_files)]
    headers = placed([*files.images, *label_files], [volume.header for volume in volumes])
    volumes = [replace(volume, header=header) for volume, header in zip(volumes, headers, strict=True)]
    images, labels = volumes[: len(files.images)], volumes[len(files.images) :]
    first, affine = canonical(images[0])
    grid = first.shape[:3]
    for file, stored in zip(files.images, images, strict=True):
        expected = 3 if len(images) > 1 or len(scan.channel_names) == 1 else 4
        if stored.voxels.ndim != expected:
            what = "a 3D volume (one file per channel)" if expected == 3 else "4D, with the channels last"
            raise LossevoError(f"{file}: shape {stored.voxels.shape}, expected {what}")
        if expected == 4 and stored.voxels.shape[3] != len(scan.channel_names):
            raise LossevoError(
                f"{file}: {stored.voxels.shape[3]} channels, expected {len(scan.channel_names)} "
                f"({', '.join(scan.channel_names)})"
            )
    label = np.zeros(grid, dtype=np.int32)
    for part, stored in zip(files.labels, labels, strict=True):
        values, label_affine = canonical(stored)
        integers = _integers(values, part, scan)
        if not _same_grid(integers.shape, label_affine, grid, affine):
            if not scan.resample_labels:
                label_grid = part.file, integers.shape, label_affine
                raise _grids_differ(files.images[0], grid, affine, *label_grid, "resample the label to the image")
            integers = _onto(integers, label_affine, grid, affine, part.file, files.images[0])
        np.copyto(label, integers if part.value is None else np.int32(part.value), where=integers != 0)
    return StoredCase(_channels(files.images, images, grid, affine), label, affine)


def load_volume(files: CaseFiles, scan: Scan, class_of: Mapping[int, int]) -> Volume:
    """The volume of a case; ``class_of`` maps each value of its label files to a class.

    Raises:
        LossevoError: as :func:`read_case`.
    """
    case = read_case(files, scan)
    table = np.zeros(1 + max(class_of), dtype=np.uint8)
    table[list(class_of)] = list(class_of.values())
    return Volume(files.case_id, files.subject, case.image, table[case.label], spacing_of(case.affine))


def grid_of(files: CaseFiles) -> Grid | None:
    """The grid of the case's volume, from the image's header; None if that gives no geometry.

    Nor does a header that cannot be read: :func:`read_case` says what is wrong with it.
    """
    try:
        header = read_header(files.images[0])
    except LossevoError:
        return None
    if not header.has_geometry:
        return None
    shape, affine = canonical_grid(header)
    return Grid(shape, spacing_of(affine))


def label_values(file: Path) -> tuple[int, ...]:
    """The values that a label map has, without 0.

    Raises:
        LossevoError: it cannot be read, or has values that are no integers.
    """
    values = np.unique(label_map(read_stored(file), file))
    return tuple(int(value) for value in values if value != 0)


def placed(files: Sequence[Path], headers: Sequence[Header]) -> list[Header]:
    """The headers of a case's files; one without geometry gets that of the first with its shape.

    If no file has a geometry, the first that gives voxel sizes, else the first, lies where its format assumes, and so
    do the others.

    Raises:
        LossevoError: no other has the shape, or has the voxel size, of one without geometry.
    """
    both = [*zip(files, headers, strict=True)]
    known = [(file, header) for file, header in both if header.has_geometry]
    assumed = [(file, header) for file, header in both if header.geometry is Geometry.ASSUMED]
    first = [] if known else sorted(assumed, key=lambda one: one[1].spacing_mm == _UNWRITTEN_MM)[:1]
    return [_placed(file, header, known, first) for file, header in both]


_Placed = Sequence[tuple[Path, Header]]


def _placed(file: Path, header: Header, known: _Placed, assumed: _Placed) -> Header:
    if header.has_geometry:
        return header
    shape = header.shape[:3]
    places = assumed if header.geometry is Geometry.ASSUMED and not known else known
    where = next(((place, other) for place, other in places if other.shape[:3] == shape), None)
    if where is None and places is assumed:
        return header  # that shapes differ is told where they are compared
    if where is None:
        shapes = ", ".join(f"{place.name} {other.shape[:3]}" for place, other in known)
        raise LossevoError(
            f"{file}: gives no position, no orientation, and of those that do no image and no label has its shape "
            f"{shape} ({shapes or 'there is none'}); export it again with its geometry"
        )
    place, other = where
    own, others = header.spacing_mm, other.spacing_mm
    if (
        header.geometry is Geometry.ASSUMED
        and own != _UNWRITTEN_MM
        and not np.allclose(own, others, rtol=SPACING_TOLERANCE)
    ):
        told = ["×".join(f"{side:.3g}" for side in sides) for sides in (own, others)]
        raise LossevoError(
            f"{file}: gives no position and orientation, and its voxels of {told[0]} mm are not those of {place} "
            f"({told[1]} mm), which has its shape; correct its header"
        )
    return replace(header, affine=other.affine, geometry=other.geometry)


def _labelled(label: Stored, file: Path) -> Stored:
    """A label with integers for voxels."""
    return replace(label, voxels=label_map(label, file))


def _channels(
    files: tuple[Path, ...], images: list[Stored], grid: tuple[int, ...], affine: Affine
) -> NDArray[np.float32]:
    channels: list[NDArray[Any]] = []
    for file, stored in zip(files, images, strict=True):
        voxels, channel_affine = canonical(stored)
        if not _same_grid(voxels.shape[:3], channel_affine, grid, affine):
            channel_grid = file, voxels.shape[:3], channel_affine
            raise _grids_differ(*channel_grid, files[0], grid, affine, "resample all channels to one grid")
        channels.extend([voxels] if voxels.ndim == 3 else np.moveaxis(voxels, -1, 0))
    image = np.empty((len(channels), *grid), dtype=np.float32)
    for channel, voxels in enumerate(channels):
        with np.errstate(over="ignore"):  # what is beyond 32 bits becomes infinite, and is told
            image[channel] = voxels
        if not np.isfinite(image[channel]).all():
            count = np.count_nonzero(~np.isfinite(image[channel]))
            file = files[channel if len(files) > 1 else 0]
            raise LossevoError(f"{file}: {count} voxel(s) are NaN or infinite; replace them or leave out the case")
    return image


def _same_grid(shape: tuple[int, ...], affine: Affine, other_shape: tuple[int, ...], other: Affine) -> bool:
    tolerance_mm = AFFINE_TOLERANCE_VOXELS * min(spacing_of(other))
    return shape == other_shape and largest_distance_mm(affine, other, shape) <= tolerance_mm


def _grids_differ(
    file: Path,
    shape: tuple[int, ...],
    affine: Affine,
    other: Path,
    other_shape: tuple[int, ...],
    other_affine: Affine,
    advice: str,
) -> LossevoError:
    if shape != other_shape:
        return LossevoError(f"{file}: shape {shape} differs from {other_shape} of {other}; {advice}")
    distance_mm = largest_distance_mm(affine, other_affine, shape)
    return LossevoError(
        f"{file}: its affine places voxels up to {distance_mm:.3g} mm away from where {other} has them; {advice}"
    )


def _onto(
    label: NDArray[np.int32], label_affine: Affine, grid: tuple[int, ...], affine: Affine, file: Path, image_file: Path
) -> NDArray[np.int32]:
    """The label resampled to a grid by nearest neighbour."""
    inside = np.argwhere(label)
    placed = (np.c_[inside, np.ones(len(inside))] @ (np.linalg.inv(affine) @ label_affine).T)[:, :3]
    outside = np.mean(((placed < -0.5) | (placed > np.array(grid) - 0.5)).any(axis=1)) if len(inside) else 0.0
    if outside > LARGEST_SHARE_OUTSIDE:
        raise LossevoError(
            f"{file}: {outside:.0%} of its structure lie outside of {image_file}; the two do not belong together, or "
            "one has a wrong header"
        )
    return label_onto(label, label_affine, affine, grid)


def _integers(label: NDArray[Any], part: LabelFile, scan: Scan) -> NDArray[np.int32]:
    values = [int(value) for value in np.unique(label) if value != 0]
    if part.value is not None:
        if len(values) > 1:
            raise LossevoError(
                f"{part.file}: values {', '.join(map(str, values[:5]))}, expected a mask of one structure (0 and 1)"
            )
    elif unknown := [value for value in values if value not in scan.label_names]:
        raise LossevoError(
            f"{part.file}: label value(s) {', '.join(map(str, unknown[:5]))} not named in {scan.labels_named_in}, "
            f"which has 0, {ranges(scan.label_names)}; name them there or correct the label"
        )
    integers: NDArray[np.int32] = label.astype(np.int32)
    return integers


def ranges(values: Mapping[int, str]) -> str:
    """Values for a message: 1, 2, 3, 7 as "1 to 3, 7"."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(f"{start} to {stop}" if stop > start else f"{start}" for start, stop in runs)
