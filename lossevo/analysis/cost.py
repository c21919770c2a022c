"""What a loss costs: time of forward and backward pass, and memory between the two."""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lossevo.analysis.losses import AnalysedLoss
from lossevo.analysis.scenes import Spacing
from lossevo.losses import signed_distance_map
from lossevo.training.threads import one_thread

COST_SHAPE = (2, 2, 48, 48, 48)
COST_SPACING_MM: Spacing = (1.0, 1.0, 1.0)
REPETITIONS = 31
BUDGET_S = 0.5


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one call in float32, on one thread of a CPU, with the distance map given.

    Attributes:
        loss: name.
        milliseconds: forward and backward, median of up to 31 repetitions.
        saved_bytes: kept for the backward pass, each memory block once; logits, target and distance map, which exist
            anyway, are not counted.
        saved_per_input_byte: the same per byte of the logits.
    """

    loss: str
    milliseconds: float
    saved_bytes: int
    saved_per_input_byte: float


def cost(loss: AnalysedLoss) -> Cost:
    """Time and memory of a loss; repetitions end early after half a second, but not before the third."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(COST_SHAPE, generator=generator).requires_grad_()
    target = torch.zeros((COST_SHAPE[0], 1, *COST_SHAPE[2:]), dtype=torch.long)
    target[:, :, 12:36, 12:36, 12:36] = 1
    distance_map = signed_distance_map(torch.cat([target == 0, target == 1], dim=1), COST_SPACING_MM)
    module = loss.module(COST_SPACING_MM)

    def forward() -> Tensor:
        logits.grad = None
        value: Tensor = module(logits, target, distance_map)
        return value if value.requires_grad else value + 0 * logits.sum()

    with one_thread():
        saved = saved_bytes(forward, given=(logits, target, distance_map))
        forward().backward()  # type: ignore[no-untyped-call]
        seconds: list[float] = []
        while len(seconds) < 3 or (len(seconds) < REPETITIONS and sum(seconds) < BUDGET_S):
            start = time.perf_counter()
            forward().backward()  # type: ignore[no-untyped-call]
            seconds.append(time.perf_counter() - start)
    input_bytes = logits.numel() * logits.element_size()
    return Cost(loss.name, 1e3 * statistics.median(seconds), saved, saved / input_bytes)


class _Packed:
    """A tensor that autograd keeps, for as long as it does."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def saved_bytes(forward: Callable[[], Tensor], given: Iterable[Tensor]) -> int:
    """Bytes that autograd keeps after ``forward()`` for the backward pass, each memory block once.

    ``given`` are tensors that exist anyway and are not counted. What a loss keeps for a moment, for a backward pass of
    its own inside, is not counted either.
    """
    kept: weakref.WeakSet[_Packed] = weakref.WeakSet()

    def pack(tensor: Tensor) -> _Packed:
        packed = _Packed(tensor)
        kept.add(packed)
        return packed

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda packed: packed.tensor):
        value = forward()
    storages = (packed.tensor.untyped_storage() for packed in kept)
    blocks = {storage.data_ptr(): storage.nbytes() for storage in storages}
    del value
    known = {tensor.untyped_storage().data_ptr() for tensor in given}
    return sum(size for pointer, size in blocks.items() if pointer not in known)
