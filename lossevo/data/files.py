"""Volumes as they lie on disk, read into one orientation: NIfTI with nibabel; MetaImage, NRRD and DICOM with SimpleITK.

Everything comes out with axes closest to the patient's right, anterior and superior (RAS), voxels in the order x, y, z
(SimpleITK's arrays are z, y, x, its world is left-posterior-superior). A NIfTI affine is the sform where there is
one, as in nibabel and viewers; voxel sizes are its column norms, never ``pixdim``, which may disagree. A header in
metres or micrometres is converted; one that gives no unit is in millimetres.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import importlib
import io
import itertools
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from lossevo.errors import LossevoError

Affine = NDArray[np.float64]
Spacing = tuple[float, float, float]

NIFTI_ENDINGS = (".nii.gz", ".nii")
ITK_ENDINGS = (".mha", ".mhd", ".nrrd", ".nhdr", ".dcm")
ENDINGS = NIFTI_ENDINGS + ITK_ENDINGS

# NIfTI's codes of units of length (the lowest three bits of xyzt_units) that are not the millimetre.
_NIFTI_UNITS = {1: ("metres", 1e3), 3: ("micrometres", 1e-3)}
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Pointers are one or a few lines of text.
_LARGEST_POINTER_BYTES = 32 * 1024


# What readers raise on damaged files; sizes that a damaged header claims may be too large for memory.
_UNREADABLE = (
    ImageFileError,
    HeaderDataError,
    WrapStructError,
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    OverflowError,
    MemoryError,
    zlib.error,
)


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A volume as stored: voxels (X, Y, Z) or (X, Y, Z, M), their affine into RAS millimetres.

    ``has_geometry`` is False where a DICOM file gives neither position nor orientation nor slice distance: its affine
    says nothing.
    """

    voxels: NDArray[Any]
    affine: Affine
    has_geometry: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Header:
    """What a file says of its volume, without its voxels; axes in stored order.

    ``form_difference_mm`` is the largest distance between where the sform and the qform of a NIfTI file put a voxel,
    ``unit`` the one that the header is in; all else is in millimetres.
    """

    shape: tuple[int, ...]
    spacing_mm: Spacing
    dtype: np.dtype[Any]
    affine: Affine
    form_difference_mm: float = 0.0
    has_geometry: bool = True
    unit: str = "millimetres"


def read_volume_file(file: str | Path) -> tuple[NDArray[Any], Affine]:
    """Voxels (X, Y, Z), or (X, Y, Z, M) of M channels, and affine, in the axis order closest to RAS.

    Raises:
        LossevoError: the file is missing, a pointer, truncated, of another kind, or not a 3D or 4D volume of numbers
            with a regular affine; or SimpleITK, which it needs, is not installed.
    """
    return canonical(read_stored(file))


def read_stored(file: str | Path) -> Stored:
    """The volume as it is stored, axes not yet in order.

    Raises:
        LossevoError: as :func:`read_volume_file`.
    """
    file = Path(file)
    if _is_nifti(file):
        with _readable(file, "NIfTI"):
            image = _open_nifti(file, whole=True)
            return Stored(np.asanyarray(image.dataobj).reshape(_shape(image.shape)), _in_mm(image, image.affine))
    sitk = _simpleitk(file)
    with _readable(file, _kind(file)):
        image = sitk.ReadImage(str(file))
    voxels = sitk.GetArrayFromImage(image)
    components = image.GetNumberOfComponentsPerPixel() > 1
    spatial = range(voxels.ndim - components)
    voxels = voxels.transpose(*reversed(spatial), *([voxels.ndim - 1] if components else []))
    affine, has_geometry = _itk_geometry(image, file)
    _check_header(file, _shape(voxels.shape), voxels.dtype, affine)
    return Stored(voxels.reshape(_shape(voxels.shape)), affine, has_geometry)


