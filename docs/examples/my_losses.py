"""Losses of your own for ``lossevo evaluate --loss-module`` (docs/own_loss.md).

lossevo evaluate --losses dice_ce --loss-module my_losses.py:Margin --loss-module my_losses.py:monai_dice_ce --out cmp
"""

import monai
import torch
from torch import nn

from lossevo.losses import SegmentationLoss


class Margin(nn.Module):
    """The logit of the true class should exceed every other by 1; what lacks is squared."""

    def forward(self, logits, labels):
        true = logits.gather(1, labels)
        lacking = torch.relu(1 - (true - logits)).square().sum(dim=1, keepdim=True) - 1  # less the true class's own 1
        return lacking.mean()


def monai_dice_ce():
    return monai.losses.DiceCELoss(to_onehot_y=True, softmax=True)


class SquaredBoundary(SegmentationLoss):
    """Squared error, weighted by the distance to the boundary in mm."""

    uses_distance_map = True

    def compute(self, inputs):
        error = (inputs.probability - inputs.target).square()
        return (error * (1 + inputs.distance_map.abs())).mean()
