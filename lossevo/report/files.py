"""Files of figures: written beside, then renamed, so that no reader sees half of one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lossevo.errors import LossevoError
from lossevo.report.style import Picture, rendered
from lossevo.writing import write_bytes


def write_pictures(pictures: Iterable[Picture], folder: Path) -> list[Path]:
    """Write pictures as PNG and SVG into ``folder``, which is made if need be; returns the PNGs.

    Raises:
        LossevoError: a file cannot be written.
    """
    written = []
    for picture in pictures:
        write_file(folder / f"{picture.name}.svg", rendered(picture.figure, "svg"))
        written.append(folder / f"{picture.name}.png")
        write_file(written[-1], rendered(picture.figure, "png"))
    return written


def write_file(file: Path, content: bytes) -> None:
    """Write or replace a file.

    Raises:
        LossevoError: it cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise LossevoError(f"{file}: cannot be written ({problem.strerror or problem})") from None
    write_bytes(file, content)