def read_header(file: str | Path) -> Header:
    """What the file says of its volume, without reading its voxels.

    Raises:
        LossevoError: as :func:`read_volume_file`, as far as the header shows it.
    """
    file = Path(file)
    if _is_nifti(file):
        with _readable(file, "NIfTI"):
            nifti = _open_nifti(file)
        shape, affine, (unit, _) = _shape(nifti.shape), _in_mm(nifti, nifti.affine), _unit(nifti)
        difference_mm = _form_difference_mm(nifti, shape)
        return Header(shape, spacing_of(affine), nifti.get_data_dtype(), affine, difference_mm, unit=unit)
    sitk = _simpleitk(file)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    with _readable(file, _kind(file)):
        reader.ReadImageInformation()
    affine, has_geometry = _itk_geometry(reader, file)
    components = reader.GetNumberOfComponents()
    shape = _shape((*reader.GetSize(), *([components] if components > 1 else [])))
    dtype = _itk_dtype(sitk, reader.GetPixelID())
    _check_header(file, shape, dtype, affine)
    return Header(shape, spacing_of(affine), dtype, affine, 0.0, has_geometry)


def canonical(stored: Stored) -> tuple[NDArray[Any], Affine]:
    """Voxels and affine with the axes flipped and permuted to the closest to right, anterior, superior."""
    orientation = nib.io_orientation(stored.affine)
    voxels = nib.apply_orientation(stored.voxels, orientation)
    return voxels, stored.affine @ nib.orientations.inv_ornt_aff(orientation, stored.voxels.shape[:3])


def spacing_of(affine: Affine) -> Spacing:
    """Voxel size in mm: the column norms of an affine."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return (x, y, z)


def largest_distance_mm(first: Affine, second: Affine, shape: tuple[int, ...]) -> float:
    """Largest distance between where two affines put a voxel; the maximum is at a corner of the volume."""
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, size - 1) for size in shape[:3]))])
    return float(np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1).max())


def pointer(file: Path) -> str | None:
    """The command that fetches a file of which only a git-annex or git-lfs pointer is here; None for a real file.

    A pointer of git-annex is a symbolic link into ``.git/annex/objects`` whose target is missing, or, where links are
    not possible, a small file that holds that path.
    """
    if file.is_symlink() and not file.exists():
        annexed = "annex/objects" in file.readlink().as_posix()
        return f"git annex get '{file}'" if annexed else None
    try:
        if not file.is_file() or file.stat().st_size > _LARGEST_POINTER_BYTES:
            return None
        with file.open("rb") as stream:
            start = stream.read(512)
    except OSError:
        return None
    if start.startswith(b"version https://git-lfs"):
        return f"git lfs pull --include '{file.name}'"
    if b"annex/objects/" in start.split(b"\n")[0]:
        return f"git annex get '{file}'"
    return None


def _is_nifti(file: Path) -> bool:
    """Whether nibabel reads the file; checks that there is something to be read.

    Raises:
        LossevoError: missing, a pointer, or an ending that is not known.
    """
    name = file.name.lower()
    if not name.endswith(ENDINGS):
        raise LossevoError(f"{file}: cannot be read, only {', '.join(ENDINGS)}; convert it")
    if command := pointer(file):
        kind = "NIfTI" if name.endswith(NIFTI_ENDINGS) else _kind(file)
        raise LossevoError(
            f"{file}: not a readable {kind} file but a pointer to one that is not here; fetch it with: {command}"
        )
    if not file.is_file():
        raise LossevoError(f"{file}: {'not a file' if file.exists() else 'no such file'}")
    if not os.access(file, os.R_OK):
        raise LossevoError(f"{file}: no right to read it; ask its owner")
    return name.endswith(NIFTI_ENDINGS)


def _kind(file: Path) -> str:
    return {".nrrd": "NRRD", ".nhdr": "NRRD", ".dcm": "DICOM"}.get(file.suffix.lower(), "MetaImage")


def _open_nifti(file: Path, *, whole: bool = False) -> Any:
    """The image; ``whole`` decompresses all of it, to the checksum, before which nibabel stops reading."""
    if whole and file.suffix.lower() == ".gz":
        with gzip.open(file) as stream:
            content = stream.read()
        sizes = {int.from_bytes(content[:4], order) for order in ("little", "big")}
        kind = nib.Nifti2Image if nib.Nifti2Header.sizeof_hdr in sizes else nib.Nifti1Image
        image = kind.from_stream(io.BytesIO(content))
    else:
        image = nib.load(file)
    if not isinstance(image, nib.Nifti1Pair):
        raise LossevoError(f"{file}: a {type(image).__name__}, expected a volume")
    _check_header(file, _shape(image.shape), image.get_data_dtype(), image.affine)
    return image


def _shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(X, Y, Z) or (X, Y, Z, M): axes of length 1 behind the third carry nothing."""
    return (*shape[:3], *(size for size in shape[3:] if size > 1))


