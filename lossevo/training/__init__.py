"""The training task: a trial (loss, steps, seed, subjects) becomes a measurement.

``lossevo.training.session``, ``.trainer`` and ``.worker`` import MONAI, which takes seconds, and are therefore not
imported here: a driver that only sends trials does not need them.
"""

from __future__ import annotations

from lossevo.training.measurement import Measurement
from lossevo.training.task import (
    DEFAULT_PATCH_CACHE_BYTES,
    TaskSettings,
    TrainingData,
    load_task,
    make_training_data,
)
from lossevo.training.trial import Fidelity, Split, Trial

__all__ = [
    "DEFAULT_PATCH_CACHE_BYTES",
    "Fidelity",
    "Measurement",
    "Split",
    "TaskSettings",
    "TrainingData",
    "Trial",
    "load_task",
    "make_training_data",
]
