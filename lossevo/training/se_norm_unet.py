"""The SE-Norm residual 3D U-Net with which Iantsen et al. won HECKTOR 2020, at any width and depth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class SENorm(nn.Module):
    """Squeeze-and-excitation normalisation: instance norm whose scale and shift the input itself decides.

    y_c = γ_c (x_c - mean_c)/sd_c + β_c with γ = σ(W₂ relu(W₁ s)), β = tanh(V₂ relu(V₁ s)) and s the spatial mean of x
    (Iantsen, Visvikis & Hatt, Squeeze-and-excitation normalization, HECKTOR 2020, and the authors' code).

    Args:
        features: number C of features; (B, C, X, Y, Z) in and out.
        reduction: C / width of the hidden layer.
    """

    def __init__(self, features: int, *, reduction: int = 2) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm3d(features, affine=False)
        hidden = max(1, features // reduction)
        self.scale, self.shift = (
            nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, features)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) normalised."""
        squeezed = x.mean(dim=(2, 3, 4))
        scale = self.scale(squeezed).sigmoid()[:, :, None, None, None]
        shift = self.shift(squeezed).tanh()[:, :, None, None, None]
        normalised: Tensor = self.norm(x) * scale + shift
        return normalised


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Convolution → ReLU → SE-Norm, the order of the authors' code."""
    return nn.Sequential(nn.Conv3d(inputs, outputs, kernel, padding="same"), nn.ReLU(), SENorm(outputs))


class ResidualBlock(nn.Module):
    """Two 3×3×3 convolutions beside a shortcut, which is a 1×1×1 convolution where the width changes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_convolution(inputs, outputs, 3), _convolution(outputs, outputs, 3))
        self.shortcut = nn.Identity() if inputs == outputs else _convolution(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, X, Y, Z) -> (B, outputs, X, Y, Z)."""
        result: Tensor = self.body(x) + self.shortcut(x)
        return result


class SENormUNet(nn.Module):
    """U-Net of residual SE-Norm blocks; max-pooling down, 1×1×1 convolution and trilinear interpolation up.

    The outputs of the lower decoder levels, too, are taken up to full resolution and added before the last
    convolution. Widths, depth and strides are free here; that the authors sum the upper paths is as recalled from their
    code, not checked in detail, and the first block has 3×3×3 kernels like all others instead of 7×7×7.

    Args:
        inputs: image channels.
        outputs: classes.
        channels: features per level.
        strides: downsampling between levels, one less than ``channels``.
    """

    def __init__(self, *, inputs: int, outputs: int, channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        widths = [inputs, *channels]
        self.down = nn.ModuleList(ResidualBlock(before, after) for before, after in pairwise(widths))
        self.pools = nn.ModuleList(nn.MaxPool3d(stride) for stride in strides)
        self.narrow = nn.ModuleList(_convolution(below, above, 1) for above, below in pairwise(channels))
        self.up = nn.ModuleList(ResidualBlock(2 * above, above) for above in channels[:-1])
        self.paths = nn.ModuleList(_convolution(level, channels[0], 1) for level in channels[1:-1])
        self.classify = nn.Conv3d(channels[0], outputs, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, inputs, X, Y, Z) -> logits (B, outputs, X, Y, Z)."""
        levels = [self.down[0](image)]
        for pool, block in zip(self.pools, self.down[1:], strict=True):
            levels.append(block(pool(levels[-1])))
        decoded = levels.pop()
        lower: list[Tensor] = []
        for depth in reversed(range(len(self.up))):
            skip = levels.pop()
            raised = _resize(self.narrow[depth](decoded), skip)
            decoded = self.up[depth](torch.cat([skip, raised], dim=1))
            if depth > 0:
                lower.append(self.paths[depth - 1](decoded))
        logits: Tensor = self.classify(decoded + sum(_resize(path, decoded) for path in lower))
        return logits


def _resize(features: Tensor, like: Tensor) -> Tensor:
    """Trilinear interpolation to the spatial size of ``like``."""
    return nn.functional.interpolate(features, like.shape[2:], mode="trilinear")
