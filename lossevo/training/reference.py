"""What the labels of a cohort decide before anything is trained: which classes of which cases are measured, and what a
training that fails scores on them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lossevo.data.cohort import AnyVolume
from lossevo.data.original import OriginalLabel
from lossevo.metrics import FieldOfView, Metric


@dataclass(frozen=True, slots=True)
class ReferenceCase:
    """A case as its label has it, on the grid that predictions are measured on.

    Attributes:
        case_id: name of the case.
        subject: whose it is.
        view: shape and voxel size of the grid.
        volumes_ml: volume of each foreground class that the label has a voxel of. These classes have a value of each
            metric, and no others.
    """

    case_id: str
    subject: str
    view: FieldOfView
    volumes_ml: Mapping[int, float]

    @classmethod
    def of(cls, case_id: str, subject: str, label: NDArray[np.uint8], view: FieldOfView) -> ReferenceCase:
        """From a label, or the part of it that has all its foreground, on the grid ``view``."""
        volumes = {value: voxels * view.voxel_ml for value, voxels in voxels_in(label).items()}
        return cls(case_id, subject, view, volumes)

    @property
    def classes(self) -> frozenset[int]:
        """The foreground classes that the label has a voxel of."""
        return frozenset(self.volumes_ml)

    def worst_value(self, metric: Metric, value: int) -> float:
        """What a failed training scores on a class that the label has: what a prediction of nothing scores."""
        return metric.worst_value(self.view, self.volumes_ml[value])


def reference_cases(
    volumes: Iterable[AnyVolume], originals: Mapping[str, OriginalLabel] | None = None
) -> tuple[ReferenceCase, ...]:
    """The cases of some volumes, in their order.

    ``originals`` are the labels by case id of trials that are measured on each image's own grid: a small structure may
    be there and not at the working spacing.
    """
    return tuple(_reference_case(volume, originals[volume.case_id] if originals else volume) for volume in volumes)


def _reference_case(volume: AnyVolume, labelled: AnyVolume | OriginalLabel) -> ReferenceCase:
    label = labelled.label
    return ReferenceCase.of(volume.case_id, volume.subject, label, FieldOfView.of(label.shape, labelled.spacing_mm))


def voxels_in(label: NDArray[np.uint8]) -> dict[int, int]:
    """The foreground classes that a label has a voxel of, each with the number of its voxels."""
    counts = np.bincount(label.ravel())
    return {value: int(counts[value]) for value in np.flatnonzero(counts).tolist() if value}


def missing_classes(
    cases: Iterable[ReferenceCase], subjects: Collection[str], class_names: Sequence[str]
) -> tuple[str, ...]:
    """The foreground classes that no case of ``subjects`` has, in their order."""
    present = {value for case in cases if case.subject in subjects for value in case.classes}
    return tuple(name for value, name in enumerate(class_names) if value and value not in present)
