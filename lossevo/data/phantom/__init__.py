"""Synthetic spines: labelled volumes that look like sagittal MRI, generated from a seed.

The anatomy lives in millimetres and does not depend on the voxel size: it is drawn with soft edges on sub-voxels of
about 2 mm or less, shaded by a receive coil, blurred, averaged to voxels (partial volume) and given Rician noise.
``docs/phantom.md`` shows pictures, sources and the calibration against real cohorts.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from lossevo.data.cohort import Case, Cohort, Grid, Volume
from lossevo.data.phantom import cervical, lumbar
from lossevo.data.phantom.anatomy import Floats, Point
from lossevo.data.phantom.scene import Region, Scene
from lossevo.errors import LossevoError

RegionName = Literal["lumbar", "cervical"]
REGIONS = {region.name: region for region in (lumbar.REGION, cervical.REGION)}
SPACING_LIMITS_MM = (0.5, 8.0)


def phantom_volume(
    seed: int, *, region: RegionName = "lumbar", subject: str | None = None, spacing_mm: Point | None = None
) -> Volume:
    """One synthetic subject: image (1, X, Y, Z) in 8-bit-like units, labels 1, 2, … for the bodies from head to foot.

    Lumbar is a water image of 76×224×224 mm with L1 … L5, cervical a T2-weighted image of 60×196×224 mm with C2 … C7.
    ``spacing_mm=None`` takes the region's usual voxel size. The same seed gives the same anatomy and the same outlines
    at every spacing; only the noise differs, and falls with the voxel size as averaging complex voxels would make it.

    Raises:
        LossevoError: no such region, the seed is negative, or ``spacing_mm`` is not three sizes from 0.5 to 8 mm.
    """
    if seed < 0:
        raise LossevoError(f"the seed of a phantom must be at least 0, got {seed}")
    kind = _region(region)
    shape, spacing_mm = _grid(kind, spacing_mm)
    anatomy_rng, texture_rng, noise_rng = np.random.default_rng(seed).spawn(3)
    parts = [max(1, round(side / finest)) for side, finest in zip(spacing_mm, kind.finest_mm, strict=True)]
    pitch_mm = [side / k for side, k in zip(spacing_mm, parts, strict=True)]
    scene = Scene(kind, [n * k for n, k in zip(shape, parts, strict=True)], pitch_mm, anatomy_rng, texture_rng)
    kind.draw(scene)
    signal = scipy.ndimage.gaussian_filter(scene.signal, np.divide(kind.point_spread_mm, pitch_mm), mode="nearest")
    image = _scanned(kind, _average(signal, parts), spacing_mm, noise_rng)
    label = np.zeros(shape, np.uint8)
    for value, share in enumerate(scene.outlines(), start=1):
        label[_largest_piece(_average(share, parts) >= 0.5)] = value
    name = f"phantom_{seed}" if subject is None else subject
    return Volume(case_id=name, subject=name, image=image[None], label=label, spacing_mm=spacing_mm)


def phantom_cohort(
    *, cases: int = 24, seed: int = 0, region: RegionName = "lumbar", spacing_mm: Point | None = None
) -> Cohort:
    """A cohort of synthetic subjects, one volume each; a smaller cohort is the beginning of a larger one.

    Raises:
        LossevoError: fewer than one case, a negative seed, no such region, or an impossible spacing.
    """
    if cases < 1 or seed < 0:
        raise LossevoError(f"a phantom cohort needs at least 1 case and a seed of at least 0, got {cases} and {seed}")
    kind = _region(region)
    grid = _grid(kind, spacing_mm)
    seeds = np.random.SeedSequence(seed).generate_state(cases, np.uint64).tolist()
    prefix = "phantom" if region == "lumbar" else f"phantom_{region}"
    names = [f"{prefix}_{number:03d}" for number in range(1, cases + 1)]
    draw = functools.partial(phantom_volume, region=region, spacing_mm=grid.spacing_mm)
    return Cohort(
        name=f"{prefix.replace('_', '-')}-{seed}",
        class_names=("background", *kind.anatomy.labelled),
        channel_names=(kind.channel,),
        cases=tuple(
            Case(name, name, functools.partial(draw, case_seed, subject=name), grid)
            for name, case_seed in zip(names, seeds, strict=True)
        ),
    )


def _region(name: str) -> Region:
    if name not in REGIONS:
        raise LossevoError(f"there is no phantom of the region {name!r}, only of {' and '.join(REGIONS)}")
    return REGIONS[name]


def _grid(region: Region, spacing_mm: Point | None) -> Grid:
    spacing_mm = region.native_spacing_mm if spacing_mm is None else spacing_mm
    low, high = SPACING_LIMITS_MM
    if not all(low <= side <= high for side in spacing_mm):
        raise LossevoError(f"phantom spacing_mm must be three sizes from {low:g} to {high:g} mm, got {spacing_mm}")
    x, y, z = (round(extent / side) for extent, side in zip(region.field_of_view_mm, spacing_mm, strict=True))
    return Grid((x, y, z), spacing_mm)


def _scanned(region: Region, signal: Floats, spacing_mm: Point, rng: np.random.Generator) -> Floats:
    """Magnitude of the signal with complex noise, which is as blurred as the interpolation to the stored voxels."""
    signal = signal * (region.mean_intensity / signal.mean())
    sd = region.noise_sd * math.sqrt(math.prod(region.native_spacing_mm) / math.prod(spacing_mm))
    spread = [0.0, *(region.noise_spread_mm / side for side in spacing_mm[1:])]
    real, imaginary = (scipy.ndimage.gaussian_filter(part, spread) for part in rng.normal(0.0, sd, (2, *signal.shape)))
    return np.hypot(signal + real, imaginary).astype(np.float32)


def _average(fine: Floats, parts: Sequence[int]) -> Floats:
    """Mean over the ``parts`` sub-voxels of each voxel."""
    (nx, ny, nz), (kx, ky, kz) = fine.shape, parts
    blocks = fine.reshape(nx // kx, kx, ny // ky, ky, nz // kz, kz)
    return np.asarray(blocks.mean(axis=(1, 3, 5), dtype=np.float32))


def _largest_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A rater draws one piece; the unsteady outline may have cut crumbs off its thin ends."""
    pieces, count = scipy.ndimage.label(mask)
    return np.asarray(pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])) if count > 1 else mask
