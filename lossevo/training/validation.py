"""What a network shows on whole held-out volumes, case by case."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lossevo.data.cohort import AnyVolume
from lossevo.training.inference import predict
from lossevo.training.metrics import dice_per_class, false_voxels_per_class
from lossevo.training.task import TrainingData


class Validated(NamedTuple):
    """A validation case: of each foreground class the Dice or, where the label lacks it, the voxels predicted of it."""

    dice: tuple[float | None, ...]
    false_voxels: tuple[int | None, ...]


def validate(
    network: nn.Module, volumes: Iterable[AnyVolume], data: TrainingData, device: torch.device
) -> dict[str, Validated]:
    """Each case of ``volumes``, predicted as a whole and measured."""
    class_count = len(data.class_names)
    return {
        volume.case_id: _measured(predict(network, volume.image, data.settings, device), volume, class_count)
        for volume in volumes
    }


def _measured(prediction: NDArray[np.uint8], volume: AnyVolume, class_count: int) -> Validated:
    label = volume.label
    return Validated(
        dice_per_class(prediction, label, class_count), false_voxels_per_class(prediction, label, class_count)
    )
