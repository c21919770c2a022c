"""Value and gradient of a loss over the probability that voxels of one class have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lossevo.analysis import scenes
from lossevo.analysis.losses import AnalysedLoss

PROFILE_SHARE = 0.05
PROBABILITIES = tuple(percent / 100 for percent in range(1, 100) if percent != 50)
"""0.01, 0.02, … 0.99 without 1/2, where a thresholded prediction would be undecided."""


@dataclass(frozen=True, slots=True)
class ProfilePoint:
    """Voxels of class ``target`` have probability ``p`` of being foreground, all others are right with 0.99.

    Attributes:
        loss: name.
        target: 1 if the foreground's voxels are swept, 0 if the background's are.
        p: the swept voxels' probability of being foreground.
        loss_value: the loss of the scene.
        value: |Ω|/n (L(p) - L(right)) with n swept voxels: per swept voxel, and 0 where these are right with 0.99.
        gradient: |Ω| times the mean of ∂L/∂x over the swept voxels: the derivative of ``value`` by their common logit.
    """

    loss: str
    target: int
    p: float
    loss_value: float
    value: float
    gradient: float


def profile(loss: AnalysedLoss, probabilities: Sequence[float] = PROBABILITIES) -> list[ProfilePoint]:
    """The profile of a loss on the ball that fills 5 % of its cube, for both classes.

    For a loss that is a mean of one term per voxel this is the term itself: cross-entropy has -log p and the gradient
    p - 1 for target 1. For any other it depends on the scene.
    """
    scene = scenes.ball(PROFILE_SHARE)
    module = loss.module(scene.spacing_mm)
    right = scenes.sure(scene.target)
    best = scenes.value(module, scene, right)
    points = []
    for target, swept in ((1, scene.target), (0, ~scene.target)):
        scale = swept.numel() / int(swept.sum())
        for p in probabilities:
            value, gradient = scenes.value_and_gradient(module, scene, torch.where(swept, scenes.logit(p), right))
            pull = float(gradient[swept].mean()) * swept.numel()
            points.append(ProfilePoint(loss.name, target, p, value, scale * (value - best), pull))
    return points
