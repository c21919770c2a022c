"""What a network shows on whole held-out volumes, case by case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lossevo.data.body import Box
from lossevo.data.cohort import AnyVolume
from lossevo.data.geometry import Spacing
from lossevo.errors import LossevoError
from lossevo.metrics import ClassResult, Metric, dice_per_class, mean_over_cases, measure
from lossevo.training.inference import predict
from lossevo.training.regrid import label_on_original
from lossevo.training.task import TrainingData
from lossevo.training.trial import MeasuredOn

Validated = dict[str, dict[str, ClassResult]]
"""Case id -> foreground class -> what was measured."""


class Validation(NamedTuple):
    """What was measured on the grid that was asked for, and the mean foreground Dice at the working spacing."""

    cases: Validated
    working_dice: float


def validate(
    network: nn.Module,
    volumes: Iterable[AnyVolume],
    data: TrainingData,
    device: torch.device,
    metrics: Sequence[Metric],
    grid: MeasuredOn = "working",
) -> Validation:
    """Each case of ``volumes``, predicted as a whole and measured at the working spacing or on its image's own grid.

    Raises:
        LossevoError: ``data`` lacks a case's own grid.
    """
    volumes = list(volumes)
    if grid == "original":
        require_originals(volumes, data)
    cases: Validated = {}
    working: list[Sequence[float | None]] = []
    for stored in volumes:
        volume = stored.read()
        prediction = predict(network, volume.image, data.settings, device)
        at_work = prediction.label
        working.append(dice_per_class(at_work, volume.label, len(data.class_names)))
        if grid == "working":
            cases[volume.case_id] = _measured(at_work, volume.label, volume.spacing_mm, data, metrics)
        else:
            original = data.originals[volume.case_id]
            label = label_on_original(prediction, volume.spacing_mm, original)
            cases[volume.case_id] = _measured(
                label, original.label, original.spacing_mm, data, metrics, field=original.kept
            )
    return Validation(cases, mean_over_cases(working))


def require_originals(volumes: Iterable[AnyVolume], data: TrainingData) -> None:
    """Refuse data that does not hold the label of each of these cases on its image's own grid.

    Raises:
        LossevoError: as it says.
    """
    if lacking := [volume.case_id for volume in volumes if volume.case_id not in data.originals]:
        raise LossevoError(
            f"the training is to be measured on each image's own grid, but the training data lacks that of "
            f"{', '.join(lacking[:5])}{', …' if len(lacking) > 5 else ''}; make it with on_original_grid=True"
        )


def _measured(
    prediction: NDArray[np.uint8],
    label: NDArray[np.uint8],
    spacing_mm: Spacing,
    data: TrainingData,
    metrics: Sequence[Metric],
    field: Box | None = None,
) -> dict[str, ClassResult]:
    found = measure(prediction, label, spacing_mm, metrics, classes=data.class_names[1:], field=field)
    return {str(name): result for name, result in found.items()}
