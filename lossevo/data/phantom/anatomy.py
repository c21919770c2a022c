"""A random column: where each vertebra stands, how it is shaped, and how much water its marrow and its disc hold.

Coordinates are millimetres along RAS axes (x to the right, y anterior, z superior), origin in the middle of the field
of view. A vertebra's own axes (u right, v anterior, w superior) follow the column. Means per level start from the
literature named in ``docs/phantom.md``; they and the spreads between subjects are calibrated on real cohorts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Reals = NDArray[np.floating[Any]]  # float32 too, where the type checker loses track of it
Point = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Anatomy:
    """A region of the spine: means per level from head to foot, and the spreads between subjects."""

    levels: tuple[str, ...]
    labelled: tuple[str, ...]
    middle: str
    """The level that the column is placed by, at ``middle_mm``, with a spread of ``middle_sd_mm`` between subjects."""
    middle_mm: Point
    middle_sd_mm: Point

    width_mm: tuple[float, ...]
    depth_mm: tuple[float, ...]
    height_mm: tuple[float, ...]
    wedge: tuple[float, ...]
    """Anterior minus posterior height as a share of the mean height."""
    tilt_deg: tuple[float, ...]
    """How far the end-plates lean back, supine."""
    lean: float
    """How much further the line through the centres leans, as a slope."""
    pedicle_radius_mm: tuple[float, ...]
    disc_mm: tuple[float, ...]
    """Of the disc below each level but the last."""
    degenerate_share: tuple[float, ...]
    """Degenerate discs have lost height and water."""

    waist: tuple[float, float]
    """Range of how much narrower a body is at mid-height, as a share."""
    concavity_mm: tuple[float, float]
    """Range of the depth of an end-plate below its rim."""
    hollow_mm: float
    """How far the canal hollows the back of a body."""
    edge_mm: float
    """Radius of a body's rounded rim."""

    marrow_fat: tuple[float, float, float, float]
    """Mean, SD between subjects, rise per level downwards, SD between levels."""
    marrow_signal: tuple[float, float]
    """Of marrow without fat, and of its fat."""
    disc_wet: tuple[float, float, float]
    """Signal of a healthy nucleus: mean, SD between subjects, SD between levels."""
    disc_dry: tuple[float, float]
    """Signal of a degenerate nucleus: mean, SD between levels."""


LUMBAR = Anatomy(
    levels=("T11", "T12", "L1", "L2", "L3", "L4", "L5", "S1", "S2"),
    labelled=("L1", "L2", "L3", "L4", "L5"),
    middle="L3",
    middle_mm=(0.0, 9.0, 1.0),
    middle_sd_mm=(4.5, 12.0, 10.0),
    # Bodies after Panjabi et al. 1992, enlarged to the living cohort.
    width_mm=(39.0, 42.0, 44.5, 47.0, 49.5, 50.0, 46.5, 50.0, 42.0),
    depth_mm=(29.0, 31.0, 33.0, 34.0, 35.0, 35.5, 34.0, 31.0, 22.0),
    height_mm=(24.5, 26.0, 27.5, 28.0, 28.0, 27.5, 26.5, 29.0, 24.0),
    wedge=(-0.04, -0.04, -0.04, -0.01, 0.02, 0.05, 0.17, 0.12, 0.0),  # slightly kyphotic at L1, a clear wedge at L5
    tilt_deg=(9.0, 10.0, 11.0, 10.0, 5.5, -6.0, -19.0, -39.0, -50.0),
    lean=0.1,
    pedicle_radius_mm=(3.6, 3.8, 3.7, 3.8, 4.3, 5.2, 6.5, 0.0, 0.0),
    disc_mm=(5.5, 6.0, 6.5, 7.5, 8.5, 9.0, 9.0, 2.0),
    degenerate_share=(0.01, 0.01, 0.01, 0.01, 0.02, 0.13, 0.25, 1.0),
    waist=(0.06, 0.13),
    concavity_mm=(1.0, 3.0),
    hollow_mm=3.0,
    edge_mm=2.5,
    marrow_fat=(0.36, 0.22, 0.015, 0.03),
    marrow_signal=(0.71, 0.0),
    disc_wet=(1.0, 0.06, 0.03),
    disc_dry=(0.55, 0.12),
)

