"""Weights that change from epoch to epoch: modules whose buffers say where a training stands.

A loss with a schedule derives from :class:`ScheduledLoss` and holds its weights as submodules. ``loss.step()`` ends an
epoch for all of them; ``state_dict`` has their state, so a training that is resumed goes on exactly; none of it takes
part in the gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lossevo.losses.base import SegmentationLoss


class Schedule(nn.Module):
    """A weight that :meth:`step` advances by one epoch, from state that lives in buffers."""

    def weight(self, like: Tensor) -> Tensor:
        """The weight of this epoch, a scalar of the dtype and device of ``like``, without gradient."""
        raise NotImplementedError

    def step(self) -> None:
        """End the epoch."""
        raise NotImplementedError


class LinearWeight(Schedule):
    """The weight max(``start`` + ``slope`` · t, ``minimum``) in epoch t = 0, 1, …

    Attributes:
        epoch: t, the number of epochs that have ended, int64.
    """

    epoch: Tensor

    def __init__(self, start: float, slope: float = 0.0, *, minimum: float = 0.0) -> None:
        super().__init__()
        self.start, self.slope, self.minimum = start, slope, minimum
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))

    def weight(self, like: Tensor) -> Tensor:
        """See the class."""
        return (self.start + self.slope * self.epoch.to(like)).clamp_min(self.minimum)

    def step(self) -> None:
        """End the epoch."""
        self.epoch += 1


class RatioWeight(Schedule):
    """The ratio of the mean values that two losses had in the last epoch, so that weighted they contribute alike.

    It is ``start`` until the first epoch ends, and stays as it is over an epoch in which either mean was not positive:
    a weight of 0 would switch the loss off, and the other with it. Values are observed in training mode only.

    Attributes:
        ratio: the weight.
        sums: the two sums of this epoch; the number of batches cancels.
    """

    ratio: Tensor
    sums: Tensor

    def __init__(self, start: float) -> None:
        super().__init__()
        self.register_buffer("ratio", torch.tensor(start, dtype=torch.float64))
        self.register_buffer("sums", torch.zeros(2, dtype=torch.float64))

    def observe(self, numerator: Tensor, denominator: Tensor) -> None:
        """Count a batch's values of the two losses."""
        if self.training:
            self.sums += torch.stack([numerator, denominator]).detach().to(self.sums)

    def weight(self, like: Tensor) -> Tensor:
        """See the class."""
        return self.ratio.to(like)

    def step(self) -> None:
        """End the epoch."""
        numerator, denominator = self.sums
        usable = (self.sums > 0).all()
        self.ratio.copy_(torch.where(usable, numerator / denominator, self.ratio))
        self.sums.zero_()


class ScheduledLoss(SegmentationLoss):
    """A loss with schedules among its submodules."""

    def step(self) -> None:
        """End an epoch for every schedule of the loss."""
        for module in self.modules():
            if isinstance(module, Schedule):
                module.step()
