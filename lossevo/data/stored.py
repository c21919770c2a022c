"""A volume as a file holds it, and what its header says.

nibabel is imported when a volume is read: many commands read none.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lossevo.data.geometry import Affine, Spacing, spacing_of
from lossevo.errors import LossevoError


class UnusableFile(LossevoError):
    """A file that cannot be used; ``code`` is the kind of fault in kebab-case, for programs."""

    def __init__(self, message: str, code: str = "unreadable") -> None:
        super().__init__(message)
        self.code = code


class Oddity(NamedTuple):
    """Something about a file that lossevo can do with and other programs may not; ``code`` in kebab-case."""

    code: str
    message: str


class Geometry(Enum):
    """What a file says of where its voxels lie."""

    KNOWN = "known"
    """Position, orientation and voxel size."""
    ASSUMED = "assumed"
    """Voxel size at most. The rest is what the format assumes, with voxels of 1 mm if need be."""
    UNKNOWN = "unknown"
    """Too little to assume anything."""


class Segment(NamedTuple):
    """A segment of 3D Slicer: its value in one of the layers of a file."""

    name: str
    layer: int
    value: int


@dataclass(frozen=True, slots=True, eq=False)
class Header:
    """What a file says of its volume, without its voxels; axes in stored order.

    ``form_difference_mm`` is the largest distance between where the sform and the qform of a NIfTI file put a voxel,
    ``unit`` the one that the header is in; all else is in millimetres. ``step`` is the distance between neighbouring
    values of integers that the header scales, else 0.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    affine: Affine
    geometry: Geometry = Geometry.KNOWN
    form_difference_mm: float = 0.0
    unit: str = "millimetres"
    step: float = 0.0
    segments: tuple[Segment, ...] = ()
    oddities: tuple[Oddity, ...] = ()

    @property
    def has_geometry(self) -> bool:
        """Whether the affine is the file's own."""
        return self.geometry is Geometry.KNOWN

    @property
    def spacing_mm(self) -> Spacing:
        """Voxel size."""
        return spacing_of(self.affine)


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A volume as stored: voxels (X, Y, Z) or (X, Y, Z, M), and their header."""

    voxels: NDArray[Any]
    header: Header

    @property
    def affine(self) -> Affine:
        """From voxel numbers into RAS millimetres."""
        return self.header.affine


def volume_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(X, Y, Z) or (X, Y, Z, M): a plane is one slice, and axes of length 1 behind the third carry nothing."""
    shape = (*shape, 1) if len(shape) == 2 else shape
    return (*shape[:3], *(size for size in shape[3:] if size > 1))


def checked(file: Path, header: Header) -> Header:
    """The header of a volume that can be read.

    Raises:
        LossevoError: not a 3D or 4D volume of numbers with a regular affine.
    """
    from nibabel.orientations import io_orientation

    shape, dtype, affine = header.shape, header.dtype, header.affine
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise LossevoError(f"{file}: shape {shape}, expected a 3D volume")
    if dtype.names:
        raise LossevoError(
            f"{file}: voxels of type colour ({', '.join(dtype.names)}), expected integers or floats: grey values"
        )
    if dtype.kind not in "uif":
        raise LossevoError(f"{file}: voxels of type {dtype}, expected integers or floats")
    # An orientation drops an axis (NaN) where the affine is singular but for rounding.
    if not np.isfinite(affine).all() or np.linalg.det(affine) == 0 or np.isnan(io_orientation(affine)).any():
        raise LossevoError(f"{file}: its affine is singular, so voxel sizes are unknown; correct the header")
    return header


def check_voxel_sizes(file: Path, sizes: tuple[float, ...], called: str) -> None:
    """Voxel sizes as the header has them, before any library has made them positive.

    Raises:
        LossevoError: one is 0, negative or not finite.
    """
    if not all(np.isfinite(size) and size > 0 for size in sizes):
        told = ", ".join(f"{size:g}" for size in sizes)
        raise LossevoError(
            f"{file}: {called} is {told} in its header, expected voxel sizes above 0; correct the header"
        )


def canonical(stored: Stored) -> tuple[NDArray[Any], Affine]:
    """Voxels and affine with the axes flipped and permuted to the closest to right, anterior, superior."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    orientation = io_orientation(stored.affine)
    voxels = apply_orientation(stored.voxels, orientation)
    return voxels, stored.affine @ inv_ornt_aff(orientation, stored.voxels.shape[:3])


def canonical_grid(header: Header) -> tuple[tuple[int, int, int], Affine]:
    """Shape and affine that :func:`canonical` gives the volume of this header."""
    from nibabel.orientations import inv_ornt_aff, io_orientation

    orientation = io_orientation(header.affine)
    x, y, z = (header.shape[axis] for axis in np.argsort(orientation[:, 0]))
    return (x, y, z), header.affine @ inv_ornt_aff(orientation, header.shape[:3])
