"""The worker of the executors: made once per process, then called with one request after another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lossevo.training.request import TrainingRequest
from lossevo.training.task import TrainingData
from lossevo.training.threads import one_thread
from lossevo.training.trainer import Trainer


class TrainingWorker:
    """Turns payloads of :class:`TrainingRequest` into payloads of :class:`TrainingResult`.

    ``WorkerSpec(factory="lossevo.training.worker:TrainingWorker", payload=training_data)``.
    """

    def __init__(self, payload: TrainingData) -> None:
        self.trainer = Trainer(payload)

    def __call__(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """Train; raises what :meth:`Trainer.train` raises."""
        with one_thread():
            return self.trainer.train(TrainingRequest.from_payload(payload)).to_payload()
