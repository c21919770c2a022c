"""Approximate signed distances (mm, negative inside) to the shapes that a spine is drawn with."""

from __future__ import annotations

import numpy as np

from lossevo.data.phantom.anatomy import Floats, Point, Reals, Vertebra, rotated


def body_mm(vertebra: Vertebra, u: Floats, v: Floats, w: Floats, *, margin_mm: Floats | float = 0.0) -> Floats:
    """Distance to a vertebral body grown sideways by ``margin_mm``.

    Kidney-shaped in the axial plane (a superellipse hollowed at the back by the canal), narrower at mid-height, between
    two concave end-plates.
    """
    b = vertebra
    taper = 1 - b.waist * (1 - np.clip(w / b.half_height_mm, -1, 1) ** 2)
    s = np.abs(u) / (b.half_width_mm * taper + margin_mm)
    v = v + b.lean * w
    hollow = b.hollow_mm * np.clip(1 - s**2, 0, 1) * (v < 0)
    t = np.abs(v - hollow) / (b.half_depth_mm * taper)
    radius = (s**2.5 + t**2.5) ** 0.4
    rim = b.half_height_mm * (1 + 0.5 * b.wedge * v / b.half_depth_mm)
    end_plate = np.abs(w) - rim + b.concavity_mm * np.clip(1 - radius**2, 0, 1)
    return _rounded((radius - 1) * b.half_depth_mm, end_plate, b.edge_mm)


def dens_mm(axis: Vertebra, u: Floats, v: Floats, w: Floats) -> Floats:
    """Distance to the peg of C2, which stands on its body and leans back."""
    top, size = axis.half_height_mm, axis.half_width_mm / 9
    neck = (0.0, 0.5, top - 6 * size)
    return capsule_mm(u, v, w, neck, (0.0, -1.5, top + 12 * size), 5.2 * size, flare_mm=-0.6 * size)


def disc_mm(upper: Vertebra, lower: Vertebra, x: Floats, y: Floats, z: Floats) -> Floats:
    """Distance to a plate that fills the gap between two bodies, and overlaps both.

    Painted before the bodies, which then carve their concave end-plates out of it.
    """
    centre = (upper.centre_mm + lower.centre_mm) / 2
    axes = upper.axes + lower.axes
    axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    u, v, w = rotated(x, y, z, centre, axes)
    width = (upper.half_width_mm + lower.half_width_mm) / 2
    depth = (upper.half_depth_mm + lower.half_depth_mm) / 2
    s = np.abs(u) / width
    t = np.abs(v - 0.7 * upper.hollow_mm * np.clip(1 - s**2, 0, 1) * (v < 0)) / depth
    return np.asarray(np.maximum(((s**2.5 + t**2.5) ** 0.4 - 1.0) * depth, np.abs(w) - 0.8 * upper.half_height_mm))


def capsule_mm(
    u: Reals, v: Reals, w: Reals, start: Point, end: Point, radius_mm: float, flare_mm: float = 0.0
) -> Floats:
    """Distance to a rod with round ends from ``start`` to ``end``, ``flare_mm`` thicker at its end."""
    a, b, c = (stop - begin for begin, stop in zip(start, end, strict=True))
    p, q, r = u - start[0], v - start[1], w - start[2]
    along = np.clip((p * a + q * b + r * c) / (a * a + b * b + c * c), 0, 1)
    p, q, r = p - along * a, q - along * b, r - along * c
    return np.asarray(np.sqrt(p * p + q * q + r * r) - radius_mm - along * flare_mm)


def ellipse_mm(a: Reals, b: Reals, radius_a_mm: Reals | float, radius_b_mm: Reals | float) -> Floats:
    """Distance to an ellipse (or, with axes that broadcast to three dimensions, a tube) about the origin."""
    return np.asarray((np.hypot(a / radius_a_mm, b / radius_b_mm) - 1) * np.minimum(radius_a_mm, radius_b_mm))


def _rounded(first: Floats, second: Floats, radius_mm: float) -> Floats:
    """Distance to the intersection of two shapes, its edge rounded off."""
    p, q = first + radius_mm, second + radius_mm
    return np.asarray(np.hypot(np.maximum(p, 0), np.maximum(q, 0)) + np.minimum(np.maximum(p, q), 0) - radius_mm)
