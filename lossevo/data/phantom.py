"""Synthetic lumbar spines: labelled volumes that look like sagittal water-fat MRI, generated from a seed.

The anatomy lives in millimetres and does not depend on the voxel size: it is drawn with soft edges on sub-voxels of
about 2 mm or less, shaded by a receive coil, blurred, averaged to voxels (partial volume) and given Rician noise.
``docs/phantom.md`` shows pictures, sources and the calibration against a real cohort.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lossevo.data.anatomy import (
    LABELLED,
    LEVELS,
    Column,
    Floats,
    Point,
    Vertebra,
    body_mm,
    capsule_mm,
    disc_mm,
    random_column,
)
from lossevo.data.cohort import Case, Cohort, Grid, Volume
from lossevo.errors import LossevoError

NATIVE_SPACING_MM = (4.0, 1.0, 1.0)
FIELD_OF_VIEW_MM = (76.0, 224.0, 224.0)
SPACING_LIMITS_MM = (0.5, 8.0)

# Signal in the water image before the coil, on one arbitrary scale.
CORTEX, FAT, SKIN, MUSCLE, CSF, CORD, LIGAMENT = 0.3, 0.1, 1.1, 0.93, 1.16, 1.02, 0.7
KIDNEY, VESSEL, NERVE, BOWEL = 1.15, 0.85, 0.95, 0.3

# In the units of the 8-bit cohort that the phantom imitates; the noise at the native voxel size.
MEAN_INTENSITY, NOISE_SD = 57.0, 2.2
# SD of the point spread function: acquired voxels are larger than stored ones.
BLUR_MM = (2.0, 0.5, 0.5)
# SD of a rater's outline about the true surface.
RATER_SD_MM = 0.8


def phantom_volume(seed: int, *, subject: str | None = None, spacing_mm: Point = NATIVE_SPACING_MM) -> Volume:
    """One synthetic subject: image (1, X, Y, Z) in 8-bit-like units, labels 1..5 for the bodies of L1..L5.

    The field of view is 76×224×224 mm. The same seed gives the same anatomy and the same outlines at every spacing;
    only the noise differs, and falls with the voxel size as averaging complex voxels would make it.

    Raises:
        LossevoError: the seed is negative, or ``spacing_mm`` is not three sizes from 0.5 to 8 mm.
    """
    if seed < 0:
        raise LossevoError(f"the seed of a phantom must be at least 0, got {seed}")
    shape, _ = _grid(spacing_mm)
    anatomy_rng, texture_rng, noise_rng = np.random.default_rng(seed).spawn(3)
    parts = [max(1, round(side / 2)) for side in spacing_mm]
    pitch_mm = [side / k for side, k in zip(spacing_mm, parts, strict=True)]
    scene = Scene([n * k for n, k in zip(shape, parts, strict=True)], pitch_mm, anatomy_rng, texture_rng)
    _draw(scene)

    signal = _average(ndimage.gaussian_filter(scene.water, np.divide(BLUR_MM, pitch_mm), mode="nearest"), parts)
    signal *= MEAN_INTENSITY / signal.mean()
    noise_sd = NOISE_SD * math.sqrt(math.prod(NATIVE_SPACING_MM) / math.prod(spacing_mm))
    real, imaginary = noise_rng.normal(0.0, noise_sd, (2, *shape))
    image = np.hypot(signal + real, imaginary).astype(np.float32)
    label = np.zeros(shape, np.uint8)
    for value, share in enumerate(scene.outlined, start=1):
        label[_largest_piece(_average(share, parts) >= 0.5)] = value
    name = f"phantom_{seed}" if subject is None else subject
    return Volume(case_id=name, subject=name, image=image[None], label=label, spacing_mm=spacing_mm)


def phantom_cohort(*, cases: int = 24, seed: int = 0, spacing_mm: Point = NATIVE_SPACING_MM) -> Cohort:
    """A cohort of synthetic subjects, one volume each; a smaller cohort is the beginning of a larger one.

    Raises:
        LossevoError: fewer than one case, a negative seed, or an impossible spacing.
    """
    if cases < 1 or seed < 0:
        raise LossevoError(f"a phantom cohort needs at least 1 case and a seed of at least 0, got {cases} and {seed}")
    seeds = np.random.SeedSequence(seed).generate_state(cases, np.uint64).tolist()
    names = [f"phantom_{number:03d}" for number in range(1, cases + 1)]
    grid = _grid(spacing_mm)
    return Cohort(
        name=f"phantom-{seed}",
        class_names=("background", *LABELLED),
        channel_names=("water",),
        cases=tuple(
            Case(name, name, functools.partial(phantom_volume, case_seed, subject=name, spacing_mm=spacing_mm), grid)
            for name, case_seed in zip(names, seeds, strict=True)
        ),
    )


def _grid(spacing_mm: Point) -> Grid:
    low, high = SPACING_LIMITS_MM
    if not all(low <= side <= high for side in spacing_mm):
        raise LossevoError(f"phantom spacing_mm must be three sizes from {low:g} to {high:g} mm, got {spacing_mm}")
    x, y, z = (round(extent / side) for extent, side in zip(FIELD_OF_VIEW_MM, spacing_mm, strict=True))
    return Grid((x, y, z), spacing_mm)


@dataclass(slots=True)
class Scene:
    """One subject on a grid of sub-voxels: where each lies, its water signal, and its share of each outlined body."""

    shape: Sequence[int]
    pitch_mm: Sequence[float]
    rng: np.random.Generator
    texture_rng: np.random.Generator
    column: Column = field(init=False)
    x: Floats = field(init=False)  # (nx, 1, 1) mm
    y: Floats = field(init=False)  # (1, ny, 1) mm
    z: Floats = field(init=False)  # (1, 1, nz) mm
    side: Floats = field(init=False)  # (nx, 1, nz) mm to the right of the column's curve
    ahead: Floats = field(init=False)  # (1, ny, nz) mm in front of it, square to it
    water: Floats = field(init=False)  # (nx, ny, nz)
    outlined: Floats = field(init=False)  # (labels, nx, ny, nz)

    def __post_init__(self) -> None:
        self.column = random_column(self.rng)
        x, y, z = (
            ((np.arange(n) - (n - 1) / 2) * pitch).astype(np.float32)
            for n, pitch in zip(self.shape, self.pitch_mm, strict=True)
        )
        self.x, self.y, self.z = x[:, None, None], y[None, :, None], z[None, None, :]
        column_x, column_y, cosine = self.column.centre(z)
        self.side, self.ahead = self.x - column_x, (self.y - column_y) * cosine
        self.water = np.zeros(self.shape, np.float32)
        self.outlined = np.zeros((len(LABELLED), *self.shape), np.float32)

    def along(self, values: Sequence[float] | NDArray[np.float64]) -> Floats:
        """A quantity given per level from T11 to S2, at the height of each sub-voxel: (nz,)."""
        return self.column.along(self.z.ravel(), values)

    def around(self, centre_mm: NDArray[np.float64], reach_mm: Point) -> tuple[slice, ...]:
        """The slices that hold a box around a point, so that a small part costs little."""
        box = zip((self.x, self.y, self.z), centre_mm, reach_mm, strict=True)
        return tuple(slice(*np.searchsorted(axis.ravel(), (c - reach, c + reach))) for axis, c, reach in box)

    def points(self, where: tuple[slice, ...]) -> tuple[Floats, Floats, Floats]:
        """x, y and z (mm) of the sub-voxels in a window, ready to broadcast."""
        return self.x[where[0]], self.y[:, where[1]], self.z[:, :, where[2]]

    def coverage(self, distance_mm: Floats) -> Floats:
        """Share of a sub-voxel that lies inside a surface, from the signed distance of its centre."""
        return np.asarray(np.clip(0.5 - distance_mm / math.prod(self.pitch_mm) ** (1 / 3), 0, 1))

    def paint(self, distance_mm: Floats, signal: Floats | float, where: tuple[slice, ...] = (slice(None),) * 3) -> None:
        """Blend ``signal`` into what lies inside a surface; what is painted later covers what is there."""
        target = self.water[where]
        target += self.coverage(distance_mm) * (signal - target)

    def texture(self, *knots_mm: float) -> Floats:
        """A random field, mean 0 and SD 1: cubic B-splines over white noise on knots that are fixed in space."""
        counts = [round(extent / knot) + 6 for extent, knot in zip(FIELD_OF_VIEW_MM, knots_mm, strict=True)]
        values: Floats = self.texture_rng.standard_normal(counts).astype(np.float32)
        for axis, (points, knot) in enumerate(zip((self.x, self.y, self.z), knots_mm, strict=True)):
            t = np.abs(points.reshape(-1, 1) / knot - (np.arange(counts[axis]) - (counts[axis] - 1) / 2))
            spline = np.where(t < 1, 4 - 6 * t**2 + 3 * t**3, np.clip(2 - t, 0, None) ** 3)
            spline /= np.sqrt((spline**2).sum(axis=1, keepdims=True))
            values = np.moveaxis(np.tensordot(spline.astype(np.float32), values, axes=(1, axis)), 0, axis)
        return values


def _average(fine: Floats, parts: Sequence[int]) -> Floats:
    """Mean over the ``parts`` sub-voxels of each voxel."""
    (nx, ny, nz), (kx, ky, kz) = fine.shape, parts
    blocks = fine.reshape(nx // kx, kx, ny // ky, ky, nz // kz, kz)
    return np.asarray(blocks.mean(axis=(1, 3, 5), dtype=np.float32))


def _largest_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A rater draws one piece; the unsteady outline may have cut crumbs off its thin ends."""
    pieces, count = ndimage.label(mask)
    return np.asarray(pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])) if count > 1 else mask


