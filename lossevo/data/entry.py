"""The file of a cache entry: a zip archive of ``entry.json`` and the bytes of each array, uncompressed.

``entry.json`` holds a record and, for each array, its dtype (NumPy's ``str``) and shape. The archive's checksums tell
damage. It is not NumPy's ``.npz``, whose headers are parsed as Python: in Python 3.11, two threads that do so at once
can fail ("AST constructor recursion depth mismatch", https://github.com/python/cpython/issues/106905).
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lossevo.errors import ResumableError

ENDING = ".zip"
HEAD = "entry.json"
CHUNK_BYTES = 2**18


def write(stream: IO[bytes], record: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an entry of numeric ``arrays``, in C order, and a ``record`` of plain data.

    Raises:
        OSError: there is no room, say.
    """
    head = {
        "record": record,
        "arrays": {name: {"dtype": array.dtype.str, "shape": array.shape} for name, array in arrays.items()},
    }
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(HEAD), json.dumps(head))
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                member.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def is_whole(file: Path) -> bool:
    """Whether it is an archive whose members all have their checksums."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, ValueError):
        return False


def read_array(file: Path, name: str) -> NDArray[Any]:
    """One array of an entry, checked against its checksum.

    Raises:
        ResumableError: the entry is gone or damaged.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            form = json.loads(archive.read(HEAD))["arrays"][name]
            dtype = np.dtype(form["dtype"])
            if dtype.hasobject or archive.getinfo(name).file_size != math.prod(form["shape"]) * dtype.itemsize:
                raise ValueError(f"{name} is not what {HEAD} says")
            array: NDArray[Any] = np.empty(form["shape"], dtype)
            content = array.reshape(-1).view(np.uint8)
            with archive.open(name) as member:
                for start in range(0, len(content), CHUNK_BYTES):
                    content[start : start + CHUNK_BYTES] = np.frombuffer(member.read(CHUNK_BYTES), np.uint8)
            return array
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, KeyError, TypeError) as problem:
        raise _unreadable(file, problem) from None


def read_record(file: Path) -> dict[str, Any]:
    """The record of an entry; raises as :func:`read_array`."""
    try:
        with zipfile.ZipFile(file) as archive:
            record: dict[str, Any] = json.loads(archive.read(HEAD))["record"]
            return record
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, KeyError, TypeError) as problem:
        raise _unreadable(file, problem) from None


def _unreadable(file: Path, problem: Exception) -> ResumableError:
    return ResumableError(
        f"{file}: cannot be read ({problem}), though the cohort was prepared. Was the cache cleared meanwhile? "
        "Workers on other machines need LOSSEVO_CACHE on a disk that all share, or a --patch-cache into which the "
        "whole cohort fits"
    )
