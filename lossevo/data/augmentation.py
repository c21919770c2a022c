"""Seeded augmentation of a batch: turned and scaled in the sagittal plane, other contrast, noise and coil profile.

What happens to a sample is drawn from the seed, its step and its place in the batch, so every candidate of a search is
trained on the same batches. Each of the transforms strikes a sample with probability 0.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate, one_hot

PROBABILITY = 0.3
LARGEST_ANGLE_DEGREES = 15.0
SCALES = (0.9, 1.1)
GAMMAS = (0.7, 1.5)
CONTRASTS = (0.75, 1.25)
LARGEST_NOISE_SD = 0.3
"""As a share of the image's own SD."""
LARGEST_BIAS = 0.3
"""SD of the log of the coil profile, which is given at 4 × 4 × 4 points and interpolated between them."""

_BIAS_POINTS = 4
_TRANSFORMS = ("affine", "gamma", "contrast", "bias", "noise")


def context_size(patch_size: Sequence[int], spacing_mm: Sequence[float]) -> tuple[int, int, int]:
    """Voxels to cut for a patch of ``patch_size``, so that no turned or shrunk patch reaches beyond them."""
    x, y, z = ((voxels - 1) / 2 * side for voxels, side in zip(patch_size, spacing_mm, strict=True))
    angle, smallest = math.radians(LARGEST_ANGLE_DEGREES), SCALES[0]
    # The half-diagonal's reach grows up to the largest angle, or until it points along the axis.
    reach_y, reach_z = (
        math.hypot(a, b) if math.atan2(b, a) <= angle else a * math.cos(angle) + b * math.sin(angle)
        for a, b in ((y, z), (z, y))
    )
    needed_mm = (x / smallest, reach_y / smallest, reach_z / smallest)
    sizes = []
    for voxels, side, mm in zip(patch_size, spacing_mm, needed_mm, strict=True):
        more = math.ceil(mm / side - (voxels - 1) / 2 - 1e-6)
        sizes.append(voxels + 2 * max(0, more))  # an even number more: the centre stays
    return sizes[0], sizes[1], sizes[2]


@dataclass(frozen=True, slots=True)
class Draws:
    """What happens to each sample of a training: arrays (steps, batch_size, …); 0 or 1 where nothing happens."""

    angle: NDArray[np.float64]
    scale: NDArray[np.float64]
    gamma: NDArray[np.float64]
    contrast: NDArray[np.float64]
    bias: NDArray[np.float64]
    noise_sd: NDArray[np.float64]
    noise_seed: NDArray[np.int64]


def draw(seed: int, *, steps: int, batch_size: int) -> Draws:
    """The draws of a training; a longer training begins with those of a shorter one."""

    def uniform(stream: int, low: float, high: float, *shape: int) -> NDArray[np.float64]:
        return np.random.default_rng([seed, 2, stream]).uniform(low, high, (steps, batch_size, *shape))

    struck = uniform(0, 0, 1, len(_TRANSFORMS)) < PROBABILITY
    affine, gamma, contrast, bias, noise = (struck[..., index] for index in range(len(_TRANSFORMS)))
    angle = math.radians(LARGEST_ANGLE_DEGREES)
    field = np.random.default_rng([seed, 2, 7]).normal(size=(steps, batch_size, *[_BIAS_POINTS] * 3))
    strength = np.where(bias, uniform(5, 0, LARGEST_BIAS), 0.0)
    return Draws(
        angle=np.where(affine, uniform(1, -angle, angle), 0.0),
        scale=np.where(affine, uniform(2, *SCALES), 1.0),
        gamma=np.where(gamma, np.exp(uniform(3, *np.log(GAMMAS))), 1.0),
        contrast=np.where(contrast, uniform(4, *CONTRASTS), 1.0),
        bias=field * strength[..., None, None, None],
        noise_sd=np.where(noise, uniform(6, 0, LARGEST_NOISE_SD), 0.0),
        noise_seed=np.random.default_rng([seed, 2, 8]).integers(2**62, size=(steps, batch_size)),
    )


