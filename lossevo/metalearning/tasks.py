"""What an outer step asks of a worker and what comes back: plain data."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class MetaTask:
    """Some steps of one U-Net's training under the learned loss, and a look at what they led to.

    Attributes:
        network: the loss network as plain data.
        masked: inputs that count as 0 in this task: its shaping, in every other one.
        optimiser: of the inner steps, ``adam`` or ``sgd``.
        fixed_length: see :class:`~lossevo.training.differentiable.DifferentiableTraining`.
        cool_down: take the outer loss after the steps with learning rates that fall to 0, instead of the steps.
        outer_loss: name of the task loss.
        inner: subjects that the inner steps train on.
        outer: subjects on which the outer loss is taken; none of ``inner``.
        outer_batches: how many batches of them it is the mean over.
        seed: of initial weights, batches and augmentation.
        length: steps of the whole training, which learning rates depend on.
        first: how many of them are done.
        steps: how many to do now.
        state: weights and moments after ``first`` steps, as :func:`packed`; empty at the beginning.
    """

    network: Mapping[str, Any]
    masked: tuple[str, ...]
    optimiser: str
    fixed_length: bool
    cool_down: bool
    outer_loss: str
    inner: tuple[str, ...]
    outer: tuple[str, ...]
    outer_batches: int
    seed: int
    length: int
    first: int
    steps: int
    state: str

    def to_payload(self) -> dict[str, Any]:
        """JSON-able form."""
        return {"meta": {**asdict(self), "network": dict(self.network)}}

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> MetaTask:
        """Inverse of :meth:`to_payload`."""
        fields = payload["meta"]
        names = {name: tuple(fields[name]) for name in ("masked", "inner", "outer")}
        return cls(**{**fields, **names})


@dataclass(frozen=True, slots=True)
class MetaOutcome:
    """What came of a task: the outer loss before and after its steps, the meta-gradient and the state, packed."""

    before: float
    after: float
    gradient: str
    state: str
    seconds: float

    def to_payload(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def packed(tensors: Sequence[Tensor]) -> str:
    """The numbers of float32 tensors as text: base64 of their bytes, one tensor after another, little-endian."""
    flat = torch.cat([tensor.detach().cpu().float().reshape(-1) for tensor in tensors])
    return base64.b64encode(flat.numpy().astype("<f4").tobytes()).decode("ascii")


def unpacked(text: str, like: Sequence[Tensor]) -> list[Tensor]:
    """The inverse of :func:`packed`, for tensors shaped, and on devices, as those of ``like``."""
    flat = torch.from_numpy(np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32))
    parts = torch.split(flat, [tensor.numel() for tensor in like])
    return [torch.empty_like(tensor).copy_(part.view(tensor.shape)) for part, tensor in zip(parts, like, strict=True)]
