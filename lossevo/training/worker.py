"""The worker of the executors: made once per process, then called with one trial after another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lossevo.training.task import TrainingData
from lossevo.training.threads import one_thread
from lossevo.training.trainer import Trainer
from lossevo.training.trial import Trial


class TrainingWorker:
    """Turns payloads of :class:`Trial` into payloads of :class:`Measurement`.

    ``WorkerSpec(factory="lossevo.training.worker:TrainingWorker", payload=training_data)``.
    """

    def __init__(self, payload: TrainingData) -> None:
        self.trainer = Trainer(payload)

    def __call__(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """Train; raises what :meth:`Trainer.train` raises."""
        with one_thread():
            return self.trainer.train(Trial.from_payload(payload)).to_payload()
