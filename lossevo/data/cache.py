"""What was made of a cohort's files, kept on disk under a key of what it was made from.

::

    volumes/ab/abcdef….zip      a prepared case: image, label, the label on its own grid, and how it all came about
    patches/ab/abcdef….zip      one training patch: image, label, distances
    files/ab/abcdef….json       size, times and SHA-256 of a file that was read, so that it need not be read again
    unfinished/                 what is being written
    in-use/, lock               who is using it: what was used longest ago is removed when there is too much of it

An entry's name is a hash over the bytes of the source files and every setting, so an entry is never out of date: a
changed file or setting has another name. It is written under a temporary name and renamed when complete; two processes
that make the same entry replace equal by equal, and a killed one leaves a leftover behind, never half an entry. A
damaged one is told by its checksums and made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lossevo.data import entry
from lossevo.data.cache_limit import Limit, limit_bytes
from lossevo.data.cohort import Volume
from lossevo.errors import LossevoError

KINDS = ("volumes", "patches", "files", "unfinished")

# A file that changed twice within one tick of the file system's clock looks unchanged: only one that has been at rest
# for longer is remembered. (The index of git has the same rule.)
AT_REST_S = 2.0
LEFTOVER_S = 24 * 3600.0


class CacheWarning(UserWarning):
    """The cache cannot be written, so work goes on without it."""


def default_cache() -> Cache | None:
    """The cache in ``$LOSSEVO_CACHE``, else ``$XDG_CACHE_HOME/lossevo``, else ``~/.cache/lossevo``.

    ``LOSSEVO_CACHE=off`` means none. It takes up to ``$LOSSEVO_CACHE_LIMIT`` (50 GiB).

    Raises:
        LossevoError: the limit is no size.
    """
    chosen = os.environ.get("LOSSEVO_CACHE")
    if chosen == "off":
        return None
    if chosen:
        return Cache(Path(chosen), limit_bytes())
    try:
        return Cache(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lossevo", limit_bytes())
    except RuntimeError:  # a container's user may have no home
        return None


class Cache:
    """A folder of entries, shared by any number of processes and threads.

    It holds images of patients, so folders and files are for their owner's eyes only.

    Args:
        folder: made when first written to. If that fails (no right, disk full), a :class:`CacheWarning` says so, and
            nothing more is written.
        limit_bytes: beyond it, volumes and patches that were used longest ago are removed when one is written, but none
            that a running process has used. None: without a bound.
    """

    def __init__(self, folder: Path, limit_bytes: int | None = None) -> None:
        self.folder = folder.absolute()
        self.limit_bytes = limit_bytes
        self._limit = Limit(self.folder, limit_bytes)
        self._usable = True
        self._swept = False

    def content_hash(self, file: Path) -> str:
        """SHA-256 (hex) of a file's bytes; not read again while its size and times are the same.

        Raises:
            OSError: the file cannot be read.
        """
        state = file.stat()
        stamp = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
        note = self._place("files", _sha256(str(file.resolve())), ".json")
        try:
            known = json.loads(note.read_text(encoding="utf-8"))
            if known["stamp"] == stamp:
                return str(known["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if time.time() - max(stamp[1:]) / 1e9 > AT_REST_S:
            text = json.dumps({"file": str(file.resolve()), "stamp": stamp, "sha256": found})
            self._write(note, lambda stream: stream.write(text.encode()))
        return found

    def find(self, kind: str, key: str) -> Path | None:
        """The file of a complete, undamaged entry, if there is one; :meth:`put` replaces a damaged one."""
        file = self._place(kind, key, entry.ENDING)
        with suppress(OSError):  # not there, or in a folder that is only to be read
            self._limit.used(file)
        return file if entry.is_whole(file) else None

    def put(self, kind: str, key: str, record: Mapping[str, Any], **arrays: NDArray[Any]) -> Path | None:
        """Write an entry; returns its file, or None if it cannot be written."""
        file = self._place(kind, key, entry.ENDING)
        if not self._write(file, lambda stream: entry.write(stream, record, arrays)):
            return None
        self._limit.written(sum(array.nbytes for array in arrays.values()))
        return file

    def size_bytes(self) -> int:
        """Bytes on disk."""
        total = 0
        for kind in KINDS:
            for file in (self.folder / kind).rglob("*"):
                with contextlib.suppress(FileNotFoundError):  # a search is writing
                    total += file.stat().st_size if file.is_file() else 0
        return total

    def clear(self) -> int:
        """Remove every entry; returns the bytes freed. A search that reads from the cache must not be running.

        Raises:
            LossevoError: something cannot be removed.
        """
        freed = self.size_bytes()
        for kind in KINDS:
            try:
                shutil.rmtree(self.folder / kind)
            except FileNotFoundError:
                continue
            except OSError as problem:
                raise LossevoError(
                    f"{problem.filename}: cannot be removed ({problem.strerror}); is it another user's?"
                ) from None
        self._swept = False
        return freed

    def _place(self, kind: str, key: str, ending: str) -> Path:
        return self.folder / kind / key[:2] / (key + ending)

    def _write(self, file: Path, write: Callable[[IO[bytes]], object]) -> bool:
        if not self._usable:
            return False
        unfinished = self.folder / "unfinished"
        try:
            if not self._swept:
                unfinished.mkdir(mode=0o700, parents=True, exist_ok=True)
                _sweep(unfinished)
                self._swept = True
            self._limit.used()
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=unfinished)
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    write(stream)
                Path(name).replace(file)
            except BaseException:
                _remove(Path(name))
                raise
        except OSError as problem:
            self._usable = False
            warnings.warn(
                f"{self.folder}: the cache cannot be written ({problem.strerror or problem}), so cohorts are prepared "
                "anew each time; set LOSSEVO_CACHE to a folder that can be written and has room",
                CacheWarning,
                stacklevel=3,
            )
            return False
        return True


@dataclass(frozen=True, slots=True, eq=False)
class StoredVolume:
    """A :class:`~lossevo.data.cohort.Volume` in the cache: ``image`` and ``label`` are read when asked for, not held.

    ``voxels`` is how many it has, ``channels`` how many channels. All but ``read`` is known without opening the file.
    """

    case_id: str
    subject: str
    spacing_mm: tuple[float, float, float]
    channels: int
    voxels: int
    file: Path

    @property
    def image(self) -> NDArray[np.float32]:
        """(M, X, Y, Z), read from disk."""
        return entry.read_array(self.file, "image")

    @property
    def label(self) -> NDArray[np.uint8]:
        """(X, Y, Z), read from disk."""
        return entry.read_array(self.file, "label")

    def read(self) -> Volume:
        """The volume in memory.

        Raises:
            LossevoError: its file is gone or damaged.
        """
        return Volume(self.case_id, self.subject, self.image, self.label, self.spacing_mm)


def _sweep(unfinished: Path) -> None:
    """Remove what killed processes have left behind."""
    for leftover in unfinished.iterdir():
        try:
            if time.time() - leftover.stat().st_mtime > LEFTOVER_S:
                leftover.unlink()
        except FileNotFoundError:  # another process has finished or removed it
            pass


def _remove(file: Path) -> None:
    with suppress(OSError):  # gone already, or not ours to remove: what matters is that it is not used
        file.unlink()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
