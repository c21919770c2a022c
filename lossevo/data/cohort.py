"""What a cohort is: cases on disk (or generated), each loadable as a volume in canonical orientation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """One case in memory, axes running to the patient's right, anterior and superior (RAS).

    ``image`` is (M, X, Y, Z) with M channels, ``label`` is (X, Y, Z) with the values of ``Cohort.class_names``.
    """

    case_id: str
    subject: str
    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]


class Grid(NamedTuple):
    """Size and voxel size of a volume in canonical orientation."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Case:
    """One case not yet in memory.

    ``load`` reads, checks and re-orients it, and raises :class:`~lossevo.errors.LossevoError` naming the file that
    cannot be used. It may be called more than once, and gives the same volume every time. ``grid`` is the volume's
    grid where that is known without loading it.
    """

    case_id: str
    subject: str
    load: Callable[[], Volume]
    grid: Grid | None = None


@dataclass(frozen=True, slots=True)
class Cohort:
    """Cases that share channels and classes; ``class_names[value]`` names a label value, 0 is ``"background"``."""

    name: str
    class_names: tuple[str, ...]
    channel_names: tuple[str, ...]
    cases: tuple[Case, ...]

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects in sorted order, each once."""
        return tuple(sorted({case.subject for case in self.cases}))
