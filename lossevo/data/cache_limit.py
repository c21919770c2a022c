"""How much the cache may take, and what goes when it takes more: what was used longest ago, and is not in use now.

Each process that uses the cache holds a lock on a file of its own in ``in-use/``, which the system lets go when the
process ends, however it ends. An entry's time of change is set to now whenever it is used, so what a living process may
still read is younger than that process's file, and stays. ``lock`` is held shared while an entry is marked as used and
alone while entries are removed: none is removed between the look and the use. Where files cannot be locked, nothing is
ever removed.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from lossevo.sizes import size_bytes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

DEFAULT_LIMIT = "50GiB"
EVICTED_KINDS = ("volumes", "patches")
# So much is written between two looks at the whole folder, at most by each process, and so much room is made.
LOOK_SHARE = 0.05


def limit_bytes() -> int | None:
    """``$LOSSEVO_CACHE_LIMIT`` in bytes, by default 50 GiB; None if it is ``off``.

    Raises:
        LossevoError: it is no size.
    """
    text = os.environ.get("LOSSEVO_CACHE_LIMIT") or DEFAULT_LIMIT
    if text == "off":
        return None
    return size_bytes(text, source="LOSSEVO_CACHE_LIMIT", expected="such as 50GiB or 500MiB, or off")


class Limit:
    """Keeps a cache's folder below ``limit_bytes`` (None: without a bound), but for what is in use."""

    def __init__(self, folder: Path, limit_bytes: int | None) -> None:
        self._folder = folder
        self._limit = limit_bytes
        self._until_look = 0.0
        self._looking = threading.Lock()

    def used(self, entry: Path | None = None) -> None:
        """Say that this process uses the folder, and an entry in it, so that none removes the entry or later ones.

        Raises:
            OSError: there is no such entry, or it is not ours to mark.
        """
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # a folder that is only to be read, or without locks
                stack.enter_context(self._locked(shared=True))
                _announce(self._folder)
            if entry is not None:
                os.utime(entry)

    def written(self, size_bytes: int) -> None:
        """Make room after an entry was written, if there is more than there may be."""
        if self._limit is None or not self._looking.acquire(blocking=False):
            return
        try:
            self._until_look -= size_bytes
            if self._until_look < 0:
                step = LOOK_SHARE * self._limit
                with self._locked(shared=False):
                    left = self._remove(step)
                self._until_look = max(self._limit - left - step, step)
        except OSError:  # no locks here
            self._until_look = float("inf")
        finally:
            self._looking.release()

    def _remove(self, step: float) -> int:
        """Remove what was used longest ago and is in nobody's use, if there is more than the limit; bytes left."""
        assert self._limit is not None
        entries = []
        for kind in EVICTED_KINDS:
            for file in (self._folder / kind).glob("*/*.*"):  # those of earlier versions too
                with contextlib.suppress(FileNotFoundError):
                    state = file.stat()
                    entries.append((state.st_mtime_ns, state.st_size, file))
        left = sum(size for _, size, _ in entries)
        if left <= self._limit:
            return left
        in_use_since = _oldest_living(self._folder)
        for used, size, file in sorted(entries):
            if left <= self._limit - step or (in_use_since is not None and used >= in_use_since):
                break
            with contextlib.suppress(OSError):
                file.unlink()
                left -= size
        return left

    @contextlib.contextmanager
    def _locked(self, *, shared: bool) -> Iterator[None]:
        if fcntl is None:
            raise OSError("files cannot be locked here")
        with (self._folder / "lock").open("ab") as stream:
            (self._folder / "lock").chmod(0o600)
            fcntl.flock(stream, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            yield


# Of each folder that this process uses, the file that says so; open, and so locked, until the process ends.
_announced: dict[tuple[int, Path], IO[bytes]] = {}
_announcing = threading.Lock()


def _announce(folder: Path) -> None:
    """Say that this process uses the folder. The caller holds the shared lock."""
    with _announcing:
        key = os.getpid(), folder
        if key in _announced and Path(_announced[key].name).exists():
            return
        (folder / "in-use").mkdir(mode=0o700, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=folder / "in-use", prefix=f"{os.getpid()}-")
        os.close(descriptor)
        stream = Path(name).open("ab")  # noqa: SIM115
        fcntl.flock(stream, fcntl.LOCK_EX)
        _announced[key] = stream


def _oldest_living(folder: Path) -> int | None:
    """When the first of the living processes that use the folder began to (ns); files of dead ones are removed."""
    since = []
    for file in (folder / "in-use").glob("*"):
        with contextlib.suppress(FileNotFoundError), file.open("ab") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                since.append(file.stat().st_mtime_ns)
            else:
                file.unlink()
    return min(since, default=None)