def _draw(scene: Scene) -> None:
    """The whole picture, from the skin inwards. Numbers per level run from T11 to S2 and are mm."""
    grain = scene.texture(4.0, 2.2, 2.2)
    strands = scene.texture(4.0, 4.0, 18.0)
    lumps = scene.texture(14.0, 10.0, 16.0)
    depth = _trunk(scene, lumps, grain)
    _abdomen(scene, grain)
    _muscles(scene, strands)
    _canal(scene, strands)
    for upper, lower in zip(scene.column.vertebrae[:-1], scene.column.vertebrae[1:], strict=True):
        _disc(scene, upper, lower, grain)
    for vertebra in scene.column.vertebrae:
        _vertebra(scene, vertebra, 1 + 0.08 * grain + 0.07 * lumps)
    _outline(scene)
    _coil(scene, depth)


def _trunk(scene: Scene, lumps: Floats, grain: Floats) -> Floats:
    """Skin, subcutaneous fat and what fills the cavity; returns the depth below the skin of the back (mm)."""
    thin, thick = np.sort(scene.rng.uniform(3.0, 22.0, 2))
    depth = scene.ahead + _fascia_mm(scene) + scene.along(np.linspace(thin, thick + 6, len(LEVELS)))
    belly = scene.rng.uniform(65.0, 115.0) + 4 * lumps[:, :1, :]
    inside = np.maximum(-depth, scene.ahead - belly - scene.rng.uniform(8.0, 30.0))
    scene.paint(inside, SKIN)
    scene.paint(inside + 2.2, FAT)
    cavity = np.maximum(-scene.ahead - 40, scene.ahead - belly)
    scene.paint(cavity, 0.8 * MUSCLE)
    scene.paint(cavity + 9, np.clip(BOWEL * (1 + 0.6 * np.tanh(1.5 * lumps) + 0.08 * grain), 0.02, None))
    return np.asarray(depth)


