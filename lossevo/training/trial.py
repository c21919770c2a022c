"""What is asked of one training: plain data that crosses process boundaries as JSON."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from lossevo.errors import LossevoError, shown
from lossevo.metrics import parse_metrics

MeasuredOn = Literal["working", "original"]
STATE: Final = "state"
"""Where a worker's argument and result hold the state of a training, beside the trial and the measurement."""
KEEPS: Final = "keeps state"
"""Where its argument says that the result is to hold one."""


@dataclass(frozen=True, slots=True)
class Split:
    """Who is trained on, and who is validated on.

    Raises:
        LossevoError: nobody on one side, or somebody on both.
    """

    train: tuple[str, ...]
    validate: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.train or not self.validate:
            raise LossevoError("a training needs at least one training and one validation subject")
        if both := sorted(set(self.train) & set(self.validate)):
            raise LossevoError(f"subjects {both} are both trained and validated on; give each to one side")


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How a loss is measured by one training: more steps, seeds or subjects say more, and cost more.

    Args:
        steps: number of optimiser steps, at least 1.
        seed: non-negative; decides initial weights, batch order and augmentation, and nothing else does.
        split: who is trained and validated on.

    Raises:
        LossevoError: no step, or a negative seed.
    """

    steps: int
    seed: int
    split: Split

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise LossevoError(f"steps is {self.steps}; a training needs at least 1 optimiser step")
        if self.seed < 0:
            raise LossevoError(f"seed is {self.seed}; give a non-negative integer")


@dataclass(frozen=True, slots=True)
class Trial:
    """One training: a loss at a fidelity, in a study.

    Args:
        loss: loss spec as taken by :func:`lossevo.losses.from_spec`.
        fidelity: steps, seed and split.
        study: fingerprint of the task and the data (:attr:`lossevo.training.TrainingData.fingerprint`); empty for
            those that the worker has.
        metrics: what is measured on the validation subjects at the last step.
        grid: where they are measured: ``working`` is the grid at the working spacing, ``original`` each image's own.
        learning_rate: peak of the schedule; None: the task's.
        length: steps of the one-cycle schedule, of which the training makes ``fidelity.steps``; None: just as many.
        continues: steps of the training, the same otherwise, that this one goes on from; None: it begins anew. Whoever
            lacks the state of that one makes its steps again, with the same result.

    Raises:
        LossevoError: there is no such grid or metric, a metric is not called by its name, a learning rate that is not
            above 0, a length below the steps, or nothing is left to continue.
    """

    loss: Mapping[str, Any]
    fidelity: Fidelity
    study: str = ""
    metrics: tuple[str, ...] = ("dice",)
    grid: MeasuredOn = "working"
    learning_rate: float | None = None
    length: int | None = None
    continues: int | None = None

    def __post_init__(self) -> None:
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise LossevoError(f"learning rate is {self.learning_rate}, expected a number above 0")
        if self.length is not None and self.length < self.fidelity.steps:
            raise LossevoError(
                f"a schedule of {self.length} steps is too short for a training of {self.fidelity.steps}; "
                "give at least as many"
            )
        if self.continues is not None and not 0 < self.continues < self.fidelity.steps:
            raise LossevoError(
                f"a training of {self.fidelity.steps} steps cannot continue one of {self.continues}; give fewer"
            )
        if self.grid not in get_args(MeasuredOn):
            raise LossevoError(f"grid is {shown(self.grid)}, expected one of {', '.join(get_args(MeasuredOn))}")
        names = tuple(metric.name for metric in parse_metrics(self.metrics)) if self.metrics else ()
        if names != self.metrics:
            raise LossevoError(f"metrics are {shown(self.metrics)}, expected the names {', '.join(names)}")

    @property
    def identity(self) -> str:
        """sha256 (hex) over all of it: two trials of one identity have one result."""
        return identity_of(self.to_payload())

    @property
    def own_steps(self) -> int:
        """Steps that it makes beyond those of the training that it continues."""
        return self.fidelity.steps - (self.continues or 0)

    def to_payload(self) -> dict[str, Any]:
        """JSON-able form, without what says nothing: no learning rate or length of its own, nothing continued."""
        split = self.fidelity.split
        length = self.length if self.length != self.fidelity.steps else None
        more = {"learning_rate": self.learning_rate, "length": length, "continues": self.continues}
        return {
            "loss": dict(self.loss),
            "steps": self.fidelity.steps,
            "seed": self.fidelity.seed,
            "split": {"train": list(split.train), "validate": list(split.validate)},
            "study": self.study,
            "metrics": list(self.metrics),
            "grid": self.grid,
            **{key: value for key, value in more.items() if value is not None},
        }

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> Trial:
        """Inverse of :meth:`to_payload`."""
        split = Split(tuple(payload["split"]["train"]), tuple(payload["split"]["validate"]))
        fidelity = Fidelity(payload["steps"], payload["seed"], split)
        return cls(
            payload["loss"],
            fidelity,
            payload["study"],
            tuple(payload["metrics"]),
            payload["grid"],
            payload.get("learning_rate"),
            payload.get("length"),
            payload.get("continues"),
        )


def identity_of(payload: Mapping[str, Any]) -> str:
    """The identity of the trial with this JSON-able form."""
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()
