"""Files of figures: written beside, then renamed, so that no reader sees half of one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Literal

from lossevo.errors import LossevoError
from lossevo.report.style import Picture, rendered
from lossevo.writing import write_bytes

_LONGEST_NAME = 180
"""In bytes: file systems take 255, of which endings and numbers need some."""


def file_names(names: Iterable[str], *, taken: Collection[str] = ()) -> dict[str, str]:
    """A file name without ending for each name, close to it, and another for each, also where case does not count.

    Where several names would get the same one, or one that is ``taken`` (also with a number), a hash of the name tells
    them apart; a name that is a file name as it is keeps it.
    """
    asked = list(dict.fromkeys(names))
    count = Counter(_close(name).casefold() for name in asked)
    used: set[str] = set()
    found: dict[str, str] = {}
    for name in sorted(asked, key=lambda name: _close(name) != name):
        plain, digest = _close(name), sha256(name.encode()).hexdigest()
        own = plain == name or count[plain.casefold()] == 1
        free = own and re.sub(r"_\d+$", "", plain.casefold()) not in taken
        tries = [*([plain] if free else []), *(f"{plain}-{digest[:length]}" for length in (6, 16, 64))]
        found[name] = next(one for one in tries if one.casefold() not in used)
        used.add(found[name].casefold())
    return found


def _close(name: str) -> str:
    """What of a name a file name can hold, on any system."""
    plain = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)
    return plain.encode()[:_LONGEST_NAME].decode(errors="ignore")


def write_pictures(pictures: Iterable[Picture], folder: Path) -> list[Path]:
    """Write pictures as PNG and SVG into ``folder``, which is made if need be; returns the PNGs.

    Raises:
        LossevoError: a file cannot be written, or ``folder`` is a symbolic link: the folder around it may come from
            somebody else.
    """
    if folder.is_symlink():
        raise LossevoError(f"{folder}: a symbolic link, which nothing is written through; remove it")
    written = []
    for picture in pictures:
        write_file(folder / f"{picture.name}.svg", rendered(picture.figure, "svg"))
        written.append(folder / f"{picture.name}.png")
        write_file(written[-1], rendered(picture.figure, "png"))
    return written


def kind_of(file: Path) -> Literal["svg", "png"]:
    """The format of a picture that a file's ending asks for.

    Raises:
        LossevoError: neither .svg nor .png.
    """
    match file.suffix.lower():
        case ".svg":
            return "svg"
        case ".png":
            return "png"
    raise LossevoError(f"{file}: a picture is written as SVG or PNG; give a name that ends in .svg or .png")


def write_picture(picture: Picture, file: Path) -> None:
    """Write one picture; the ending says whether as SVG or PNG.

    Raises:
        LossevoError: another ending, or the file cannot be written.
    """
    write_bytes(file, rendered(picture.figure, kind_of(file)), advice="name another file")


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