def _fascia_mm(scene: Scene) -> Floats:
    """How far behind the column the back muscles end: a furrow over the spinous processes, thin over the sacrum."""
    height = scene.along((66.0, 68.0, 70.0, 73.0, 75.0, 73.0, 66.0, 48.0, 34.0))
    lateral = np.abs(scene.side)
    return np.asarray(height + 9 * np.clip(lateral / 22, 0, 1) - 6 * np.clip(lateral / 60, 0, 1))


def _abdomen(scene: Scene, grain: Floats) -> None:
    """Kidneys, and in front of the bodies the aorta on the left and the vena cava on the right, parting below L4."""
    l1, l4 = (scene.column.vertebrae[LEVELS.index(level)].centre_mm[2] for level in ("L1", "L4"))
    for hand in (-1, 1):
        ahead, side, z = scene.rng.normal((-4.0, hand * 47.0, l1 + 10), (4.0, 3.0, 8.0)).tolist()
        across = ((scene.ahead - ahead) / 24) ** 2 + ((scene.side - side) / 23) ** 2
        radius = np.sqrt(across + ((scene.z - z) / 46) ** 2)
        scene.paint((radius - 1.12) * 24, 1.5 * FAT)
        scene.paint((radius - 1) * 24, KIDNEY * (1 + 0.05 * grain))
    front = scene.along([vertebra.half_depth_mm for vertebra in scene.column.vertebrae])
    sway = scene.along(scene.rng.normal(0.0, 3.0, len(LEVELS)))
    parting = 0.45 * np.clip(l4 - scene.z, 0, None)
    for hand, lateral, girth in ((-1, 7.0, (7.0, 9.0)), (1, 12.0, (7.0, 10.0))):
        radius_mm, signal = scene.rng.uniform(*girth), scene.rng.normal(VESSEL, 0.15)
        tube = np.hypot(scene.side - sway - hand * (lateral + parting), scene.ahead - front - radius_mm) - radius_mm
        scene.paint(tube - 1, 3 * FAT)
        scene.paint(tube, signal * (1 + 0.08 * grain))


