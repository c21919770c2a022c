"""Where a data set or pictures of one may be written: never over, around or inside what is read or worked in."""

from __future__ import annotations

from pathlib import Path

from lossevo.errors import LossevoError


def refuse_overlap(out: Path, source: Path | None = None) -> None:
    """Refuse an output folder that is, or holds, the current folder or the ``source``, or lies inside the source.

    Raises:
        LossevoError: it is such.
    """
    try:
        place, here = out.resolve(), Path.cwd()
    except OSError as problem:
        raise LossevoError(f"{out}: cannot be found ({problem.strerror}); go to a folder that is there") from None
    if here.is_relative_to(place):
        raise LossevoError(f"{out}: {_relation(place, here)} the current folder; name a new folder in it")
    if source is None:
        return
    read = source.resolve()
    if read.is_relative_to(place):
        raise LossevoError(f"{out}: {_relation(place, read)} the data set that is read ({source}); give another folder")
    if place.is_relative_to(read):
        raise LossevoError(f"{out}: inside of the data set that is read ({source}); give a folder outside of it")


def refuse_used(out: Path) -> None:
    """Refuse an output folder that holds anything.

    Raises:
        LossevoError: it does, is no folder, or cannot be looked into.
    """
    try:
        used = out.exists() and (not out.is_dir() or any(out.iterdir()))
    except OSError as problem:
        raise LossevoError(f"{out}: cannot be written ({problem.strerror}); give another folder") from None
    if used:
        raise LossevoError(f"{out}: exists already; nothing is overwritten, give another folder")


def _relation(place: Path, other: Path) -> str:
    return "is" if place == other else "holds"
