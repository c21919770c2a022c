"""The course of the training loss, and the watch for divergence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class LossCurve:
    """The training loss of every step, checked for divergence every ``check_interval`` steps."""

    def __init__(self, check_interval: int) -> None:
        self._check_interval = check_interval
        self._pending: list[Tensor] = []
        self._values: list[float] = []

    def add(self, loss: Tensor, gradient_norm: Tensor) -> None:
        """Take the loss and the norm of its gradient at the next step."""
        self._pending.append(torch.stack((loss.float(), gradient_norm.float())))
        if len(self._pending) == self._check_interval:
            self.check()

    @property
    def values(self) -> tuple[float, ...]:
        """The loss of each step that has been read."""
        return tuple(self._values)

    def resume(self, values: Sequence[float]) -> None:
        """Go on from the loss of each step so far."""
        self._pending.clear()
        self._values = [*values]

    def check(self) -> None:
        """Read the pending values.

        Raises:
            FloatingPointError: one of them is not finite; names the first such step.
        """
        if not self._pending:
            return
        for loss, gradient_norm in torch.stack(self._pending).tolist():
            self._values.append(loss)
            if not math.isfinite(loss):
                raise FloatingPointError(f"training loss is {loss} at step {len(self._values)}")
            if not math.isfinite(gradient_norm):
                raise FloatingPointError(f"gradient norm is {gradient_norm} at step {len(self._values)}")
        self._pending.clear()

    def thinned(self, points: int) -> list[list[float]]:
        """``[last step, mean loss]`` of at most ``points`` windows of equal length (the last may be shorter)."""
        width = -(-len(self._values) // points)
        windows: list[Sequence[float]] = [self._values[i : i + width] for i in range(0, len(self._values), width)]
        return [[min((n + 1) * width, len(self._values)), sum(w) / len(w)] for n, w in enumerate(windows)]
