"""MetaImage, NRRD, DICOM and PNG, read with SimpleITK, whose arrays are z, y, x in a left-posterior-superior world.

SimpleITK makes 1 mm of sizes that are not there, and anything of packed content that is damaged, so the text at the
start of MetaImage and NRRD files is looked at before.
"""

from __future__ import annotations

import functools
import importlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lossevo.data.content import LARGEST_RATIO, Content
from lossevo.data.segments import segments_of
from lossevo.data.stored import Geometry, Header, Stored, check_voxel_sizes, checked, volume_shape
from lossevo.errors import LossevoError

ENDINGS = (".mha", ".mhd", ".nrrd", ".nhdr", ".dcm", ".png")

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_LARGEST_TEXT_BYTES = 2**20
# Fields that say where voxels lie, and how large they are.
_PLACES = {"transformmatrix", "rotation", "orientation", "offset", "position", "origin", "space origin"}
_SIZES = {"elementspacing", "elementsize", "spacings", "space directions"}


class _Text(NamedTuple):
    """The text at the start of a file: its fields, in lower case, and where it ends."""

    fields: Mapping[str, str]
    end: int


def kind_of(file: Path) -> str:
    """The name of the format."""
    return {".nrrd": "NRRD", ".nhdr": "NRRD", ".dcm": "DICOM", ".png": "PNG"}.get(file.suffix.lower(), "MetaImage")


def read_header(file: Path) -> Header:
    """The header of a file; raises LossevoError, and what SimpleITK raises on damaged files."""
    return _header(file, _reader(file), _text(file))


def read(file: Path) -> Stored:
    """The volume in a file; raises as :func:`read_header`."""
    reader, text = _reader(file), _text(file)
    header = _header(file, reader, text)
    _check_content(file, header, text)
    voxels = _import_simpleitk().GetArrayFromImage(reader.Execute())
    spatial = range(reader.GetDimension())
    voxels = voxels.transpose(*reversed(spatial), *range(len(spatial), voxels.ndim))
    return Stored(voxels.reshape(header.shape), header)


def _reader(file: Path) -> Any:
    reader = _simpleitk(file).ImageFileReader()
    reader.SetFileName(str(file))
    return reader


def _header(file: Path, reader: Any, text: _Text) -> Header:
    if kind_of(file) == "MetaImage":
        for name in ("ElementSpacing", "ElementSize"):
            if name.lower() in text.fields:
                check_voxel_sizes(file, _numbers(text.fields[name.lower()]), name)
    _check_nrrd_sizes(file, text)
    reader.ReadImageInformation()
    dimension, components = reader.GetDimension(), reader.GetNumberOfComponents()
    if kind_of(file) == "PNG" and components > 1:
        raise LossevoError(
            f"{file}: {components} colours (RGB, or a palette), expected one grey value per pixel; write the channels "
            "as one file each, a label as the numbers of its classes"
        )
    _check_nrrd_sizes(file, text, of_space=dimension)
    side = min(dimension, 3)
    affine = np.eye(4)
    direction = np.array(reader.GetDirection()).reshape(dimension, dimension)[:side, :side]
    affine[:side, :side] = direction * reader.GetSpacing()[:side]
    affine[:side, 3] = reader.GetOrigin()[:side]
    geometry = _geometry(file, affine, text)
    shape = volume_shape(tuple(reader.GetSize()))
    found = Header(
        (*shape, components) if components > 1 else shape,
        _dtype(_import_simpleitk(), reader.GetPixelIDValue()),
        _LPS_TO_RAS @ affine,
        geometry,
        segments=segments_of({key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}),
    )
    return checked(file, found)


def _geometry(file: Path, affine: Any, text: _Text) -> Geometry:
    """What the file itself says, before SimpleITK makes up the rest."""
    if kind_of(file) == "DICOM":
        linear, origin = affine[:3, :3], affine[:3, 3]
        upright = np.array_equal(linear, np.abs(np.diag(np.diag(linear))))
        # No scanner puts the first voxel at its very isocentre.
        made_up = upright and linear[2, 2] == 1 and not origin.any()
        return Geometry.UNKNOWN if made_up else Geometry.KNOWN
    if kind_of(file) == "PNG" or (text.fields and not (_PLACES | _SIZES) & text.fields.keys()):
        return Geometry.ASSUMED
    return Geometry.KNOWN