def _muscles(scene: Scene, strands: Floats) -> None:
    """Psoas (above it the crus) beside the bodies, erector spinae and multifidus behind them, with fatty strands."""
    lateral, lean = np.abs(scene.side), MUSCLE * (1 + 0.05 * strands)
    bulk = float(scene.rng.normal(1.0, 0.1))
    wide = bulk * scene.along((4.0, 5.0, 11.0, 15.0, 19.0, 21.0, 22.0, 20.0, 18.0))
    deep = bulk * scene.along((12.0, 13.0, 18.0, 22.0, 25.0, 26.0, 25.0, 22.0, 18.0))
    medial = scene.along([0.8 * vertebra.half_width_mm for vertebra in scene.column.vertebrae])
    ahead = scene.along((-2.0, -2.0, -4.0, -5.0, -3.0, 0.0, 6.0, 20.0, 34.0))
    scene.paint((np.hypot((lateral - medial - wide) / wide, (scene.ahead - ahead) / deep) - 1) * wide, lean)

    infiltration = float(np.clip(scene.rng.normal(0.2, 0.25), -0.2, 0.8))
    streaks = 0.7 * np.clip(0.8 * (strands - 1.5) + infiltration, 0, 1)
    edge = scene.along((22.0, 22.0, 22.0, 23.0, 24.0, 26.0, 28.0, 26.0, 24.0))
    back = np.maximum(scene.ahead + edge + strands, -scene.ahead - _fascia_mm(scene))
    scene.paint(back - 1.5, 1.5 * FAT)
    scene.paint(back, lean * (0.9 - streaks))
    scene.paint(np.maximum(back, lateral - 4), LIGAMENT * (1 + 0.25 * strands))


def _canal(scene: Scene, strands: Floats) -> None:
    """Epidural fat, the dural sac with its fluid, the cord down to L1/L2 and the roots of the cauda below."""
    behind = -scene.ahead - scene.along([vertebra.half_depth_mm - 2.5 for vertebra in scene.column.vertebrae])
    scene.paint((np.hypot(scene.side / 14, (behind - 9) / 11) - 1) * 11, 5 * FAT)
    deep = scene.along((7.5, 7.5, 8.0, 8.0, 7.8, 7.8, 7.3, 5.0, 2.0))
    wide = scene.along((9.0, 9.5, 10.0, 10.5, 10.5, 10.5, 10.0, 7.0, 3.0))
    scene.paint((np.hypot(scene.side / wide, (behind - deep) / deep) - 1) * deep, CSF)
    above_conus = scene.z - float(scene.column.vertebrae[LEVELS.index("L2")].centre_mm[2] + 18)
    girth = np.clip(above_conus / 8 + 2, 0.5, 4.5)
    scene.paint(np.maximum(np.hypot(scene.side, behind - 8) - girth, -above_conus - 14), CORD)
    cauda = (np.hypot(scene.side / 8, (behind - 11) / 3) - 1) * 3
    scene.paint(np.maximum(cauda, above_conus), CSF - 0.15 + 0.1 * strands)


def _disc(scene: Scene, upper: Vertebra, lower: Vertebra, grain: Floats) -> None:
    """Annulus and nucleus."""
    where = scene.around((upper.centre_mm + lower.centre_mm) / 2, (40.0, 40.0, 30.0))
    distance = disc_mm(upper, lower, *scene.points(where))
    scene.paint(distance, 0.7 * upper.disc, where)
    scene.paint(distance + 3, upper.disc * (1 + 0.04 * grain[where]), where)


