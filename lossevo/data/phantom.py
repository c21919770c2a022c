"""Synthetic lumbar spines: labelled volumes that look like sagittal water-fat MRI, generated from a seed.

The anatomy lives in millimetres and does not depend on the voxel size: it is drawn with soft edges on sub-voxels of about
2 mm or less, shaded by a receive coil, averaged to voxels (partial volume), and given Rician noise. ``docs/phantom.md``
shows pictures, sources and the calibration against a real cohort.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lossevo.data.anatomy import (
    LABELLED,
    LEVELS,
    Column,
    Floats,
    Vertebra,
    body_mm,
    capsule_mm,
    disc_mm,
    random_column,
)
from lossevo.data.cohort import Case, Cohort, Volume
from lossevo.errors import LossevoError

NATIVE_SPACING_MM = (4.0, 1.0, 1.0)
FIELD_OF_VIEW_MM = (76.0, 224.0, 224.0)
SPACING_LIMITS_MM = (0.5, 8.0)

# Water signal relative to healthy muscle, spoiled gradient echo with small flip angle, before the coil.
CORTEX, FAT, SKIN, MUSCLE, CSF, CORD, LIGAMENT = 0.25, 0.1, 1.1, 1.0, 1.3, 1.15, 0.75
KIDNEY, VESSEL, NERVE, BOWEL = 1.15, 0.85, 0.95, 0.36

MEAN_INTENSITY = 57.0  # of the 8-bit cohort the phantom imitates
# Acquired voxels are larger than stored ones: SD of the point spread, slice profile and interpolation included.
BLUR_MM = (2.0, 0.7, 0.7)
NOISE_SD = 2.0  # in those units, at the native voxel size
RATER_SD_MM = 1.0  # of the outline about the true surface


@dataclass(slots=True)
class Canvas:
    """Water signal on sub-voxels, and the share of each sub-voxel that a rater gives to each labelled body."""

    x: Floats  # (nx, 1, 1) mm
    y: Floats  # (1, ny, 1) mm
    z: Floats  # (1, 1, nz) mm
    softness_mm: float
    water: NDArray[np.float32]  # (nx, ny, nz)
    share: NDArray[np.float32]  # (labels, nx, ny, nz)

    def coverage(self, distance_mm: Floats) -> Floats:
        """Share of a sub-voxel that lies inside, from the signed distance of its centre to the surface."""
        return np.clip(0.5 - distance_mm / self.softness_mm, 0, 1)

    def paint(self, distance_mm: Floats, signal: Floats | float, where: tuple[slice, ...] = (slice(None),) * 3) -> None:
        """Blend ``signal`` into the part of the canvas that lies inside a surface."""
        target = self.water[where]
        target += self.coverage(distance_mm) * (signal - target)

    def window(
        self, centre_mm: Floats, below_mm: tuple[float, float, float], above_mm: tuple[float, float, float]
    ) -> tuple[slice, ...]:
        """The slices that hold a box around a point, so that a small part costs little."""
        edges = zip((self.x, self.y, self.z), centre_mm, below_mm, above_mm, strict=True)
        return tuple(slice(*np.searchsorted(axis.ravel(), (c - b, c + a))) for axis, c, b, a in edges)


def phantom_volume(
    seed: int, *, subject: str | None = None, spacing_mm: tuple[float, float, float] = NATIVE_SPACING_MM
) -> Volume:
    """One synthetic subject: image (1, X, Y, Z) in 8-bit-like units, label 1..5 for the bodies of L1..L5.

    The same seed gives the same anatomy at every spacing; noise falls as complex averaging of voxels would make it.

    Raises:
        LossevoError: ``spacing_mm`` is not three sizes from 0.5 to 8 mm.
    """
    low, high = SPACING_LIMITS_MM
    if len(spacing_mm) != 3 or not all(low <= side <= high for side in spacing_mm):
        raise LossevoError(f"phantom spacing_mm must be three sizes from {low:g} to {high:g} mm, got {spacing_mm}")
    anatomy_rng, texture_rng, noise_rng = np.random.default_rng(seed).spawn(3)
    shape = tuple(max(1, round(extent / side)) for extent, side in zip(FIELD_OF_VIEW_MM, spacing_mm, strict=True))
    parts = tuple(max(1, round(side / 2)) for side in spacing_mm)
    canvas = _blank(shape, parts, spacing_mm)
    _draw(canvas, random_column(anatomy_rng), anatomy_rng, texture_rng)

    pitches = [side / k for side, k in zip(spacing_mm, parts, strict=True)]
    blurred = ndimage.gaussian_filter(canvas.water, np.divide(BLUR_MM, pitches), mode="nearest")
    signal = _average(blurred, parts)
    share = np.stack([_average(part, parts) for part in canvas.share])
    label = np.where(share.max(axis=0) >= 0.5, share.argmax(axis=0) + 1, 0).astype(np.uint8)
    signal *= MEAN_INTENSITY / signal.mean()
    noise_sd = NOISE_SD * math.sqrt(math.prod(NATIVE_SPACING_MM) / math.prod(spacing_mm))
    real, imaginary = noise_rng.normal(0.0, noise_sd, (2, *signal.shape))
    image = np.hypot(signal + real, imaginary).astype(np.float32)
    name = f"phantom_{seed}" if subject is None else subject
    return Volume(case_id=name, subject=name, image=image[None], label=label, spacing_mm=spacing_mm)


def phantom_cohort(
    *, cases: int = 24, seed: int = 0, spacing_mm: tuple[float, float, float] = NATIVE_SPACING_MM
) -> Cohort:
    """A cohort of ``cases`` synthetic subjects, one volume each; a smaller cohort is the beginning of a larger one.

    Raises:
        LossevoError: fewer than one case, a negative seed, or (on loading) an impossible spacing.
    """
    if cases < 1 or seed < 0:
        raise LossevoError(f"a phantom cohort needs at least 1 case and a seed of at least 0, got {cases} and {seed}")
    seeds = np.random.SeedSequence(seed).generate_state(cases, np.uint64)
    names = [f"phantom_{i + 1:03d}" for i in range(cases)]
    return Cohort(
        name=f"phantom-{seed}",
        class_names=("background", *LABELLED),
        channel_names=("water",),
        cases=tuple(
            Case(name, name, functools.partial(phantom_volume, int(s), subject=name, spacing_mm=spacing_mm))
            for name, s in zip(names, seeds, strict=True)
        ),
    )


def _blank(shape: tuple[int, ...], parts: tuple[int, ...], spacing_mm: tuple[float, float, float]) -> Canvas:
    counts = [n * k for n, k in zip(shape, parts, strict=True)]
    pitches = [side / k for side, k in zip(spacing_mm, parts, strict=True)]
    x, y, z = (
        ((np.arange(n) - (n - 1) / 2) * pitch).astype(np.float32) for n, pitch in zip(counts, pitches, strict=True)
    )
    return Canvas(
        x=x[:, None, None],
        y=y[None, :, None],
        z=z[None, None, :],
        softness_mm=math.prod(pitches) ** (1 / 3),
        water=np.zeros(counts, np.float32),
        share=np.zeros((len(LABELLED), *counts), np.float32),
    )


def _average(fine: NDArray[np.float32], parts: tuple[int, ...]) -> NDArray[np.float32]:
    """Mean over the ``parts`` sub-voxels of each voxel."""
    (nx, ny, nz), (kx, ky, kz) = fine.shape, parts
    return fine.reshape(nx // kx, kx, ny // ky, ky, nz // kz, kz).mean(axis=(1, 3, 5), dtype=np.float32)


def _smooth_noise(canvas: Canvas, rng: np.random.Generator, pitch_mm: tuple[float, float, float]) -> Floats:
    """A random field of mean 0 and SD about 1: cubic B-splines over white noise on a lattice fixed in space."""
    field: Floats = rng.standard_normal(
        [round(extent / pitch) + 6 for extent, pitch in zip(FIELD_OF_VIEW_MM, pitch_mm, strict=True)]
    ).astype(np.float32)
    for axis, (points, pitch) in enumerate(zip((canvas.x, canvas.y, canvas.z), pitch_mm, strict=True)):
        nodes = (np.arange(field.shape[axis]) - (field.shape[axis] - 1) / 2) * pitch
        t = np.abs(points.reshape(-1, 1) - nodes) / pitch
        spline = np.where(t < 1, 4 - 6 * t**2 + 3 * t**3, np.clip(2 - t, 0, None) ** 3)
        spline /= np.sqrt((spline**2).sum(axis=1, keepdims=True))
        field = np.moveaxis(np.tensordot(spline.astype(np.float32), field, axes=(1, axis)), 0, axis)
    return field


def _draw(canvas: Canvas, column: Column, rng: np.random.Generator, texture_rng: np.random.Generator) -> None:
    """The whole picture, from the skin inwards; later parts cover earlier ones."""
    grain = _smooth_noise(canvas, texture_rng, (4.0, 2.2, 2.2))
    strands = _smooth_noise(canvas, texture_rng, (4.0, 4.0, 18.0))
    lumps = _smooth_noise(canvas, texture_rng, (14.0, 10.0, 16.0))
    x0, y0, cosine = column.centre(canvas.z.ravel())
    side = canvas.x - x0
    front = (canvas.y - y0) * cosine  # distance ahead of the column's curve, square to it

    depth = _trunk(canvas, column, front, side, lumps, grain, rng)
    _abdomen(canvas, column, front, side, grain, rng)
    _muscles(canvas, column, front, side, strands, rng)
    _canal(canvas, column, front, side, strands)
    for upper, lower in zip(column.vertebrae[:-1], column.vertebrae[1:], strict=True):
        _disc(canvas, upper, lower, grain)
    marrow = 1 + 0.08 * grain + 0.07 * lumps
    hand = _smooth_noise(canvas, texture_rng, (8.0, 9.0, 9.0))
    for vertebra in column.vertebrae:
        _vertebra(canvas, vertebra, marrow, rng)
        if vertebra.level in LABELLED:
            _rate(canvas, vertebra, hand, rng)
    _coil(canvas, depth, texture_rng, rng)


def _trunk(
    canvas: Canvas, column: Column, front: Floats, side: Floats, lumps: Floats, grain: Floats, rng: np.random.Generator
) -> Floats:
    """Skin, subcutaneous fat and what fills the cavity; returns the depth below the skin of the back (mm)."""
    thin, thick = np.sort(rng.uniform(3.0, 22.0, 2))
    cover = column.along(canvas.z.ravel(), np.linspace(thin, thick + 6, len(LEVELS)))
    depth = front + _fascia_mm(column, canvas, side) + cover
    belly = rng.uniform(65.0, 115.0) + 4 * lumps[:, :1, :]
    inside = np.maximum(-depth, front - belly - rng.uniform(8.0, 30.0))
    canvas.paint(inside, SKIN)
    canvas.paint(inside + 2.2, FAT)
    gut = np.clip(BOWEL * (1 + 0.6 * np.tanh(1.5 * lumps) + 0.08 * grain), 0.02, None)
    canvas.paint(np.maximum(-front - 40, front - belly), MUSCLE * 0.8)
    canvas.paint(np.maximum(-front - 40, front - belly + 9), gut)
    return np.asarray(depth)


def _fascia_mm(column: Column, canvas: Canvas, side: Floats) -> Floats:
    """How far behind the column the back muscles end (mm): a furrow over the spines, thin over the sacrum."""
    height = column.along(canvas.z.ravel(), (66.0, 68.0, 70.0, 73.0, 75.0, 73.0, 66.0, 48.0, 34.0))
    return np.asarray(height + 9 * np.clip(np.abs(side) / 22, 0, 1) - 6 * np.clip(np.abs(side) / 60, 0, 1))


def _abdomen(
    canvas: Canvas, column: Column, front: Floats, side: Floats, grain: Floats, rng: np.random.Generator
) -> None:
    """Kidneys, and in front of the bodies the aorta on the left and the vena cava on the right, parting below L4."""
    z = canvas.z.ravel()
    l1, l4 = column.vertebrae[LEVELS.index("L1")], column.vertebrae[LEVELS.index("L4")]
    for hand in (-1, 1):
        centre = (rng.normal(-4.0, 4.0), hand * rng.normal(47.0, 3.0), l1.centre_mm[2] + rng.normal(10.0, 8.0))
        reach = np.sqrt(
            ((front - centre[0]) / 24) ** 2 + ((side - centre[1]) / 23) ** 2 + ((canvas.z - centre[2]) / 46) ** 2
        )
        canvas.paint((reach - 1.12) * 24, 1.5 * FAT)
        canvas.paint((reach - 1) * 24, KIDNEY * (1 + 0.05 * grain))
    surface = column.along(z, [v.half_depth_mm for v in column.vertebrae])
    part = np.clip(l4.centre_mm[2] - z, 0, None)
    sway = column.along(z, rng.normal(0.0, 3.0, len(LEVELS)))
    for lateral, radius in ((-7.0, rng.uniform(7.0, 9.0)), (12.0, rng.uniform(7.0, 10.0))):
        across = side - lateral - sway - math.copysign(0.45, lateral) * part
        canvas.paint(np.hypot(across, front - surface - radius) - radius - 1, 3 * FAT)
        canvas.paint(np.hypot(across, front - surface - radius) - radius, rng.normal(VESSEL, 0.15) * (1 + 0.08 * grain))


def _muscles(
    canvas: Canvas, column: Column, front: Floats, side: Floats, strands: Floats, rng: np.random.Generator
) -> None:
    """Psoas (above it the crus) beside the bodies; erector spinae and multifidus behind the arches, with fatty strands."""
    z = canvas.z.ravel()
    lean = MUSCLE * (1 + 0.05 * strands)
    bulk = rng.normal(1.0, 0.1)
    wide = column.along(z, (4.0, 5.0, 11.0, 15.0, 19.0, 21.0, 22.0, 20.0, 18.0)) * bulk
    deep = column.along(z, (12.0, 13.0, 18.0, 22.0, 25.0, 26.0, 25.0, 22.0, 18.0)) * bulk
    medial = column.along(z, [0.8 * v.half_width_mm for v in column.vertebrae])
    ahead = column.along(z, (-2.0, -2.0, -4.0, -5.0, -3.0, 0.0, 6.0, 20.0, 34.0))
    psoas = np.hypot((np.abs(side) - medial - wide) / wide, (front - ahead) / deep)
    canvas.paint((psoas - 1) * wide, lean)

    infiltration = np.clip(rng.normal(0.2, 0.25), -0.2, 0.8)
    streaks = 0.7 * np.clip(0.8 * (strands - 1.5) + infiltration, 0, 1)
    deep_edge = column.along(z, (22.0, 22.0, 22.0, 23.0, 24.0, 26.0, 28.0, 26.0, 24.0))
    back = np.maximum(front + deep_edge + strands, -front - _fascia_mm(column, canvas, side))
    canvas.paint(back - 1.5, 1.5 * FAT)
    canvas.paint(back, lean * (1 - streaks))
    canvas.paint(np.maximum(back, np.abs(side) - 4), LIGAMENT * (1 + 0.25 * strands))


def _canal(canvas: Canvas, column: Column, front: Floats, side: Floats, strands: Floats) -> None:
    """Epidural fat, the dural sac with its fluid, the cord down to L1/L2 and the roots of the cauda below."""
    z = canvas.z.ravel()
    behind = -front - column.along(z, [v.half_depth_mm - 2.5 for v in column.vertebrae])
    canvas.paint((np.hypot(side / 14, (behind - 9) / 11) - 1) * 11, 5 * FAT)
    sac_depth = column.along(z, (7.5, 7.5, 8.0, 8.0, 7.8, 7.8, 7.3, 5.0, 2.0))
    sac_width = column.along(z, (9.0, 9.5, 10.0, 10.5, 10.5, 10.5, 10.0, 7.0, 3.0))
    sac = np.hypot(side / sac_width, (behind - sac_depth) / sac_depth)
    canvas.paint((sac - 1) * sac_depth, CSF)
    conus = column.vertebrae[LEVELS.index("L2")].centre_mm[2] + 18
    cord = np.maximum(np.hypot(side, behind - 8) - np.clip((z - conus) / 8 + 2, 0.5, 4.5), conus - 14 - z)
    canvas.paint(cord, CORD)
    cauda = np.maximum((np.hypot(side / 8, (behind - 11) / 3) - 1) * 3, z - conus)
    canvas.paint(cauda, CSF - 0.15 + 0.1 * strands)


def _disc(canvas: Canvas, upper: Vertebra, lower: Vertebra, grain: Floats) -> None:
    where = canvas.window((upper.centre_mm + lower.centre_mm) / 2, (40, 40, 30), (40, 40, 30))
    distance = disc_mm(upper, lower, canvas.x[where[0]], canvas.y[:, where[1]], canvas.z[:, :, where[2]])
    canvas.paint(distance, 0.7 * upper.disc_signal, where)
    canvas.paint(distance + 3.0, upper.disc_signal * (1 + 0.04 * grain[where]), where)


def _vertebra(canvas: Canvas, vertebra: Vertebra, texture: Floats, rng: np.random.Generator) -> None:
    """Body, pedicles, arch, processes, and the nerve roots that leave below the pedicles."""
    where = canvas.window(vertebra.centre_mm, (70, 85, 50), (70, 50, 50))
    u, v, w = vertebra.local(canvas.x[where[0]], canvas.y[:, where[1]], canvas.z[:, :, where[2]])
    mirrored = np.abs(u)
    wall, low = -vertebra.half_depth_mm, -vertebra.half_height_mm
    r = vertebra.pedicle_radius_mm
    marrow = vertebra.marrow * texture[where]
    droop, length, bulk = rng.normal((15.0, 50.0, 10.0), (2.0, 2.5, 1.0))

    def rod(start: tuple[float, float, float], end: tuple[float, float, float], radius: float) -> Floats:
        return capsule_mm(mirrored, v, w, start, end, radius)

    def bone(distance: Floats, signal: Floats) -> None:
        canvas.paint(distance, CORTEX, where)
        canvas.paint(distance + 1.0, signal, where)

    if vertebra.level.startswith("S"):
        ala = rod((16, -5, 0), (48, -16, -4), 0.9 * vertebra.half_height_mm)
        crest = capsule_mm(u / 2, v, w, (0, wall - 18, 8), (0, wall - 22, -8), 5.0)
        bone(np.minimum(ala, crest), 0.95 * marrow)
    else:
        canvas.paint(rod((13, wall - 5, low), (24, wall - 6, low - 4), 5.5), 3 * FAT, where)
        canvas.paint(rod((10, wall - 6, low + 3), (22, wall - 5, low - 5), 2.8), NERVE, where)
        canvas.paint(rod((18, wall - 17, -14), (16, wall - 22, -24), 8.0), 3 * FAT, where)
        transverse = rod((17 + r, wall - 9, 5), (40, wall - rng.normal(13, 2), rng.normal(8, 3)), 4.2)
        articular = rod((19, wall - 12, 14), (17, wall - 20, -16), 6.0)
        lamina = capsule_mm(mirrored, v, w / 1.8, (14, wall - 20, -2), (1, wall - 28, -5), 4.2)
        spinous = capsule_mm(mirrored * 2.6, v, w, (0, wall - 29, -9), (0, wall - length, -droop), bulk - 4, 5.0)
        pedicle = capsule_mm(mirrored, v, w * 0.75, (11 + r, wall + 3, 4.5), (12.5 + r, wall - 13, 4), r)
        bone(np.minimum.reduce([transverse, articular, lamina, spinous, pedicle]), 0.95 * marrow)
        canvas.paint(rod((17, wall - 15, 15), (20, wall - 19, 20), 1.5), NERVE, where)
    bone(body_mm(vertebra, u, v, w), marrow)
    vein = capsule_mm(u, v, w, (0, wall + 4, 0), (0, wall + rng.uniform(4.5, 11), rng.normal(0, 1)), 1.6)
    canvas.paint(vein, rng.uniform(0.5, 1.1), where)


def _rate(canvas: Canvas, vertebra: Vertebra, hand: Floats, rng: np.random.Generator) -> None:
    """What a rater outlines: the body with an unsteady ``hand``, and too far sideways, where slices blur it into muscle."""
    where = canvas.window(vertebra.centre_mm, (60, 40, 40), (60, 40, 40))
    u, v, w = vertebra.local(canvas.x[where[0]], canvas.y[:, where[1]], canvas.z[:, :, where[2]])
    left, right = rng.normal(3.7, 2.0, 2)
    seen = replace(vertebra, waist=0.0, concavity_mm=0.7 * vertebra.concavity_mm)
    outline = body_mm(seen, u, v, w, margin_mm=np.where(u < 0, left, right))
    slip = rng.normal(0.0, 0.4) + RATER_SD_MM * hand[where]
    canvas.share[LABELLED.index(vertebra.level)][where] = canvas.coverage(outline - slip)


def _coil(canvas: Canvas, depth: Floats, texture_rng: np.random.Generator, rng: np.random.Generator) -> None:
    """Shade by a spine coil under the back: bright beside it, even across the column, fading in the abdomen and at both ends."""
    reach_mm = rng.uniform(125.0, 190.0)
    near = np.clip(depth, 0, None)
    ends = 1 - rng.uniform(0.05, 0.5) * ((canvas.z - rng.normal(0, 15)) / 112) ** 2
    ripple = np.exp(0.12 * _smooth_noise(canvas, texture_rng, (70.0, 70.0, 70.0)))
    canvas.water *= (1 + 0.15 * np.exp(-near / 12)) / (1 + (near / reach_mm) ** 4) * ends * ripple
