"""Files of a run or comparison folder: replaced as a whole, so that no reader sees half of one, and used by one process
at a time.

Nothing is written through a symbolic link: a folder may come from somebody else.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from lossevo import documents, writing
from lossevo.errors import LossevoError, shown

LOCK = ".lock"
UNFINISHED = ".unfinished"
"""Marks a folder that is being made; a folder that still has it holds nothing worth keeping."""


class FolderInUseError(LossevoError):
    """The folder belongs to something else: another name is needed."""


def write_text(path: Path, text: str) -> None:
    """Write or replace a file.

    Raises:
        LossevoError: it cannot be written.
    """
    writing.write_text(path, text, advice="free space or rights, then resume")


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write or replace a JSON file.

    Raises:
        LossevoError: it cannot be written.
    """
    write_text(path, json_text(document))


def json_text(document: Mapping[str, Any]) -> str:
    """What :func:`write_json` writes."""
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def refuse_unfinished(folder: Path, made_by: str) -> None:
    """Raise LossevoError if a process was stopped while it made the folder."""
    if (folder / UNFINISHED).exists():
        raise LossevoError(
            f"{folder}: was not finished when it was made, so there is nothing to go on with; begin again with the "
            f"command that made it ('lossevo {made_by} …'), which may name the same folder"
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        LossevoError: it cannot be read, or is none.
    """
    document = documents.read_json(path)
    if not isinstance(document, dict):
        raise LossevoError(f"{path}: damaged, expected an object of keys and values, found {shown(document)}")
    return document


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of the folder; the lock ends with the process, however that ends.

    Raises:
        FolderInUseError: another process is in there.
        LossevoError: the folder cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    path = folder / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as problem:
        if problem.errno == errno.ELOOP:
            raise LossevoError(f"{path}: a symbolic link, which nothing is written through; remove it") from None
        raise LossevoError(f"{folder}: cannot be written ({problem.strerror or problem})") from None
    with os.fdopen(descriptor, "rb"):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino != os.fstat(descriptor).st_ino:  # it was removed and made again meanwhile
                raise BlockingIOError
        except (BlockingIOError, FileNotFoundError):
            raise FolderInUseError(f"{folder}: another process works in this folder; wait for it or stop it") from None
        except OSError as problem:
            raise LossevoError(
                f"{folder}: cannot be locked ({problem.strerror or problem}); choose a folder on a file system that "
                "has file locks"
            ) from None
        yield


@contextmanager
def new_folder(folder: Path, *, made_by: str, configuration: str) -> Iterator[None]:
    """Make ``folder`` and fill it; no other process can, meanwhile. If that fails, nothing of it is left.

    An empty folder may be there, or one that was never finished. ``configuration`` names the file that the finished
    folder has and that is written last, and ``made_by`` the command that goes on with it.

    Raises:
        FolderInUseError: the folder holds anything else, or another process works in it.
        LossevoError: it cannot be written.
    """
    with ExitStack() as stack:
        try:
            made = [path for path in (folder, *folder.parents) if not path.exists()]
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            if isinstance(problem, FileExistsError):
                if os.path.lexists(folder):
                    raise _occupied(folder, made_by, configuration) from None
                raise LossevoError(f"{problem.filename}: not a folder; remove it, or name another folder") from None
            raise LossevoError(f"{folder}: cannot be written ({problem.strerror or problem})") from None
        names = {path.name for path in folder.iterdir()}
        if names and names.isdisjoint({LOCK, UNFINISHED}):  # not ours: leave no lock there
            raise _occupied(folder, made_by, configuration)
        try:
            stack.enter_context(locked(folder))
        except FolderInUseError:
            raise
        except LossevoError:
            _remove(folder, made)
            raise
        names = {path.name for path in folder.iterdir()} - {LOCK}
        if names and UNFINISHED not in names:
            raise _occupied(folder, made_by, configuration)
        try:
            _clear(folder)
            write_text(folder / UNFINISHED, "")
            yield
            (folder / UNFINISHED).unlink()
        except BaseException:
            _remove(folder, made)
            raise


def _remove(folder: Path, made: Sequence[Path]) -> None:
    """Leave nothing of a folder that could not be made: what is in it, and the folders that were ``made`` for it."""
    with suppress(OSError):
        _clear(folder)
        (folder / LOCK).unlink(missing_ok=True)
        for path in made:
            path.rmdir()


def _clear(folder: Path) -> None:
    """Remove what a process left that was stopped while it made the folder; the mark goes last."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == UNFINISHED):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _occupied(folder: Path, made_by: str, configuration: str) -> FolderInUseError:
    resumable = (folder / configuration).is_file()
    hint = f"go on with 'lossevo {made_by} --resume {folder}', or" if resumable else "nothing is overwritten;"
    return FolderInUseError(f"{folder}: exists already; {hint} give another folder")
