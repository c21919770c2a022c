"""The worker of the executors: made once per process, then called with one request after another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lossevo.training.request import TrainingRequest
from lossevo.training.task import TrainingData
from lossevo.training.trainer import Trainer


class TrainingWorker:
    """Turns payloads of :class:`TrainingRequest` into payloads of :class:`TrainingResult`.

    ``WorkerSpec(factory="lossevo.training.worker:TrainingWorker", payload=training_data)``.
    """

    def __init__(self, payload: TrainingData) -> None:
        # Workers share the machine's cores: two threads in each of two processes on two cores are seven times slower
        # than one. And the number of threads decides the order of sums, hence the last bits of a result.
        torch.set_num_threads(1)
        self.trainer = Trainer(payload)

    def __call__(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """Train; raises what :meth:`Trainer.train` raises."""
        return self.trainer.train(TrainingRequest.from_payload(payload)).to_payload()