CERVICAL = Anatomy(
    levels=("C2", "C3", "C4", "C5", "C6", "C7", "T1", "T2", "T3", "T4"),
    labelled=("C2", "C3", "C4", "C5", "C6", "C7"),
    middle="C5",
    middle_mm=(0.0, 0.0, -2.0),
    middle_sd_mm=(1.5, 7.0, 5.0),
    # Bodies after Panjabi et al. 1991; C2 without its dens.
    width_mm=(17.5, 18.0, 18.5, 19.5, 21.0, 23.5, 26.0, 27.0, 27.0, 27.0),
    depth_mm=(15.0, 15.5, 15.5, 15.8, 16.3, 16.5, 17.0, 18.0, 19.0, 20.0),
    height_mm=(18.0, 13.8, 13.3, 12.9, 13.0, 14.3, 15.8, 17.2, 18.0, 18.5),
    wedge=(0.0, -0.05, -0.06, -0.06, -0.05, -0.03, -0.04, -0.04, -0.04, -0.04),
    tilt_deg=(1.0, -2.0, -5.0, -8.0, -12.0, -17.0, -22.0, -24.0, -23.0, -20.0),
    lean=0.0,
    pedicle_radius_mm=(3.5, 2.6, 2.6, 2.8, 3.0, 3.4, 4.0, 4.0, 3.8, 3.6),
    disc_mm=(4.8, 5.0, 5.2, 5.2, 5.4, 4.8, 3.8, 3.6, 3.6),
    degenerate_share=(0.1, 0.2, 0.3, 0.5, 0.5, 0.2, 0.05, 0.05, 0.05),
    waist=(0.04, 0.1),
    concavity_mm=(0.4, 1.4),
    hollow_mm=0.8,
    edge_mm=1.5,
    marrow_fat=(0.5, 0.15, 0.0, 0.025),
    marrow_signal=(0.25, 0.54),
    disc_wet=(0.5, 0.08, 0.04),
    disc_dry=(0.32, 0.05),
)


@dataclass(frozen=True, slots=True)
class Vertebra:
    """One vertebra; the signals of its marrow and of the disc below it are on the scale of its region's drawing."""

    level: str
    centre_mm: NDArray[np.float64]
    axes: NDArray[np.float64]  # rows: the unit vectors u, v, w in world coordinates
    half_width_mm: float
    half_depth_mm: float
    half_height_mm: float
    wedge: float
    lean: float
    waist: float
    concavity_mm: float
    hollow_mm: float
    edge_mm: float
    pedicle_radius_mm: float
    marrow: float
    disc: float

    def local(self, x: Floats, y: Floats, z: Floats) -> tuple[Floats, Floats, Floats]:
        """The point (x, y, z) in this vertebra's own axes (u right, v anterior, w superior)."""
        return rotated(x, y, z, self.centre_mm, self.axes)


@dataclass(frozen=True, slots=True)
class Column:
    """The vertebrae from head to foot, and the smooth curve through their centres."""

    vertebrae: tuple[Vertebra, ...]

    def __getitem__(self, level: str) -> Vertebra:
        return next(vertebra for vertebra in self.vertebrae if vertebra.level == level)

    def along(self, z: Floats, values: Sequence[float] | NDArray[np.float64]) -> Floats:
        """A quantity given per level, interpolated at height ``z``, constant beyond the ends."""
        heights = [vertebra.centre_mm[2] for vertebra in self.vertebrae]
        return np.asarray(np.interp(z, heights[::-1], np.asarray(values)[::-1]), dtype=np.float32)

    def centre(self, z: Floats) -> tuple[Floats, Floats, Floats]:
        """Where the curve runs at height ``z``: x and y in mm, and the cosine of its sagittal tilt."""
        points = np.array([vertebra.centre_mm for vertebra in self.vertebrae])[::-1]
        curve = scipy.interpolate.CubicSpline(points[:, 2], points[:, :2], bc_type="natural")
        within = np.clip(z, points[0, 2], points[-1, 2])
        slope = curve(within, 1)
        x, y = (curve(within) + slope * (z - within)[:, None]).T.astype(np.float32)
        return x, y, (1 / np.sqrt(1 + slope[:, 1] ** 2)).astype(np.float32)


