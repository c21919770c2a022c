"""A subject being drawn: sub-voxels, what lies in them, and the scanner and the rater that look at it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lossevo.data.phantom.anatomy import Anatomy, Column, Floats, Point, Reals, random_column
from lossevo.data.phantom.shapes import body_mm, dens_mm
from lossevo.data.resampling import along


@dataclass(frozen=True, slots=True)
class Region:
    """A region of the spine with the scanner and the rater of the cohort that it imitates."""

    name: str
    channel: str
    anatomy: Anatomy
    draw: Callable[[Scene], None]
    field_of_view_mm: Point
    native_spacing_mm: Point
    training_spacing_mm: Point
    """A voxel size at which a training on a CPU is short and some voxels still lie across a body."""
    finest_mm: Point
    """Sub-voxels are about as large as this, or smaller."""
    point_spread_mm: Point
    """SD of the point spread function: acquired voxels are larger than stored ones."""
    mean_intensity: float
    noise_sd: float
    """Per voxel at the native spacing, before interpolation from the acquired to the stored voxels."""
    noise_spread_mm: float
    """SD of that interpolation in plane, which noise goes through as well."""
    rater_sd_mm: float
    """SD of a rater's outline about the true surface."""
    overreach_mm: tuple[float, float, float]
    """How far outlines go on sideways, where thick slices blur: mean, SD between subjects, SD between bodies."""
    slack_mm: tuple[float, float]
    """How generous outlines are all around: mean, SD between subjects."""


@dataclass(slots=True)
class Scene:
    """One subject on a grid of sub-voxels: where each lies, its signal, and its share of each outlined body."""

    region: Region
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
    signal: Floats = field(init=False)  # (nx, ny, nz)

    def __post_init__(self) -> None:
        self.column = random_column(self.region.anatomy, self.rng)
        x, y, z = (
            ((np.arange(n) - (n - 1) / 2) * pitch).astype(np.float32)
            for n, pitch in zip(self.shape, self.pitch_mm, strict=True)
        )
        self.x, self.y, self.z = x[:, None, None], y[None, :, None], z[None, None, :]
        column_x, column_y, cosine = self.column.centre(z)
        self.side, self.ahead = self.x - column_x, (self.y - column_y) * cosine
        self.signal = np.zeros(self.shape, np.float32)

    def along(self, values: Sequence[float] | NDArray[np.float64]) -> Floats:
        """A quantity given per level, at the height of each sub-voxel: (nz,)."""
        return self.column.along(self.z.ravel(), values)

    def around(self, centre_mm: NDArray[np.float64], reach_mm: Point) -> tuple[slice, ...]:
        """The slices that hold a box around a point, so that a small part costs little."""
        box = zip((self.x, self.y, self.z), centre_mm, reach_mm, strict=True)
        return tuple(slice(*np.searchsorted(axis.ravel(), (c - reach, c + reach))) for axis, c, reach in box)

    def points(self, where: tuple[slice, ...]) -> tuple[Floats, Floats, Floats]:
        """x, y and z (mm) of the sub-voxels in a window, ready to broadcast."""
        return self.x[where[0]], self.y[:, where[1]], self.z[:, :, where[2]]

    def coverage(self, distance_mm: Reals) -> Floats:
        """Share of a sub-voxel that lies inside a surface, from the signed distance of its centre."""
        return np.asarray(np.clip(0.5 - distance_mm / math.prod(self.pitch_mm) ** (1 / 3), 0, 1))

    def paint(self, distance_mm: Reals, signal: Reals | float, where: tuple[slice, ...] = (slice(None),) * 3) -> None:
        """Blend ``signal`` into what lies inside a surface; what is painted later covers what is there."""
        target = self.signal[where]
        target += self.coverage(distance_mm) * (signal - target)

    def texture(self, *knots_mm: float) -> Floats:
        """A random field, mean 0 and SD 1: cubic B-splines over white noise on knots that are fixed in space."""
        extents = self.region.field_of_view_mm
        counts = [round(extent / knot) + 6 for extent, knot in zip(extents, knots_mm, strict=True)]
        values: Floats = self.texture_rng.standard_normal(counts).astype(np.float32)
        for axis, (points, knot) in enumerate(zip((self.x, self.y, self.z), knots_mm, strict=True)):
            t = np.abs(points.reshape(-1, 1) / knot - (np.arange(counts[axis]) - (counts[axis] - 1) / 2))
            spline = np.where(t < 1, 4 - 6 * t**2 + 3 * t**3, np.clip(2 - t, 0, None) ** 3)
            spline /= np.sqrt((spline**2).sum(axis=1, keepdims=True))
            values = along(values, axis, spline.astype(np.float32))
        return values

    def outlines(self) -> Floats:
        """What a rater outlines, (labels, nx, ny, nz): each body, with an unsteady hand, and too far sideways."""
        region, rng = self.region, self.rng
        spread = np.clip(rng.normal(size=2), -2, 2).tolist()
        wide_mm, wide_sd_mm, uneven_mm = region.overreach_mm
        overreach_mm = wide_mm + spread[0] * wide_sd_mm
        slack_mm = region.slack_mm[0] + spread[1] * region.slack_mm[1]
        hand = np.float32(slack_mm) + region.rater_sd_mm * self.texture(8.0, 9.0, 9.0)
        shares = np.zeros((len(region.anatomy.labelled), *self.shape), np.float32)
        for share, level in zip(shares, region.anatomy.labelled, strict=True):
            vertebra = self.column[level]
            left, right, slip = rng.normal((overreach_mm, overreach_mm, 0.0), (uneven_mm, uneven_mm, 0.25)).tolist()
            where = self.around(vertebra.centre_mm, (60.0, 40.0, 40.0))
            u, v, w = vertebra.local(*self.points(where))
            seen = replace(vertebra, waist=0.0, concavity_mm=0.7 * vertebra.concavity_mm)
            outline = body_mm(seen, u, v, w, margin_mm=np.where(u < 0, np.float32(left), np.float32(right)))
            if level == "C2":
                outline = np.minimum(outline, dens_mm(vertebra, u, v, w))
            share[where] = self.coverage(outline - hand[where] - slip)
        return shares
