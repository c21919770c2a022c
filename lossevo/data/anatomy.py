"""A random lumbar column: where each vertebra stands, how it is shaped, and how much water its marrow holds.

Coordinates are millimetres along RAS axes (x to the right, y anterior, z superior), origin in the middle of the field
of view. A vertebra's own axes (u right, v anterior, w superior) follow the column. Means per level start from the
literature named in ``docs/phantom.md``; they and the spreads between subjects are calibrated on a real cohort.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

Floats = NDArray[np.float32]
Point = tuple[float, float, float]

LEVELS = ("T11", "T12", "L1", "L2", "L3", "L4", "L5", "S1", "S2")
LABELLED = ("L1", "L2", "L3", "L4", "L5")

# Per level, in the order of LEVELS. Bodies after Panjabi et al. 1992, enlarged to the living cohort.
WIDTH_MM = (39.0, 42.0, 44.5, 47.0, 49.5, 50.0, 46.5, 50.0, 42.0)
DEPTH_MM = (29.0, 31.0, 33.0, 34.0, 35.0, 35.5, 34.0, 31.0, 22.0)
HEIGHT_MM = (24.5, 26.0, 27.5, 28.0, 28.0, 27.5, 26.5, 29.0, 24.0)
# Anterior minus posterior height as a share of the mean height: slightly kyphotic at L1, a clear wedge at L5.
WEDGE = (-0.04, -0.04, -0.04, -0.01, 0.02, 0.05, 0.17, 0.12, 0.0)
# How far the end-plates lean back, supine; and how much further the line through the centres leans (5-6 degrees).
TILT_DEG = (9.0, 10.0, 11.0, 10.0, 5.5, -6.0, -19.0, -39.0, -50.0)
LEAN = 0.1
PEDICLE_RADIUS_MM = (3.6, 3.8, 3.7, 3.8, 4.3, 5.2, 6.5, 0.0, 0.0)
# Of the disc below each level but the last. A degenerate disc has lost height and water; the lowest two suffer most.
DISC_MM = (5.5, 6.0, 6.5, 7.5, 8.5, 9.0, 9.0, 2.0)
DEGENERATE_SHARE = (0.02, 0.02, 0.02, 0.03, 0.04, 0.15, 0.25, 1.0)


@dataclass(frozen=True, slots=True)
class Vertebra:
    """One vertebra; the water signals of its marrow and of the disc below it are on the scale of the phantom's."""

    level: str
    centre_mm: NDArray[np.float64]
    axes: NDArray[np.float64]  # rows: the unit vectors u, v, w in world coordinates
    half_width_mm: float
    half_depth_mm: float
    half_height_mm: float
    wedge: float
    waist: float  # how much narrower the body is at mid-height, as a share
    concavity_mm: float  # depth of each end-plate below its rim
    pedicle_radius_mm: float
    marrow: float
    disc: float

    def local(self, x: Floats, y: Floats, z: Floats) -> tuple[Floats, Floats, Floats]:
        """The point (x, y, z) in this vertebra's own axes (u right, v anterior, w superior)."""
        return _rotated(x, y, z, self.centre_mm, self.axes)


@dataclass(frozen=True, slots=True)
class Column:
    """The vertebrae from T11 to S2, and the smooth curve through their centres."""

    vertebrae: tuple[Vertebra, ...]

    def along(self, z: Floats, values: Sequence[float] | NDArray[np.float64]) -> Floats:
        """A quantity given per level, interpolated at height ``z``, constant beyond the ends."""
        heights = [vertebra.centre_mm[2] for vertebra in self.vertebrae]
        return np.asarray(np.interp(z, heights[::-1], np.asarray(values)[::-1]), dtype=np.float32)

    def centre(self, z: Floats) -> tuple[Floats, Floats, Floats]:
        """Where the curve runs at height ``z``: x and y in mm, and the cosine of its sagittal tilt."""
        points = np.array([vertebra.centre_mm for vertebra in self.vertebrae])[::-1]
        curve = CubicSpline(points[:, 2], points[:, :2], bc_type="natural")
        within = np.clip(z, points[0, 2], points[-1, 2])
        slope = curve(within, 1)
        x, y = (curve(within) + slope * (z - within)[:, None]).T.astype(np.float32)
        return x, y, (1 / np.sqrt(1 + slope[:, 1] ** 2)).astype(np.float32)


