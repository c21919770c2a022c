"""Exact signed Euclidean distance maps of label masks, in mm: by ``edt`` on a CPU, else in plain torch."""

from __future__ import annotations

from collections.abc import Sequence

import edt
import numpy as np
import torch
from torch import Tensor

from lossevo.errors import LossevoError

# Not a torch.library.custom_op: its first call imports TorchDynamo and SymPy, two seconds of each process.
_OPERATOR = "lossevo::signed_distance"


def signed_distance_map(one_hot: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """Signed distance φ to the boundary of every class, in mm: negative inside, positive outside.

    φ_c(i) = min over voxels j of class c of |x_i - x_j| where g_c(i) = 0, and
    φ_c(i) = -min over voxels j not of class c of |x_i - x_j| where g_c(i) = 1,
    i.e. SciPy's ``distance_transform_edt(g == 0, sampling) - distance_transform_edt(g == 1, sampling)``. Distances are
    between voxel centres, so no voxel has distance 0. A class that an image lacks, or that fills it, has no boundary
    there: its map is 0 (Kervadec et al.: another class supervises these voxels).

    float32 on a CPU is computed by ``edt``, in one transform per class and image; everything else by
    :func:`signed_distance_in_torch`. To torch.compile, torch.export and torch.func it is one operator.

    Args:
        one_hot: (B, C, *spatial) masks, 2D or 3D; a voxel belongs to class c where the value is at least 0.5.
        spacing_mm: distance between neighbouring voxels along each spatial axis.

    Returns:
        (B, C, *spatial), float64 if ``one_hot`` is float64, else float32, without gradient.

    Raises:
        LossevoError: ``spacing_mm`` does not have one distance > 0 per spatial axis.
    """
    _check_spacing(one_hot, spacing_mm)
    found: Tensor = torch.ops.lossevo.signed_distance(one_hot.detach(), [float(step) for step in spacing_mm])
    return found


torch.library.define(_OPERATOR, "(Tensor one_hot, float[] spacing_mm) -> Tensor")


@torch.library.impl(_OPERATOR, "default")
def _signed_distance(one_hot: Tensor, spacing_mm: list[float]) -> Tensor:
    # edt computes in float32.
    if one_hot.is_cpu and one_hot.dtype != torch.float64:
        return _by_edt(one_hot if one_hot.dtype == torch.bool else one_hot >= 0.5, spacing_mm)
    return signed_distance_in_torch(one_hot, spacing_mm)


@torch.library.register_fake(_OPERATOR)  # type: ignore[untyped-decorator]
def _(one_hot: Tensor, spacing_mm: list[float]) -> Tensor:
    dtype = torch.float64 if one_hot.dtype == torch.float64 else torch.float32
    return one_hot.new_empty(one_hot.shape, dtype=dtype)


def _by_edt(mask: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """The signed distance map (float32) of masks (B, C, *spatial) in main memory."""
    if mask.shape[1] == 2 and torch.equal(mask[:, 0], ~mask[:, 1]):
        foreground = _by_edt(mask[:, 1:], spacing_mm)
        return torch.cat([-foreground, foreground], dim=1)
    signed = torch.zeros(mask.shape)
    flat = mask.flatten(2)
    for image, channel in (flat.any(dim=2) & ~flat.all(dim=2)).nonzero().tolist():
        inside = mask[image, channel].contiguous()
        # Labels 1 and 2, since 0 means "no object" to edt: to each voxel it gives the nearest one of another label.
        labels = inside.numpy().view(np.uint8) + np.uint8(1)
        distance = torch.from_numpy(edt.edt(labels, anisotropy=tuple(spacing_mm), parallel=1))
        torch.where(inside, -distance, distance, out=signed[image, channel])
    return signed


@torch.no_grad()
def signed_distance_in_torch(one_hot: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """What :func:`signed_distance_map` computes, in plain torch on any device.

    Separable (Felzenszwalb & Huttenlocher 2012): along the last axis by two scans, then along each other axis
    d²(i) ← min_j d²(j) + (spacing·(i-j))², shift by shift, for as long as a shift can still shorten a distance.
    """
    _check_spacing(one_hot, spacing_mm)
    mask = one_hot if one_hot.dtype == torch.bool else one_hot >= 0.5
    dtype = torch.float64 if one_hot.dtype == torch.float64 else torch.float32
    signed = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    bounded = mask.flatten(2).any(dim=2) & ~mask.flatten(2).all(dim=2)
    inside = mask[bounded]
    signed[bounded] = _distance(inside, spacing_mm, dtype) - _distance(~inside, spacing_mm, dtype)
    return signed


def _distance(mask: Tensor, spacing_mm: Sequence[float], dtype: torch.dtype) -> Tensor:
    """Distance (mm) of every voxel to the nearest voxel of its mask (N, *spatial); no mask is empty."""
    index = torch.arange(mask.shape[-1], device=mask.device, dtype=dtype)
    before = torch.where(mask, index, -torch.inf).cummax(dim=-1).values
    after = torch.where(mask, index, torch.inf).flip(-1).cummin(dim=-1).values.flip(-1)
    squared = (torch.minimum(index - before, after - index) * spacing_mm[-1]).square_()
    for axis in range(1, mask.ndim - 1):
        squared = _min_plus(squared, axis, float(spacing_mm[axis - 1]))
    return squared.sqrt_()


def _min_plus(squared: Tensor, axis: int, step: float) -> Tensor:
    """The minimum of ``squared`` and all its shifts by k along the axis plus (step·k)²."""
    nearest = squared.clone()
    size = squared.shape[axis]
    for shift in range(1, size):
        cost = (step * shift) ** 2
        if squared.numel() == 0 or cost >= nearest.max():
            break
        for source, destination in ((shift, 0), (0, shift)):
            moved = squared.narrow(axis, source, size - shift) + cost
            here = nearest.narrow(axis, destination, size - shift)
            torch.minimum(here, moved, out=here)
    return nearest


def _check_spacing(one_hot: Tensor, spacing_mm: Sequence[float]) -> None:
    axes = one_hot.ndim - 2
    if axes not in (2, 3) or len(spacing_mm) != axes or not all(0 < step < torch.inf for step in spacing_mm):
        raise LossevoError(
            f"spacing_mm is {tuple(spacing_mm)} for masks of shape {tuple(one_hot.shape)}; expected"
            " (batch, classes, height, width) or (batch, classes, depth, height, width) and one distance > 0 per axis"
        )
