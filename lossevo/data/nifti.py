"""NIfTI files: nibabel makes sense of the header; voxels are read as far as it declares, and no further.

An affine is the sform where there is one, as in nibabel and viewers; voxel sizes are its column norms, never
``pixdim``, which may disagree. A header in metres or micrometres is converted; one that gives no unit is in
millimetres.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.volumeutils import apply_read_scaling

from lossevo.data.content import LARGEST_RATIO, Content
from lossevo.data.geometry import LARGEST_SKEW, Affine, largest_distance_mm, skew, spacing_of
from lossevo.data.stored import Geometry, Header, Oddity, Stored, check_voxel_sizes, checked, volume_shape
from lossevo.errors import LossevoError

# Codes of units of length (the lowest three bits of xyzt_units) that are not the millimetre.
_UNITS = {1: ("metres", 1e3), 3: ("micrometres", 1e-3)}
# Not volumes: connectivity, or values along a surface.
_CIFTI_INTENTS = range(3000, 3100)
_HEAD_BYTES = nib.Nifti2Header.single_vox_offset
# So much is read behind the voxels, for the checksum at the end.
_SURPLUS_BYTES = 2**20
_PIXDIM_TOLERANCE = 1e-2


class _Head(NamedTuple):
    """The start of a file: what nibabel makes of it, and its voxel sizes, which nibabel corrects silently."""

    header: Any
    pixdim: tuple[float, ...]


def read_header(file: Path) -> Header:
    """The header of a file; raises LossevoError, and what nibabel and zlib raise on damaged files."""
    with file.open("rb") as stream:
        content = Content(stream)
        return _header(file, _head(file, bytes(content.read(_HEAD_BYTES))), packed=content.packed)


def read(file: Path) -> Stored:
    """The volume in a file, read to its checksum; raises as :func:`read_header`."""
    with file.open("rb") as stream:
        content = Content(stream)
        start = content.read(_HEAD_BYTES)
        head = _head(file, bytes(start))
        header = _header(file, head, packed=content.packed)
        shape, dtype = head.header.get_data_shape(), head.header.get_data_dtype()
        offset = max(head.header.get_data_offset(), head.header.single_vox_offset)
        size, file_size = math.prod(shape) * dtype.itemsize, file.stat().st_size
        declares = f"its header declares {'×'.join(map(str, shape))} voxels of {dtype.itemsize} bytes"
        if offset + size > file_size * (LARGEST_RATIO if content.packed else 1):
            raise EOFError(f"{declares}, more than its {file_size} bytes can hold")
        content.skip(offset - len(start))
        data = content.read(size, start[offset:][:size])
        if len(data) < size:
            raise EOFError(f"{declares}, and it ends early, after {len(data)} bytes of them")
        surplus = content.surplus(_SURPLUS_BYTES)
    if surplus == _SURPLUS_BYTES or content.trailing:
        oddity = Oddity("surplus-bytes", "bytes that belong to nothing follow its voxels; they are not read")
        header = replace(header, oddities=(*header.oddities, oddity))
    voxels = np.frombuffer(data, dtype, math.prod(shape)).reshape(shape, order="F").reshape(header.shape, order="F")
    return Stored(apply_read_scaling(voxels, *head.header.get_slope_inter()), header)


def _head(file: Path, start: bytes) -> _Head:
    kind = next((kind for kind in (nib.Nifti1Header, nib.Nifti2Header) if kind.may_contain_header(start)), None)
    if kind is None:
        raise ValueError("no NIfTI header")
    header = kind(start[: kind.sizeof_hdr], check=False)
    if header["magic"].item() == kind.pair_magic:
        raise LossevoError(f"{file}: the header of a pair .hdr and .img, expected a single file; convert the pair")
    if kind is nib.Nifti2Header and int(header["intent_code"]) in _CIFTI_INTENTS:
        raise LossevoError(f"{file}: a CIFTI-2 file, expected a volume")
    sizes = header["pixdim"][1:4]
    pixdim = tuple(sizes[: min(3, int(header["dim"][0]))].tolist())
    if not header["sform_code"]:
        check_voxel_sizes(file, pixdim, "pixdim")
    sizes[~(np.isfinite(sizes) & (sizes > 0))] = 1  # nothing depends on it
    header.check_fix()
    return _Head(header, pixdim)


def _header(file: Path, head: _Head, *, packed: bool) -> Header:
    header = head.header
    dtype = header.get_data_dtype()
    slope, _ = header.get_slope_inter()
    unit, in_mm = _UNITS.get(int(header["xyzt_units"]) & 7, ("millimetres", 1.0))
    try:
        affine = header.get_best_affine()
    except ValueError:
        raise LossevoError(f"{file}: its qform is no rotation; correct the header") from None
    if int(header["dim"][0]) == 2 and not affine[:3, 2].any():
        affine[:3, 2] = _across(affine)
    found = Header(
        volume_shape(header.get_data_shape()),
        dtype,
        np.diag([*3 * [in_mm], 1.0]) @ affine,
        Geometry.KNOWN if header["sform_code"] or header["qform_code"] else Geometry.ASSUMED,
        unit=unit,
        step=abs(slope) if slope is not None and dtype.kind in "ui" else 0.0,
    )
    found = checked(file, found)
    return replace(
        found,
        form_difference_mm=in_mm * _form_difference(header, found.shape),
        oddities=tuple(_oddities(file, head, affine, packed=packed)),
    )


def _across(affine: Any) -> Any:
    """A third axis for a plane: at right angles to the other two, and 1 long."""
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    length = np.linalg.norm(normal)
    return normal / length if length else normal


def _form_difference(header: Any, shape: tuple[int, ...]) -> float:
    """Largest distance between where sform and qform put a voxel, 0 unless there are both."""
    if not (header["sform_code"] and header["qform_code"]):
        return 0.0
    try:
        return largest_distance_mm(header.get_sform(), header.get_qform(), shape)
    except ValueError:  # its quaternion is no rotation
        return math.inf


def _oddities(file: Path, head: _Head, affine: Affine, *, packed: bool) -> Iterator[Oddity]:
    if packed != (file.suffix.lower() == ".gz"):
        what = f"is {'' if packed else 'not '}compressed, though its name ends in {file.suffix}"
        yield Oddity("misnamed", f"{what}; lossevo reads it, other programs may not. Rename it")
    if not head.header["sform_code"] or head.header["qform_code"]:
        return
    # SimpleITK takes the qform if the sform does not suit it, and voxel sizes from pixdim whatever the sform is.
    if skew(affine) > LARGEST_SKEW:
        yield Oddity(
            "sheared-affine",
            "its axes are not at right angles, so SimpleITK, and with it nnU-Net, refuses it; "
            "'lossevo data convert' writes a file that both read",
        )
    sizes = spacing_of(affine)[: len(head.pixdim)]
    if not np.allclose(head.pixdim, sizes, rtol=_PIXDIM_TOLERANCE):
        told = ["×".join(f"{size:.3g}" for size in some) for some in (head.pixdim, sizes)]
        yield Oddity(
            "pixdim",
            f"pixdim says voxels of {told[0]}, its sform {told[1]}; lossevo takes the sform, SimpleITK, and with it "
            "nnU-Net, pixdim. Write both alike",
        )


__all__ = ["read", "read_header"]