def random_column(anatomy: Anatomy, rng: np.random.Generator) -> Column:
    """Draw a subject's size, curvature, pelvic tilt and scoliosis, and the shape and marrow fat of each vertebra."""
    a, n = anatomy, len(anatomy.levels)
    size = np.exp(0.05 * np.clip(rng.normal(), -1.7, 1.7))
    slenderness = np.exp(rng.normal(0.0, 0.03))
    tilt = np.array(a.tilt_deg) * rng.normal(1.0, 0.2) + rng.normal(0.0, 3.0) + rng.normal(0.0, 1.5, n)
    tilt = np.maximum(tilt, -55.0)  # the canal and the muscles are drawn along a column that still rises
    bend = np.linspace(-1.0, 1.0, n)
    scoliosis = 2.0 * np.clip(rng.standard_t(3), -4, 4)  # long-tailed: most columns are straight, a few are not
    roll = rng.normal(0.0, 2.0) + scoliosis * bend + rng.normal(0.0, 0.7, n)
    turn = rng.normal(0.0, 2.0) * bend
    angles = np.stack([tilt, roll, turn], axis=1)
    turned = scipy.spatial.transform.Rotation.from_euler("xyz", angles, degrees=True)
    axes = [m.T for m in turned.as_matrix()]

    height = np.array(a.height_mm) * size * slenderness * rng.normal(1.0, 0.02, n)
    degenerate = rng.random(n - 1) < np.array(a.degenerate_share)
    disc = np.array(a.disc_mm) * size * rng.normal(1.0, 0.08, n - 1) * np.where(degenerate, 0.6, 1.0)
    wet, dry = rng.normal(*a.disc_wet[:2]), rng.normal(*a.disc_dry, n - 1)
    disc_signal = np.where(degenerate, np.minimum(dry, wet), wet * rng.normal(1.0, a.disc_wet[2], n - 1))

    centres = np.zeros((n, 3))
    for i in range(1, n):
        upper, lower = (axes[j][2] - a.lean * axes[j][1] for j in (i - 1, i))
        centres[i] = centres[i - 1] - upper * (height[i - 1] + disc[i - 1]) / 2 - lower * (height[i] + disc[i - 1]) / 2
    middle = a.levels.index(a.middle)
    centres += np.array(a.middle_mm) + np.clip(rng.normal(size=3), -1.7, 1.7) * a.middle_sd_mm - centres[middle]

    red, yellow = a.marrow_signal
    mean_fat, subject_sd, rise, level_sd = a.marrow_fat
    fat = rng.normal(mean_fat, subject_sd) + rise * (np.arange(n) - middle) + rng.normal(0.0, level_sd, n)
    return Column(
        tuple(
            Vertebra(
                level=level,
                centre_mm=centres[i],
                axes=axes[i],
                half_width_mm=float(a.width_mm[i] / 2 * size / slenderness * rng.normal(1.0, 0.015)),
                half_depth_mm=float(a.depth_mm[i] / 2 * size / slenderness * rng.normal(1.0, 0.015)),
                half_height_mm=float(height[i] / 2),
                wedge=a.wedge[i] + rng.normal(0.0, 0.02),
                lean=a.lean,
                waist=rng.uniform(*a.waist),
                concavity_mm=rng.uniform(*a.concavity_mm),
                hollow_mm=a.hollow_mm,
                edge_mm=a.edge_mm,
                pedicle_radius_mm=float(a.pedicle_radius_mm[i] * size),
                marrow=float(red + (yellow - red) * np.clip(fat[i], -0.1, 0.8)),
                disc=float(disc_signal[min(i, n - 2)]),
            )
            for i, level in enumerate(a.levels)
        )
    )


def rotated(
    x: Floats, y: Floats, z: Floats, origin: NDArray[np.float64], axes: NDArray[np.float64]
) -> tuple[Floats, Floats, Floats]:
    """The point (x, y, z) in the coordinate system with this origin and these axes (rows)."""
    x, y, z = (points - float(start) for points, start in zip((x, y, z), origin, strict=True))
    # Python floats keep the arrays in single precision.
    u, v, w = (a * x + b * y + c * z for a, b, c in axes.tolist())
    return u, v, w
