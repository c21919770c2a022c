"""What a network shows on whole held-out volumes, case by case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from lossevo.data.cohort import AnyVolume
from lossevo.metrics import ClassResult, Metric, measure
from lossevo.training.inference import predict
from lossevo.training.task import TrainingData

Validated = dict[str, dict[str, ClassResult]]
"""Case id -> foreground class -> what was measured."""


def validate(
    network: nn.Module,
    volumes: Iterable[AnyVolume],
    data: TrainingData,
    device: torch.device,
    metrics: Sequence[Metric],
) -> Validated:
    """Each case of ``volumes``, predicted as a whole and measured at the working spacing."""
    return {volume.case_id: _measured(network, volume.read(), data, device, metrics) for volume in volumes}


def _measured(
    network: nn.Module, volume: AnyVolume, data: TrainingData, device: torch.device, metrics: Sequence[Metric]
) -> dict[str, ClassResult]:
    prediction = predict(network, volume.image, data.settings, device)
    found = measure(prediction, volume.label, volume.spacing_mm, metrics, classes=data.class_names[1:])
    return {str(name): result for name, result in found.items()}