class Augmentation:
    """Augments batches of patches that were cut with their surroundings (:func:`context_size`).

    Args:
        patch_size: voxels of a patch as the network gets it.
        spacing_mm: voxel size; a turn is a turn in mm, also where voxels are not cubes.
        classes: how many, background included.
    """

    def __init__(self, patch_size: Sequence[int], spacing_mm: Sequence[float], classes: int) -> None:
        self._size = tuple(patch_size)
        self._spacing_mm = tuple(spacing_mm)
        self._classes = classes

    def __call__(
        self, image: Tensor, label: Tensor, distance_mm: Tensor | None, draws: Draws, step: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Image (B, M, *context), label (B, 1, *context) and distances (B, C, *context), augmented, of the patch size.

        The turn and the one scale for all axes keep shapes similar, so a distance map is turned with its image and
        multiplied by the scale: exact but for interpolation (tests/data/test_augmentation.py states how exact). Labels
        are interpolated as one-hot shares, and a distance takes its sign from the label that comes out.
        """
        patch, patch_label = self._centre(image).clone(), self._centre(label).clone()
        patch_mm = None if distance_mm is None else self._centre(distance_mm).clone()
        turned = [n for n in range(len(image)) if draws.angle[step, n] != 0 or draws.scale[step, n] != 1]
        if turned:
            scale = torch.from_numpy(draws.scale[step, turned]).to(image).view(-1, 1, 1, 1, 1)
            grid = self._grid(draws.angle[step, turned], draws.scale[step, turned], image.shape[2:]).to(image)
            patch[turned] = _sampled(image[turned], grid)
            shares = _sampled(self._one_hot(label[turned]).to(image), grid)
            shares[:, 0] -= 1e-5  # what background and foreground share alike is foreground, as in resampling
            new_label = shares.argmax(dim=1, keepdim=True)
            patch_label[turned] = new_label.to(label.dtype)
            if distance_mm is not None and patch_mm is not None:
                far = _sampled(distance_mm[turned].to(image), grid).abs() * scale
                patch_mm[turned] = torch.where(self._one_hot(new_label), -far, far).to(patch_mm.dtype)
        for n in range(len(image)):
            patch[n] = _recoloured(patch[n], draws, step, n)
        return patch, patch_label, patch_mm

    def _one_hot(self, label: Tensor) -> Tensor:
        return one_hot(label[:, 0].long(), self._classes).movedim(-1, 1) > 0

    def _centre(self, part: Tensor) -> Tensor:
        low = [(have - want) // 2 for have, want in zip(part.shape[2:], self._size, strict=True)]
        x, y, z = (slice(first, first + want) for first, want in zip(low, self._size, strict=True))
        return part[:, :, x, y, z]

    def _grid(self, angle: NDArray[np.float64], scale: NDArray[np.float64], context: Sequence[int]) -> Tensor:
        """Where each voxel of the patch comes from, (B, *patch, 3), in the coordinates of grid_sample."""
        offsets = [
            (torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * side
            for n, side in zip(self._size, self._spacing_mm, strict=True)
        ]
        x, y, z = torch.meshgrid(*offsets, indexing="ij")
        cos, sin = (torch.from_numpy(f(angle) / scale).view(-1, 1, 1, 1) for f in (np.cos, np.sin))
        sources = (x / torch.from_numpy(scale).view(-1, 1, 1, 1), cos * y + sin * z, cos * z - sin * y)
        # From mm to [-1, 1] between the centres of the outermost voxels; grid_sample wants the last axis first.
        ends_mm = [max(n - 1, 1) / 2 * side for n, side in zip(context, self._spacing_mm, strict=True)]
        return torch.stack([source / end for source, end in zip(sources, ends_mm, strict=True)][::-1], dim=-1)


def _sampled(volume: Tensor, grid: Tensor) -> Tensor:
    return grid_sample(volume, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _recoloured(image: Tensor, draws: Draws, step: int, n: int) -> Tensor:
    """One image (M, X, Y, Z) with other intensities; each step keeps the smallest value, which is the background's."""
    low = image.amin(dim=(1, 2, 3), keepdim=True)
    if (gamma := draws.gamma[step, n]) != 1:
        extent = (image.amax(dim=(1, 2, 3), keepdim=True) - low).clamp_min(1e-6)
        image = ((image - low) / extent) ** gamma * extent + low
    if (contrast := draws.contrast[step, n]) != 1:
        mean, high = image.mean(dim=(1, 2, 3), keepdim=True), image.amax(dim=(1, 2, 3), keepdim=True)
        image = ((image - mean) * contrast + mean).clamp(low, high)
    if (field := draws.bias[step, n]).any():
        points = torch.from_numpy(field).to(image)[None, None]
        profile = interpolate(points, size=tuple(image.shape[1:]), mode="trilinear", align_corners=True)[0].exp()
        image = (image - low) * profile + low
    if (noise_sd := draws.noise_sd[step, n]) > 0:
        generator = torch.Generator(image.device).manual_seed(int(draws.noise_seed[step, n]))
        noise = torch.randn(image.shape, generator=generator, device=image.device)
        image = image + noise * noise_sd * image.std(dim=(1, 2, 3), keepdim=True)
    return image