def _check_nrrd_sizes(file: Path, text: _Text, *, of_space: int = 0) -> None:
    """That sizes are regular, and that there are so many; axes of something else than space have none."""
    sizes = {"spacings": _numbers(text.fields.get("spacings", ""))}
    vectors = re.findall(r"none|\([^)]*\)", text.fields.get("space directions", ""))
    sizes["space directions"] = tuple(
        math.hypot(*_numbers(vector)) if vector[0] == "(" else math.nan for vector in vectors
    )
    for name, found in sizes.items():
        spatial = tuple(size for size in found if not math.isnan(size))
        if found and len(spatial) < of_space:
            check_voxel_sizes(file, found, name)
        check_voxel_sizes(file, tuple(map(abs, spatial)), name)  # a negative one turns its axis round


def _numbers(text: str) -> tuple[float, ...]:
    """The numbers in a list; NaN for what is none."""
    numbers = []
    for word in re.findall(r"[^\s,()]+", text):
        try:
            numbers.append(float(word))
        except ValueError:
            numbers.append(math.nan)
    return tuple(numbers)


def _text(file: Path) -> _Text:
    """Fields of a MetaImage (``name = value``) or NRRD file (``name: value``); none of any other."""
    if kind_of(file) not in ("MetaImage", "NRRD"):
        return _Text({}, 0)
    with file.open("rb") as stream:
        start = stream.read(_LARGEST_TEXT_BYTES)
    fields, end = {}, 0
    for line in start.splitlines(keepends=True):
        end += len(line)
        name, _, value = line.decode("latin-1").partition("=" if kind_of(file) == "MetaImage" else ": ")
        fields[name.strip().lower()] = value.strip()
        if name.strip() == "ElementDataFile" or not line.strip():
            break
    return _Text(fields, end)


def _check_content(file: Path, header: Header, text: _Text) -> None:
    """That the voxels are there, before SimpleITK takes memory for them.

    Raises:
        EOFError: they cannot be, or packed ones end early.
        zlib.error: packed ones are damaged.
    """
    fields, attached = text.fields, ("local", "")
    named = fields.get("elementdatafile", fields.get("data file", fields.get("datafile", "")))
    data = file if named.lower() in attached else file.parent / named
    if not text.fields or not data.is_file():  # lists and patterns of files
        return
    start = text.end if data == file else 0
    plain, packed = _encoding(file, fields)
    needed, present = math.prod(header.shape) * header.dtype.itemsize, data.stat().st_size - start
    declares = f"its header declares {'×'.join(map(str, header.shape))} voxels of {header.dtype.itemsize} bytes"
    if (plain or packed) and needed > present * (LARGEST_RATIO if packed else 1):
        raise EOFError(f"{declares}, more than {present} bytes can hold")
    if packed and kind_of(file) == "MetaImage":  # NRRD's are checked as they are read
        with data.open("rb") as stream:
            stream.seek(start)
            count = Content(stream, packed=True).skip(needed)
        if count < needed:
            raise EOFError(f"{declares}, and it ends early, after {count} bytes of them")


def _encoding(file: Path, fields: Mapping[str, str]) -> tuple[bool, bool]:
    """Whether voxels are stored as they are, and whether they are packed by zlib or gzip."""
    if kind_of(file) == "NRRD":
        encoding = fields.get("encoding", "").lower()
        return encoding == "raw", encoding in ("gz", "gzip")
    packed = fields.get("compresseddata", "")[:1].lower() in ("t", "1")
    return not packed and fields.get("binarydata", "true")[:1].lower() in ("t", "1"), packed


def _dtype(sitk: Any, pixel_id: int) -> np.dtype[Any]:
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
            f"{file}: {kind_of(file)} files are read with SimpleITK, which is not installed; pip install 'lossevo[io]'"
        ) from None


__all__ = ["ENDINGS", "kind_of", "read", "read_header"]
