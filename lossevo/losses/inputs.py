"""What losses compute from: the logits, the target, and what follows from them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lossevo.losses import kernels


class LossInputs:
    """What a loss computes from; every derived tensor is computed at most once, and only if it is asked for.

    Attributes:
        logits: (B, C, *spatial) with C >= 2, float32 or float64.
        given_target: labels (B, 1, *spatial), or one-hot or soft (B, C, *spatial), as the loss was given it.
        distance_map: (B, C, *spatial) in mm, or None if the loss does not use one.
    """

    # No functools.cached_property: the lock it takes before Python 3.12 breaks torch.compile's graph.

    def __init__(self, logits: Tensor, target: Tensor, distance_map: Tensor | None = None) -> None:
        self.logits = logits
        self.distance_map = distance_map
        self.given_target = target
        self._labels: Tensor | None = None
        self._target: Tensor | None = None
        self._log_probability: Tensor | None = None
        self._probability: Tensor | None = None

    @property
    def labels(self) -> Tensor | None:
        """Labels (B, 1, *spatial) int64 if the target was given as labels, else None (it may be soft)."""
        if self._labels is None and self.given_target.shape[1] == 1:
            self._labels = self.given_target.long()
        return self._labels

    @property
    def target(self) -> Tensor:
        """The target g (B, C, *spatial), one-hot or soft, in the dtype of the logits."""
        if self._target is None:
            self._target = kernels.one_hot(self.given_target, self.logits.shape[1], self.logits.dtype)
        return self._target

    @property
    def log_probability(self) -> Tensor:
        """The log-probability log p (B, C, *spatial), from log-softmax: exact where p underflows."""
        if self._log_probability is None:
            self._log_probability = torch.log_softmax(self.logits, dim=1)
        return self._log_probability

    @property
    def probability(self) -> Tensor:
        """The softmax p (B, C, *spatial). A loss that needs the true class's log p too asks for p first."""
        if self._probability is None:
            log_probability = self._log_probability
            self._probability = self.logits.softmax(dim=1) if log_probability is None else log_probability.exp()
        return self._probability

    @property
    def target_log_probability(self) -> Tensor:
        """The true class's log-probability Σ_c g_c log p_c (B, 1, *spatial), from p or log p if there already."""
        if self.given_target.shape[1] != 1:
            return (self.target * self.log_probability).sum(dim=1, keepdim=True)
        if self._probability is not None and self._log_probability is None:
            return kernels.target_log_probability(self.logits, self._probability, self.given_target)
        return kernels.of_target(self.log_probability, self.given_target)

    @property
    def log_likelihood(self) -> Tensor:
        """The mean over all voxels of the batch of the true class's log-probability, a scalar."""
        alone = self._probability is None and self._log_probability is None
        labels = self.given_target
        # On a GPU PyTorch's own adds up in no fixed order; and it would keep a copy of labels of another type.
        if alone and labels.shape[1] == 1 and labels.dtype == torch.int64 and labels.device.type == "cpu":
            return -nn.functional.cross_entropy(self.logits, labels[:, 0])
        return self.target_log_probability.mean()

    def region_sums(self, *, squared: bool = False) -> kernels.RegionSums:
        """Σ p g, Σ p and Σ g of each class of each image, see :func:`~lossevo.losses.kernels.region_sums`."""
        return kernels.region_sums(self.probability, self.given_target, squared=squared)

    def log_probability_sums(self) -> kernels.RegionSums:
        """Σ g log p, Σ log p and Σ g of each class of each image."""
        return kernels.region_sums(self.log_probability, self.given_target)

    def error_sums(self) -> kernels.ErrorSums:
        """Σ (g - p)² g, Σ (g - p)² (1 - g) and Σ g of each class of each image."""
        return kernels.error_sums(self.probability, self.given_target)
