"""MetaImage, NRRD, DICOM and PNG, read with SimpleITK, whose arrays are z, y, x in a left-posterior-superior world.

SimpleITK makes 1 mm of sizes that are not there, and anything of packed content that is damaged, so the text at the
start of MetaImage and NRRD files is looked at before.
"""

from __future__ import annotations

import functools
import importlib
import io
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lossevo.data.content import LARGEST_RATIO, Content
from lossevo.data.segments import segments_of
from lossevo.data.stored import Geometry, Header, Stored, UnusableFile, check_voxel_sizes, checked, volume_shape
from lossevo.errors import LossevoError

ENDINGS = (".mha", ".mhd", ".nrrd", ".nhdr", ".dcm", ".png")

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_LARGEST_TEXT_BYTES = 2**20
_MOST_SLICES = 10_000
# Fields that say where voxels lie. Those of their sizes alone do not.
_PLACES = {"transformmatrix", "rotation", "orientation", "offset", "position", "origin"}
_PLACES |= {"space origin", "space directions"}


class _Text(NamedTuple):
    """The text at the start of a file: its fields, in lower case, and where it ends."""

    fields: Mapping[str, str]
    end: int


class _Part(NamedTuple):
    """A file that holds voxels: so many, from a byte on."""

    file: Path
    start: int
    voxels: int


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
    if kind_of(file) == "PNG" or (text.fields and not _PLACES & text.fields.keys()):
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
    """That the voxels are there, before SimpleITK takes memory for them, or makes some up.

    Raises:
        EOFError: they cannot be, or packed ones end early.
        zlib.error: packed ones are damaged.
        UnusableFile: packed ones that SimpleITK cannot find.
    """
    parts = _parts(file, header, text)
    plain, packed = _encoding(file, text.fields)
    item_bytes = header.dtype.itemsize
    declares = f"its header declares {'×'.join(map(str, header.shape))} voxels of {item_bytes} bytes"
    held, needed = sum(part.voxels for part in parts), math.prod(header.shape)
    if parts and held < needed:
        raise EOFError(f"{declares}, and it names files for {held} of {needed}")
    for part in parts:
        needed = part.voxels * item_bytes
        present = part.file.stat().st_size - part.start
        if (plain or packed) and needed > present * (LARGEST_RATIO if packed else 1):
            raise EOFError(f"{declares}, more than {present} bytes can hold")
        if packed and kind_of(file) == "MetaImage":  # NRRD's are checked as they are read
            with part.file.open("rb") as stream:
                stream.seek(part.start)
                content = io.BytesIO(stream.read(_packed_bytes(file, part, text))) if part.file == file else stream
                count = Content(content, packed=True).skip(needed)
            if count < needed:
                raise EOFError(f"{declares}, and it ends early, after {count} bytes of them")


def _parts(file: Path, header: Header, text: _Text) -> list[_Part]:
    """The files that hold voxels; none where the text does not tell."""
    fields = text.fields
    named = fields.get("elementdatafile", fields.get("data file", fields.get("datafile", "")))
    voxels = math.prod(header.shape)
    if not text.fields:
        return []
    if named.lower() in ("local", ""):
        return [_Part(file, text.end, voxels)]
    if kind_of(file) == "MetaImage" and len(header.shape) == 3 and (names := _slices(file, named, text)) is not None:
        there = [file.parent / name for name in names if (file.parent / name).is_file()]
        return [_Part(data, 0, voxels // header.shape[2]) for data in there] or [_Part(file, 0, 0)]
    data = file.parent / named
    return [_Part(data, 0, voxels)] if data.is_file() else []


def _slices(file: Path, named: str, text: _Text) -> list[str] | None:
    """The files of a MetaImage that has one for each slice, by name; None if that is not what it says.

    Raises:
        UnusableFile: a list of something else.
    """
    if named[:4].upper() == "LIST":
        if not re.fullmatch("LIST( 2D?)?", named, re.IGNORECASE):
            raise UnusableFile(
                f"{file}: ElementDataFile is {named}, expected LIST, a file for each slice; write one file"
            )
        with file.open("rb") as stream:
            stream.seek(text.end)
            rest = stream.read(_LARGEST_TEXT_BYTES).decode(errors="surrogateescape")
        return [line.strip() for line in rest.splitlines() if line.strip()]
    if pattern := re.fullmatch(r"([^\s%]*%\d?\d?d[^\s%]*) (\d{1,9}) (\d{1,9}) ([1-9]\d{0,8})", named):
        first, last, step = map(int, pattern.groups()[1:])
        return [pattern[1] % number for number in range(first, last + 1, step)[:_MOST_SLICES]]
    return None


def _packed_bytes(file: Path, part: _Part, text: _Text) -> int:
    """How many bytes SimpleITK unpacks of a MetaImage; of what is not there it makes up voxels.

    Raises:
        UnusableFile: the header does not say.
    """
    size = text.fields.get("compresseddatasize", "")
    if not size.isdecimal() or int(size) == 0:
        raise UnusableFile(
            f"{file}: CompressedDataSize is {size or 'missing'} in its header, without which SimpleITK does not find "
            "its voxels; write it again"
        )
    return min(int(size), part.file.stat().st_size)


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