def random_column(rng: np.random.Generator) -> Column:
    """Draw a subject's size, lordosis, pelvic tilt and scoliosis, and the shape and marrow fat of each vertebra."""
    n = len(LEVELS)
    size = np.exp(0.05 * np.clip(rng.normal(), -1.7, 1.7))
    slenderness = np.exp(rng.normal(0.0, 0.03))
    tilt = np.array(TILT_DEG) * rng.normal(1.0, 0.2) + rng.normal(0.0, 3.0) + rng.normal(0.0, 1.5, n)
    tilt = np.maximum(tilt, -55.0)  # the canal and the muscles are drawn along a column that still rises
    bend = np.linspace(-1.0, 1.0, n)
    scoliosis = 2.0 * np.clip(rng.standard_t(3), -4, 4)  # long-tailed: most columns are straight, a few are not
    roll = rng.normal(0.0, 2.0) + scoliosis * bend + rng.normal(0.0, 0.7, n)
    turn = rng.normal(0.0, 2.0) * bend
    axes = [m.T for m in Rotation.from_euler("xyz", np.stack([tilt, roll, turn], axis=1), degrees=True).as_matrix()]

    height = np.array(HEIGHT_MM) * size * slenderness * rng.normal(1.0, 0.02, n)
    degenerate = rng.random(n - 1) < np.array(DEGENERATE_SHARE)
    disc = np.array(DISC_MM) * size * rng.normal(1.0, 0.08, n - 1) * np.where(degenerate, 0.6, 1.0)
    wet, dry = rng.normal(1.06, 0.07), rng.normal(0.5, 0.12, n - 1)
    disc_signal = np.where(degenerate, dry, wet * rng.normal(1.0, 0.04, n - 1))

    centres = np.zeros((n, 3))
    for i in range(1, n):
        upper, lower = (axes[j][2] - LEAN * axes[j][1] for j in (i - 1, i))
        centres[i] = centres[i - 1] - upper * (height[i - 1] + disc[i - 1]) / 2 - lower * (height[i] + disc[i - 1]) / 2
    l3 = LEVELS.index("L3")
    centres += np.array([0.0, 9.0, 1.0]) + np.clip(rng.normal(size=3), -1.7, 1.7) * [4.5, 12.0, 10.0] - centres[l3]

    # The fat fraction of marrow rises downwards, by some 2 % a level; trabeculae shorten T2* of the water that is left.
    fat = rng.normal(0.38, 0.22) + 0.02 * (np.arange(n) - l3) + rng.normal(0.0, 0.04, n)
    return Column(
        tuple(
            Vertebra(
                level=level,
                centre_mm=centres[i],
                axes=axes[i],
                half_width_mm=float(WIDTH_MM[i] / 2 * size / slenderness * rng.normal(1.0, 0.015)),
                half_depth_mm=float(DEPTH_MM[i] / 2 * size / slenderness * rng.normal(1.0, 0.015)),
                half_height_mm=float(height[i] / 2),
                wedge=WEDGE[i] + rng.normal(0.0, 0.02),
                waist=rng.uniform(0.06, 0.13),
                concavity_mm=rng.uniform(1.0, 3.0),
                pedicle_radius_mm=float(PEDICLE_RADIUS_MM[i] * size),
                marrow=float(0.71 * np.clip(1 - fat[i], 0.2, 1.1)),
                disc=float(disc_signal[min(i, n - 2)]),
            )
            for i, level in enumerate(LEVELS)
        )
    )


def body_mm(vertebra: Vertebra, u: Floats, v: Floats, w: Floats, *, margin_mm: Floats | float = 0.0) -> Floats:
    """Approximate signed distance (mm, negative inside) to a vertebral body grown sideways by ``margin_mm``.

    Kidney-shaped in the axial plane (a superellipse hollowed at the back by the canal), narrower at mid-height, between
    two concave end-plates.
    """
    b = vertebra
    taper = 1 - b.waist * (1 - np.clip(w / b.half_height_mm, -1, 1) ** 2)
    s = np.abs(u) / (b.half_width_mm * taper + margin_mm)
    v = v + LEAN * w
    hollow = 3.0 * np.clip(1 - s**2, 0, 1) * (v < 0)
    t = np.abs(v - hollow) / (b.half_depth_mm * taper)
    radius = (s**2.5 + t**2.5) ** 0.4
    rim = b.half_height_mm * (1 + 0.5 * b.wedge * v / b.half_depth_mm)
    end_plate = np.abs(w) - rim + b.concavity_mm * np.clip(1 - radius**2, 0, 1)
    return _rounded((radius - 1) * b.half_depth_mm, end_plate, 2.5)


def disc_mm(upper: Vertebra, lower: Vertebra, x: Floats, y: Floats, z: Floats) -> Floats:
    """Approximate signed distance (mm) to a plate that fills the gap between two bodies, and overlaps both.

    Painted before the bodies, which then carve their concave end-plates out of it.
    """
    centre = (upper.centre_mm + lower.centre_mm) / 2
    axes = upper.axes + lower.axes
    axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    u, v, w = _rotated(x, y, z, centre, axes)
    width = (upper.half_width_mm + lower.half_width_mm) / 2
    depth = (upper.half_depth_mm + lower.half_depth_mm) / 2
    s = np.abs(u) / width
    t = np.abs(v - 2.0 * np.clip(1 - s**2, 0, 1) * (v < 0)) / depth
    return np.asarray(np.maximum(((s**2.5 + t**2.5) ** 0.4 - 1.0) * depth, np.abs(w) - 11.0))


def capsule_mm(
    u: Floats, v: Floats, w: Floats, start: Point, end: Point, radius_mm: float, flare_mm: float = 0.0
) -> Floats:
    """Signed distance (mm) to a rod with round ends from ``start`` to ``end``, ``flare_mm`` thicker at its end."""
    a, b, c = (stop - begin for begin, stop in zip(start, end, strict=True))
    p, q, r = u - start[0], v - start[1], w - start[2]
    along = np.clip((p * a + q * b + r * c) / (a * a + b * b + c * c), 0, 1)
    p, q, r = p - along * a, q - along * b, r - along * c
    return np.asarray(np.sqrt(p * p + q * q + r * r) - radius_mm - along * flare_mm)


def _rotated(
    x: Floats, y: Floats, z: Floats, origin: NDArray[np.float64], axes: NDArray[np.float64]
) -> tuple[Floats, Floats, Floats]:
    x, y, z = (points - float(start) for points, start in zip((x, y, z), origin, strict=True))
    # Python floats keep the arrays in single precision.
    u, v, w = (a * x + b * y + c * z for a, b, c in axes.tolist())
    return u, v, w


def _rounded(first: Floats, second: Floats, radius_mm: float) -> Floats:
    """Signed distance to the intersection of two shapes, its edge rounded off."""
    p, q = first + radius_mm, second + radius_mm
    return np.asarray(np.hypot(np.maximum(p, 0), np.maximum(q, 0)) + np.minimum(np.maximum(p, q), 0) - radius_mm)
