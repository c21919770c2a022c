"""The training task: (loss, task, budget, seed) -> result.

``lossevo.training.session``, ``.trainer`` and ``.worker`` import MONAI, which takes seconds, and are therefore not
imported here: a driver that only sends requests does not need them.
"""

from __future__ import annotations

from lossevo.training.request import TrainingRequest, TrainingResult
from lossevo.training.task import (
    DEFAULT_PATCH_CACHE_BYTES,
    TaskSettings,
    TrainingData,
    load_task,
    make_training_data,
)

__all__ = [
    "DEFAULT_PATCH_CACHE_BYTES",
    "TaskSettings",
    "TrainingData",
    "TrainingRequest",
    "TrainingResult",
    "load_task",
    "make_training_data",
]
