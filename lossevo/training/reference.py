"""What the labels of a cohort decide before anything is trained: which classes of which cases have a Dice."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lossevo.data.cohort import AnyVolume
from lossevo.data.original import OriginalLabel


@dataclass(frozen=True, slots=True)
class ReferenceCase:
    """A case, whose it is, and the foreground classes that its label has a voxel of: those have a Dice."""

    case_id: str
    subject: str
    classes: frozenset[int]


def reference_cases(
    volumes: Iterable[AnyVolume], originals: Mapping[str, OriginalLabel] | None = None
) -> tuple[ReferenceCase, ...]:
    """The cases of some volumes, in their order.

    ``originals`` are the labels by case id of trials that are measured on each image's own grid: a small structure may
    be there and not at the working spacing.
    """
    return tuple(
        ReferenceCase(
            volume.case_id,
            volume.subject,
            classes_in(originals[volume.case_id].label if originals else volume.label),
        )
        for volume in volumes
    )


def classes_in(label: NDArray[np.uint8]) -> frozenset[int]:
    """The foreground classes that a label volume has a voxel of."""
    return frozenset(np.flatnonzero(np.bincount(label.ravel())).tolist()) - {0}


def missing_classes(
    cases: Iterable[ReferenceCase], subjects: Collection[str], class_names: Sequence[str]
) -> tuple[str, ...]:
    """The foreground classes that no case of ``subjects`` has, in their order."""
    present = {value for case in cases if case.subject in subjects for value in case.classes}
    return tuple(name for value, name in enumerate(class_names) if value and value not in present)