def _check_header(file: Path, shape: tuple[int, ...], dtype: np.dtype[Any], affine: Affine) -> None:
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise LossevoError(f"{file}: shape {shape}, expected a 3D volume")
    if dtype.kind not in "uif":
        raise LossevoError(f"{file}: voxels of type {dtype}, expected integers or floats")
    # An orientation drops an axis (NaN) where the affine is singular but for rounding.
    if not np.isfinite(affine).all() or np.linalg.det(affine) == 0 or np.isnan(nib.io_orientation(affine)).any():
        raise LossevoError(f"{file}: its affine is singular, so voxel sizes are unknown; correct the header")


def _unit(image: Any) -> tuple[str, float]:
    """The unit of a NIfTI header, and how many millimetres it has."""
    return _NIFTI_UNITS.get(int(image.header["xyzt_units"]) & 7, ("millimetres", 1.0))


def _in_mm(image: Any, affine: Affine) -> Affine:
    return np.diag([*3 * [_unit(image)[1]], 1.0]) @ affine


def _form_difference_mm(image: Any, shape: tuple[int, ...]) -> float:
    forms = image.get_sform(coded=True)[0], image.get_qform(coded=True)[0]
    sform, qform = (None if form is None else _in_mm(image, form) for form in forms)
    return 0.0 if sform is None or qform is None else largest_distance_mm(sform, qform, shape)


def _itk_geometry(image: Any, file: Path) -> tuple[Affine, bool]:
    """The affine of a SimpleITK image or reader, and whether the file really gave one."""
    dimension = image.GetDimension()
    if dimension < 3:
        raise LossevoError(f"{file}: shape {tuple(image.GetSize())}, expected a 3D volume")
    direction = np.array(image.GetDirection()).reshape(dimension, dimension)[:3, :3]
    spacing, origin = np.array(image.GetSpacing()[:3]), np.array(image.GetOrigin()[:3])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = direction * spacing, origin
    # What ITK makes up where a DICOM file says nothing. No scanner puts the first voxel at its very isocentre.
    made_up = np.array_equal(direction, np.eye(3)) and not origin.any() and spacing[2] == 1
    return _LPS_TO_RAS @ affine, not (made_up and _kind(file) == "DICOM")


def _itk_dtype(sitk: Any, pixel_id: int) -> np.dtype[Any]:
    # E.g. "16-bit signed integer", "vector of 32-bit float".
    words = sitk.GetPixelIDValueAsString(pixel_id).replace("vector of ", "").split()
    kind = {"unsigned": "u", "signed": "i", "float": "f"}.get(words[1] if len(words) > 1 else "")
    return np.dtype(f"{kind}{int(words[0].split('-')[0]) // 8}") if kind else np.dtype(object)


@functools.cache
def _import_simpleitk() -> Any:
    sitk = importlib.import_module("SimpleITK")
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk


def _simpleitk(file: Path) -> Any:
    try:
        return _import_simpleitk()
    except ImportError:
        raise LossevoError(
            f"{file}: {_kind(file)} files are read with SimpleITK, which is not installed; pip install 'lossevo[io]'"
        ) from None


@contextlib.contextmanager
def _readable(file: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        # SimpleITK says in several lines where in its source it failed; one of them says why.
        why = re.search(r"ERROR: (?:\w+\(\w+\): )?(.*)", str(error))
        reason = why[1] if why else " ".join(str(error).split()) or type(error).__name__
        raise LossevoError(
            f"{file}: not a readable {kind} file, perhaps truncated ({reason}); copy it again"
        ) from error
