"""Volumes as they lie on disk, read into one orientation: NIfTI (:mod:`lossevo.data.nifti`), and what SimpleITK reads
(:mod:`lossevo.data.itk`).

Everything comes out with axes closest to the patient's right, anterior and superior (RAS), voxels in the order x, y, z.
nibabel is imported when a volume is read: many commands read none.
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lossevo.data import itk
from lossevo.data.geometry import Affine
from lossevo.data.stored import Header, Stored, UnusableFile, canonical
from lossevo.errors import LossevoError

NIFTI_ENDINGS = (".nii.gz", ".nii")
ENDINGS = NIFTI_ENDINGS + itk.ENDINGS
# Pictures of volumes lie beside them, so that they are read only where they are named.
VOLUME_ENDINGS = tuple(ending for ending in ENDINGS if ending != ".png")

# Pointers are one or a few lines of text.
_LARGEST_POINTER_BYTES = 32 * 1024


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
        from lossevo.data.nifti import read
    else:
        from lossevo.data.itk import read
    with _readable(file):
        return read(file)


def read_header(file: str | Path) -> Header:
    """What the file says of its volume, without reading its voxels.

    Raises:
        LossevoError: as :func:`read_volume_file`, as far as the header shows it.
    """
    file = Path(file)
    if _is_nifti(file):
        from lossevo.data.nifti import read_header as read
    else:
        from lossevo.data.itk import read_header as read
    with _readable(file):
        return read(file)


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
        raise LossevoError(
            f"{file}: not a readable {_kind(file)} file but a pointer to one that is not here; fetch it with: {command}"
        )
    if not file.is_file():
        raise LossevoError(f"{file}: {'not a file' if file.exists() else 'no such file'}")
    if not os.access(file, os.R_OK):
        raise LossevoError(f"{file}: no right to read it; ask its owner")
    return name.endswith(NIFTI_ENDINGS)


def _kind(file: Path) -> str:
    return "NIfTI" if file.name.lower().endswith(NIFTI_ENDINGS) else itk.kind_of(file)


def _unreadable() -> tuple[type[Exception], ...]:
    """What readers raise on damaged files; sizes that a damaged header claims may be too large for memory."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    of_python = (OSError, EOFError, ValueError, RuntimeError, OverflowError, MemoryError, zlib.error)
    return (ImageFileError, HeaderDataError, WrapStructError, *of_python)


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except _unreadable() as error:
        from nibabel.spatialimages import HeaderDataError

        # SimpleITK says in several lines where in its source it failed; one of them says why.
        why = re.search(r"ERROR: (?:\w+\(\w+\): )?(.*)", str(error))
        reason = why[1] if why else " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, HeaderDataError):
            raise UnusableFile(f"{file}: its header contradicts itself ({reason}); correct the header") from error
        if isinstance(error, zlib.error):
            reason = f"its compressed content is damaged: {reason.rpartition(': ')[2] or reason}"
        codes = {EOFError: "truncated-gzip", zlib.error: "damaged-gzip"} if file.suffix.lower() == ".gz" else {}
        raise UnusableFile(
            f"{file}: not a readable {_kind(file)} file, perhaps truncated ({reason}); copy it again",
            codes.get(type(error), "unreadable"),
        ) from error
