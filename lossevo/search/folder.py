"""Files of a run or comparison folder: replaced as a whole, so that no reader sees half of one, and used by one process
at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lossevo import documents
from lossevo.errors import LossevoError, shown


def write_text(path: Path, text: str) -> None:
    """Write or replace a file.

    Raises:
        LossevoError: it cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8", newline="") as stream:
            stream.write(text)
        part.replace(path)
    except OSError as problem:
        raise LossevoError(
            f"{path}: cannot be written ({problem.strerror or problem}); free space or rights, then resume"
        ) from None


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write or replace a JSON file.

    Raises:
        LossevoError: it cannot be written.
    """
    write_text(path, json_text(document))


def json_text(document: Mapping[str, Any]) -> str:
    """What :func:`write_json` writes."""
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


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
        LossevoError: another process is in there, or the folder cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    try:
        stream = (folder / ".lock").open("w")
    except OSError as problem:
        raise LossevoError(f"{folder}: cannot be written ({problem.strerror or problem})") from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LossevoError(f"{folder}: another process works in this folder; wait for it or stop it") from None
        yield
