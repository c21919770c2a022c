"""What a cohort is: cases on disk (or generated), each loadable as a volume in canonical orientation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from lossevo.data.mirror import Mirror, mirror_of_names
from lossevo.data.scan import CaseFiles


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

    @property
    def channels(self) -> int:
        """How many channels the image has."""
        return len(self.image)

    @property
    def voxels(self) -> int:
        """How many voxels the label has."""
        return self.label.size

    def read(self) -> Self:
        """Itself: it is in memory."""
        return self


class AnyVolume(Protocol):
    """A volume in memory (:class:`Volume`) or on disk (:class:`~lossevo.data.cache.StoredVolume`).

    On disk ``image`` and ``label`` are read each time they are asked for; ``read`` gives the volume in memory.
    """

    @property
    def case_id(self) -> str: ...  # noqa: D102
    @property
    def subject(self) -> str: ...  # noqa: D102
    @property
    def spacing_mm(self) -> tuple[float, float, float]: ...  # noqa: D102
    @property
    def channels(self) -> int: ...  # noqa: D102
    @property
    def voxels(self) -> int: ...  # noqa: D102
    @property
    def image(self) -> NDArray[np.float32]: ...  # noqa: D102
    @property
    def label(self) -> NDArray[np.uint8]: ...  # noqa: D102
    def read(self) -> Volume: ...  # noqa: D102


class Grid(NamedTuple):
    """Size and voxel size of a volume in canonical orientation."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Case:
    """One case not yet in memory.

    ``load`` reads, checks and re-orients it, and raises :class:`~lossevo.errors.LossevoError` naming the file that
    cannot be used. It may be called more than once, and gives the same volume every time. ``grid`` is the volume's
    grid where that is known without loading it, ``files`` are those that it is read from. ``reading`` says, in any
    words, all that decides what ``load`` makes of the bytes of those files: the reader and its version, which value
    becomes which class. It is part of the key of the cache, and a case without it is not looked up before it is loaded.
    """

    case_id: str
    subject: str
    load: Callable[[], Volume]
    grid: Grid | None = None
    files: CaseFiles | None = None
    reading: str = ""


@dataclass(frozen=True, slots=True)
class Cohort:
    """Cases that share channels and classes; ``class_names[value]`` names a label value, 0 is ``"background"``.

    ``mirror`` is what a left-right mirror makes of the classes; without it the names of the classes tell.
    """

    name: str
    class_names: tuple[str, ...]
    channel_names: tuple[str, ...]
    cases: tuple[Case, ...]
    mirror: Mirror | None = None

    @property
    def mirroring(self) -> Mirror:
        """What a left-right mirror makes of the classes."""
        return self.mirror or mirror_of_names(self.class_names)

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects in sorted order, each once."""
        return tuple(sorted({case.subject for case in self.cases}))
