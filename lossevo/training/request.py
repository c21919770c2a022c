"""What is asked of one training and what comes back: plain data that crosses process boundaries as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lossevo.errors import LossevoError


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """Train with ``loss`` on some subjects for ``budget_steps`` optimiser steps and validate on others.

    Args:
        loss: loss spec as taken by :func:`lossevo.losses.from_spec`.
        train: subjects whose patches are trained on.
        validate: held-out subjects; disjoint from ``train``.
        budget_steps: number of optimiser steps, at least 1.
        seed: non-negative; decides initial weights, batch order and augmentation, and nothing else does.

    Raises:
        LossevoError: no training or no validation subject, a subject on both sides, no step, a negative seed.
    """

    loss: Mapping[str, Any]
    train: tuple[str, ...]
    validate: tuple[str, ...]
    budget_steps: int
    seed: int

    def __post_init__(self) -> None:
        if not self.train or not self.validate:
            raise LossevoError("a training needs at least one training and one validation subject")
        if both := sorted(set(self.train) & set(self.validate)):
            raise LossevoError(f"subjects {both} are both trained and validated on; give each to one side")
        if self.budget_steps < 1:
            raise LossevoError(f"budget_steps is {self.budget_steps}; a training needs at least 1 optimiser step")
        if self.seed < 0:
            raise LossevoError(f"seed is {self.seed}; give a non-negative integer")

    def to_payload(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "loss": dict(self.loss),
            "train": list(self.train),
            "validate": list(self.validate),
            "budget_steps": self.budget_steps,
            "seed": self.seed,
        }

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> TrainingRequest:
        """Inverse of :meth:`to_payload`."""
        return cls(**{**payload, "train": tuple(payload["train"]), "validate": tuple(payload["validate"])})


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a training reached on the held-out subjects.

    Attributes:
        score: foreground Dice in [0, 1] at the last step: mean over the classes that a case's label has, then over
            the cases whose label has any. What is averaged over is the same for every loss.
        cases: case id -> class name -> Dice at the last step; None where the label lacks the class.
        curve: ``[step, mean training loss since the point before]``, at most 60 points.
        validation_curve: ``[step, mean foreground Dice]``; the last point is ``[budget_steps, score]``.
        seconds: wall time of the training, validation included.
        trajectory: what moved in the loss, see :meth:`~lossevo.losses.SegmentationLoss.trajectory`; mostly nothing.
        false_voxels: case id -> class name -> voxels predicted at the last step of a class that the label lacks. Above
            0 is a false alarm, which the score does not count. Cases that have every class are left out.
    """

    score: float
    cases: dict[str, dict[str, float | None]]
    curve: list[list[float]]
    validation_curve: list[list[float]]
    seconds: float
    trajectory: list[dict[str, float]] = field(default_factory=list)
    false_voxels: dict[str, dict[str, int]] = field(default_factory=dict)

    def to_payload(self) -> dict[str, Any]:
        """JSON-able form."""
        payload = asdict(self)
        return {key: value for key, value in payload.items() if value or key not in ("trajectory", "false_voxels")}

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> TrainingResult:
        """Inverse of :meth:`to_payload`."""
        return cls(**payload)
