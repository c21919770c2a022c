"""Memory of maps that are no longer needed, kept for the next ones: new memory costs more than most operations in it.

A map of a million numbers is multiplied in a tenth of the time that the operating system takes to hand out its pages.
What generated gradients compute on the way therefore goes into maps of earlier operations and earlier calls. Each
thread keeps its own, for CPU tensors alone (on a GPU PyTorch does as much), at most ``KEPT_BYTES`` of them. A map that
is in use is nowhere but with its user, so calls may nest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from lossevo.expression.primitives import EPSILON

KEPT_BYTES = 2**27
"""128 MiB: six maps of two images, three classes and 96³ voxels."""


_Key = tuple[torch.Size, torch.dtype]


class _Kept(threading.local):
    """What this thread keeps, by shape and type."""

    def __init__(self) -> None:
        self.maps: dict[_Key, list[Tensor]] = {}
        self.bytes = 0


_kept = _Kept()


def map_like(x: Tensor) -> Tensor:
    """An uninitialised map of the shape, type, device and memory format of ``x``."""
    return _map(x, x.shape) if x.is_contiguous() else torch.empty_like(x)


def pixels_like(x: Tensor) -> Tensor:
    """The same with one number per voxel (B, 1, *spatial), contiguous."""
    return _map(x, torch.Size((x.shape[0], 1, *x.shape[2:])))


def _map(like: Tensor, shape: torch.Size) -> Tensor:
    key = (shape, like.dtype)
    if type(like) is Tensor and like.device.type == "cpu" and (free := _kept.maps.get(key)):
        found = free.pop()
        _kept.bytes -= found.nbytes
        return found
    return torch.empty(shape, dtype=like.dtype, device=like.device)


def release(x: Tensor) -> None:
    """Keep the memory of a map that was made here, or by an operation, and that nobody uses any more."""
    if not _is_ordinary(x):
        return
    key = (x.shape, x.dtype)
    if _kept.bytes + x.nbytes > KEPT_BYTES:
        # Maps of other sizes are most likely those of an earlier image.
        same = _kept.maps.get(key, [])
        _kept.maps = {key: same}
        _kept.bytes = len(same) * x.nbytes
        if _kept.bytes + x.nbytes > KEPT_BYTES:
            return
    _kept.maps.setdefault(key, []).append(x)
    _kept.bytes += x.nbytes


def _is_ordinary(x: Tensor) -> bool:
    return (
        type(x) is Tensor
        and x.device.type == "cpu"
        and x.is_contiguous()
        and x.nbytes <= KEPT_BYTES
        and not x.is_inference()
    )


def guarded(x: Tensor, out: Tensor) -> Tensor:
    """:func:`~lossevo.expression.safe_math.guard`, written to ``out``, which may be x."""
    size = torch.abs(x, out=map_like(out)).clamp_(min=EPSILON)
    # 0 is positive, also -0.
    torch.copysign(size, torch.add(x, 0.0, out=out), out=out)
    release(size)
    return out


def below(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """1 where a < b, 1/2 where a = b."""
    at_most = torch.le(a, b, out=map_like(out))
    torch.lt(a, b, out=out).add_(at_most).div_(2)
    release(at_most)
    return out


MEMORY_FUNCTIONS: Mapping[str, Callable[..., Tensor | None]] = MappingProxyType(
    {function.__name__: function for function in (map_like, pixels_like, release, guarded, below)}
)
