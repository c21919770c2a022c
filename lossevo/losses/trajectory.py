"""The course of numbers that move while a network trains, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

ROWS = 512


class Trajectory(nn.Module):
    """At most 512 rows of numbers, evenly spaced over all that were written, from the first on. All is in buffers.

    Attributes:
        names: of the numbers of a row.
        rows: the step and the numbers (512, 1 + n), float64.
        stride: every how many rows are kept: doubled, and every other row dropped, when it is full; int64.
    """

    rows: Tensor
    stride: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.register_buffer("rows", torch.zeros(ROWS, 1 + len(self.names), dtype=torch.float64))
        self.register_buffer("stride", torch.ones((), dtype=torch.int64))

    def write(self, number: Tensor, step: Tensor, values: Tensor) -> None:
        """Write row ``number`` = 0, 1, … (int64): the numbers (n,) in use from ``step`` on.

        The same row may be written again. Nothing waits for the device that the buffers are on.
        """
        full = number == ROWS * self.stride
        thinned = torch.cat([self.rows[::2], torch.zeros_like(self.rows[::2])])
        self.rows.copy_(torch.where(full, thinned, self.rows))
        self.stride.copy_(torch.where(full, 2 * self.stride, self.stride))
        row = (number // self.stride).view(1)
        due = number % self.stride == 0
        written = torch.cat([step.to(self.rows).view(1), values.to(self.rows)])
        self.rows.index_copy_(0, row, torch.where(due, written, self.rows[row]))

    def table(self, count: Tensor) -> list[dict[str, float]]:
        """What was kept of the first ``count`` rows, ``[{"step": 0, name: number, ...}, ...]``."""
        kept = self.rows[: -(-int(count) // int(self.stride))].tolist()
        return [{"step": int(step), **dict(zip(self.names, values, strict=True))} for step, *values in kept]
