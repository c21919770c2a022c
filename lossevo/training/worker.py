"""The worker of the executors: made once per process, then called with one trial after another."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from lossevo.training.task import TrainingData
from lossevo.training.threads import one_thread
from lossevo.training.trainer import Trainer
from lossevo.training.trial import KEEPS, STATE, Trial


class TrainingWorker:
    """Turns payloads of :class:`Trial` into payloads of :class:`Measurement`.

    Beside the trial a payload may hold :data:`STATE`, the bytes to go on from, and :data:`KEEPS`: then the result holds
    the training's own state under :data:`STATE`.

    ``WorkerSpec(factory="lossevo.training.worker:TrainingWorker", payload=training_data)``.
    """

    def __init__(self, payload: TrainingData) -> None:
        self.trainer = Trainer(payload)

    def __call__(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """Train; raises what :meth:`Trainer.train` raises."""
        own: dict[str, bytes] = {}
        keep = partial(own.__setitem__, STATE) if payload.get(KEEPS) else None
        with one_thread():
            measurement = self.trainer.train(Trial.from_payload(payload), state=payload.get(STATE), keep=keep)
        return measurement.to_payload() | own
