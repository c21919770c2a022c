"""How much of a loss's gradient falls on the foreground."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from lossevo.analysis import scenes
from lossevo.analysis.losses import AnalysedLoss

SHARES = (0.01, 0.05, 0.20)

Stage = Literal["untrained", "trained"]


@dataclass(frozen=True, slots=True)
class ForegroundShare:
    """Σ|∂L/∂x| over the foreground's voxels divided by Σ|∂L/∂x| over all; NaN if there is no gradient at all.

    Attributes:
        loss: name.
        stage: the prediction: of a network before training, or a good one (blurred, displaced by one voxel).
        foreground: share of the voxels that are foreground.
        share: share of the absolute gradient that falls on them.
    """

    loss: str
    stage: Stage
    foreground: float
    share: float


def foreground_shares(loss: AnalysedLoss) -> list[ForegroundShare]:
    """The foreground's share of the gradient at 1, 5 and 20 % foreground, before training and late in it."""
    shares = []
    for foreground in SHARES:
        scene = scenes.ball(foreground)
        module = loss.module(scene.spacing_mm)
        stages: tuple[tuple[Stage, Tensor], ...] = (
            ("untrained", scenes.untrained(scene)),
            ("trained", scenes.displaced(scene)),
        )
        for stage, logits in stages:
            _, gradient = scenes.value_and_gradient(module, scene, logits)
            magnitude = gradient.abs()
            share = float(magnitude[scene.target].sum() / magnitude.sum())
            shares.append(ForegroundShare(loss.name, stage, foreground, share))
    return shares
