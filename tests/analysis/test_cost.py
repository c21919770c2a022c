"""Time and memory of a call."""

from __future__ import annotations

import math

import torch

from lossevo.analysis import AnalysedLoss
from lossevo.analysis.cost import COST_SHAPE, cost

LOGITS_BYTES = 4 * math.prod(COST_SHAPE)


def test_what_is_saved_is_counted_once_and_without_the_arguments(evolved):
    """Softmax keeps its result, and a mean of it nothing; that p is used twice changes nothing."""
    for formula in ("mean(p)", "mean(p + p)"):
        found = cost(evolved(f"foreground_mean({formula})"))
        assert found.saved_bytes == LOGITS_BYTES
        assert found.saved_per_input_byte == 1
        assert found.milliseconds > 0


def test_a_constant_loss_saves_nothing(evolved):
    assert cost(evolved("foreground_mean(mean(y))")).saved_bytes == 0


def test_threads_are_as_before():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        cost(AnalysedLoss.of_catalogue("dice"))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
