"""A map of a search: its losses in the plane, those close together that pull a network alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from lossevo.search.surrogate.gaussian_process import Floats


@dataclass(frozen=True, slots=True)
class SearchMap:
    """Where each loss lies, and its colour.

    Attributes:
        names: of losses to be named on the map; empty for the others.
        x, y: coordinates; distances in the plane are about the square roots of D.
        scores: the larger the better; the colour.
        shown: the share of all squared distances that the plane shows.
    """

    names: tuple[str, ...]
    x: Floats
    y: Floats
    scores: Floats
    shown: float

    @classmethod
    def of(cls, names: Sequence[str], distances: Floats, scores: Sequence[float]) -> SearchMap:
        """The map of losses with these squared distances D (n, n)."""
        coordinates, shown = plane(distances)
        return cls(tuple(names), coordinates[:, 0], coordinates[:, 1], np.asarray(scores, np.float64), shown)


def plane(distances: Floats) -> tuple[Floats, float]:
    """Classical multidimensional scaling (Torgerson 1952) of squared distances (n, n): coordinates (n, 2) about their
    centre, and the share of all squared distances that they show.

    Along each axis the point farthest from the centre has a positive coordinate. Coordinates are rounded.
    """
    count = len(distances)
    coordinates = np.zeros((count, 2))
    if count < 2:
        return coordinates, 1.0
    rows = distances.mean(axis=1)
    products = -0.5 * (distances - rows[:, None] - rows[None, :] + rows.mean())
    values, vectors = eigh(products, subset_by_index=[count - 2, count - 1])
    for axis, (value, vector) in enumerate(zip(values[::-1], vectors.T[::-1], strict=True)):
        farthest = vector[np.round(np.abs(vector), 6).argmax()]
        coordinates[:, axis] = np.sqrt(max(value, 0.0)) * vector * (np.sign(farthest) or 1.0)
    total = float(np.trace(products))
    shown = float(np.clip(values, 0.0, None).sum()) / total if total > 0 else 1.0
    return np.round(coordinates, 6), shown
