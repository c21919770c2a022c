"""Losses of your own, as docs/own_loss.md explains them.

lossevo evaluate --losses dice_ce --loss-module my_losses.py:Margin --loss-module my_losses.py:monai_dice_ce --out cmp
"""

import monai
import torch
from torch import Tensor, nn

from lossevo.losses import LossInputs, SegmentationLoss


class Margin(nn.Module):
    """The logit of the true class should exceed every other by 1; what lacks is squared."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Of logits (N, C, X, Y, Z) and labels (N, 1, X, Y, Z)."""
        lead = logits.gather(1, labels) - logits
        others = torch.ones_like(logits).scatter(1, labels, 0)
        return (others * torch.relu(1 - lead).square()).sum(dim=1).mean()


def monai_dice_ce() -> nn.Module:
    """MONAI's Dice + cross entropy."""
    return monai.losses.DiceCELoss(to_onehot_y=True, softmax=True)


class DistanceWeighted(SegmentationLoss):
    """Squared error, weighted by the distance to the boundary in mm."""

    uses_distance_map = True

    def compute(self, inputs: LossInputs) -> Tensor:
        """Of softmax, one-hot target and signed distance map, (N, C, X, Y, Z) each."""
        error = (inputs.probability - inputs.target).square()
        return (error * (1 + inputs.distance_map.abs())).mean()