def _vertebra(scene: Scene, vertebra: Vertebra, texture: Floats) -> None:
    """Body with its vein, pedicles, arch, processes, and the nerve roots that leave below the pedicles."""
    rng, r = scene.rng, vertebra.pedicle_radius_mm
    wall, low = -vertebra.half_depth_mm, -vertebra.half_height_mm
    where = scene.around(vertebra.centre_mm - 27 * vertebra.axes[1], (70.0, 60.0, 52.0))
    u, v, w = vertebra.local(*scene.points(where))
    lateral = np.abs(u)
    marrow = vertebra.marrow * texture[where]

    def rods(start: Point, end: Point, radius_mm: float) -> Floats:
        return capsule_mm(lateral, v, w, start, end, radius_mm)

    def bone(distance: Floats, signal: Floats) -> None:
        scene.paint(distance, CORTEX, where)
        scene.paint(distance + 1, signal, where)

    if vertebra.level.startswith("S"):
        alae = rods((16, -5, 0), (48, -16, -4), 0.9 * vertebra.half_height_mm)
        crest = capsule_mm(0.5 * u, v, w, (0, wall - 18, 8), (0, wall - 22, -8), 5.0)
        bone(np.minimum(alae, crest), 0.95 * marrow)
    else:
        droop, length, bulk, tip_back, tip_up = rng.normal((15, 50, 6, 13, 8), (2.0, 2.5, 1.0, 2.0, 3.0)).tolist()
        scene.paint(rods((13, wall - 5, low), (24, wall - 6, low - 4), 5.5), 3 * FAT, where)
        scene.paint(rods((10, wall - 6, low + 3), (22, wall - 5, low - 5), 2.8), NERVE, where)
        scene.paint(rods((18, wall - 17, -14), (16, wall - 22, -24), 8.0), 3 * FAT, where)
        # Scaled coordinates flatten a rod: tall laminae, and the spinous process as a plate that widens backwards.
        transverse = rods((17 + r, wall - 9, 5), (40, wall - tip_back, tip_up), 4.2)
        articular = rods((19, wall - 12, 14), (17, wall - 20, -16), 6.0)
        laminae = capsule_mm(lateral, v, w / 1.8, (14, wall - 20, -2), (1, wall - 28, -5), 4.2)
        spinous = capsule_mm(2.6 * u, v, w, (0, wall - 29, -9), (0, wall - length, -droop), bulk, flare_mm=5.0)
        pedicles = capsule_mm(lateral, v, 0.75 * w, (11 + r, wall + 3, 4.5), (12.5 + r, wall - 13, 4), r)
        bone(np.minimum.reduce([transverse, articular, laminae, spinous, pedicles]), 0.95 * marrow)
        scene.paint(rods((17, wall - 15, 15), (20, wall - 19, 20), 1.5), NERVE, where)  # fluid in the facet joint
    bone(body_mm(vertebra, u, v, w), marrow)
    vein = capsule_mm(u, v, w, (0, wall + 4, 0), (0, wall + rng.uniform(4.5, 11.0), rng.normal()), 1.6)
    scene.paint(vein, rng.uniform(0.5, 1.1), where)


def _outline(scene: Scene) -> None:
    """What a rater outlines: each body as an unsteady hand follows it, and too far to the left and right.

    Slices 4 mm apart blur the sides of a body into the psoas; raters of the real cohort went on for a slice or two.
    """
    overreach_mm, slack_mm = np.array([3.0, 0.3]) + np.clip(scene.rng.normal(size=2), -2, 2) * [1.5, 0.4]
    hand = slack_mm.astype(np.float32) + RATER_SD_MM * scene.texture(8.0, 9.0, 9.0)
    for label, level in enumerate(LABELLED):
        vertebra = scene.column.vertebrae[LEVELS.index(level)]
        left, right, slip = scene.rng.normal((overreach_mm, overreach_mm, 0.0), (1.4, 1.4, 0.25)).tolist()
        where = scene.around(vertebra.centre_mm, (60.0, 40.0, 40.0))
        u, v, w = vertebra.local(*scene.points(where))
        seen = replace(vertebra, waist=0.0, concavity_mm=0.7 * vertebra.concavity_mm)
        outline = body_mm(seen, u, v, w, margin_mm=np.where(u < 0, np.float32(left), np.float32(right)))
        scene.outlined[label][where] = scene.coverage(outline - hand[where] - slip)


def _coil(scene: Scene, depth: Floats) -> None:
    """Shade by a spine coil under the back: even across the column, fading in the abdomen and towards both ends."""
    near = np.clip(depth, 0, None)
    reach_mm, ends, middle_mm = scene.rng.uniform((125.0, 0.05, -25.0), (190.0, 0.5, 25.0)).tolist()
    sensitivity = (1 + 0.15 * np.exp(-near / 12)) / (1 + (near / reach_mm) ** 4)
    sensitivity = sensitivity * (1 - ends * ((scene.z - middle_mm) / 112) ** 2)
    scene.water *= sensitivity * np.exp(0.12 * scene.texture(70.0, 70.0, 70.0))
