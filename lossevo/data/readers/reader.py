"""What a reader of one data format is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lossevo.data.scan import Scan


@dataclass(frozen=True, slots=True)
class Reader:
    """A data format: how it is recognised and read.

    ``summary`` says what is looked for. ``matches`` looks at file names (and JSON) alone, and is quick. ``scan``
    raises :class:`~lossevo.errors.LossevoError` where it cannot make sense of the folder at all; what is wrong with
    single cases it reports as problems. A ``general`` format gives way to a special one that matches too.
    """

    name: str
    summary: str
    matches: Callable[[Path], bool]
    scan: Callable[[Path], Scan]
    general: bool = False
