"""Distances between the surfaces of two masks in mm, and the metrics that come of them.

The surface of a mask consists of elements, one per cell of 2×2×2 voxels (2×2 in 2D) that lies partly in the mask. An
element sits at the cell's centre, a corner of the voxel grid, and has the area of :mod:`~.surface_elements`. Its
distance is that to the nearest element of the other surface. Outside of the image nothing is in a mask: a mask that
touches the border has a surface there.

This is the definition of google-deepmind/surface-distance (Nikolov et al., "Clinically applicable segmentation of head
and neck anatomy for radiotherapy", J Med Internet Res 2021, doi:10.2196/26151).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import edt
import numpy as np
import scipy
from numpy.typing import NDArray

from lossevo.metrics.surface_elements import element_areas, neighbour_codes

IMPLEMENTATION = (
    "lossevo.metrics: surface elements between voxel centres (marching cubes), weighted by area; distances between "
    "their centres in mm; a mask has a surface where it touches the border; as google-deepmind/surface-distance 0.1"
)
"""What a table says of its surface metrics."""

# A file stores 0.4 mm as 0.4000000059: five such voxels are within a tolerance of 2 mm.
TOLERANCE_SLACK = 1e-5
_SHARE_SLACK = 1e-9  # sums of areas are rounded: their order must not decide which element is at 95 %

# A distance transform of so many voxels takes about as long as the search of one element in a k-d tree.
_VOXELS_PER_SEARCH = 8


@dataclass(frozen=True)
class SurfaceDistances:
    """Distance of every surface element to the other surface, and its area, for both surfaces.

    Attributes:
        from_reference, from_prediction: mm, one per element of that surface.
        reference_areas, prediction_areas: mm² (2D: length in mm), in the same order.
    """

    from_reference: NDArray[np.float64]
    from_prediction: NDArray[np.float64]
    reference_areas: NDArray[np.float64]
    prediction_areas: NDArray[np.float64]

    def nsd(self, tolerance_mm: float) -> float:
        """Normalised surface Dice: the share of both surfaces' area that lies within a tolerance of the other.

        (|S_R within τ of S_P| + |S_P within τ of S_R|) / (|S_R| + |S_P|), |·| being area.
        """
        limit = tolerance_mm * (1 + TOLERANCE_SLACK)
        near = self.reference_areas[self.from_reference <= limit].sum()
        near += self.prediction_areas[self.from_prediction <= limit].sum()
        return float(near / self._area)

    def hd(self) -> float:
        """Hausdorff distance in mm: the largest distance of any element of either surface."""
        return float(max(self.from_reference.max(), self.from_prediction.max()))

    def hd95(self) -> float:
        """95 % Hausdorff distance in mm: the larger of the two surfaces' 95th percentiles, weighted by area."""
        return max(
            _percentile(self.from_reference, self.reference_areas, 0.95),
            _percentile(self.from_prediction, self.prediction_areas, 0.95),
        )

    def assd(self) -> float:
        """Average symmetric surface distance in mm: the mean over both surfaces together, weighted by area."""
        total = self.from_reference @ self.reference_areas + self.from_prediction @ self.prediction_areas
        return float(total / self._area)

    @property
    def _area(self) -> float:
        return float(self.reference_areas.sum() + self.prediction_areas.sum())


def surface_distances(
    prediction: NDArray[np.bool_], reference: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> SurfaceDistances:
    """The distances between the surfaces of two masks, 2D or 3D, computed once for all metrics, on one thread.

    Args:
        prediction: a mask, not empty. Whoever crops both masks to a box around both loses nothing.
        reference: another of the same shape.
        spacing_mm: distance between neighbouring voxels along each axis.

    Raises:
        ValueError: a mask is empty, so it has no surface; or shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, reference {reference.shape}")
    if not (prediction.any() and reference.any()):
        raise ValueError("an empty mask has no surface")
    area_of_code = element_areas(spacing_mm)
    surfaces = [_Surface(mask, area_of_code) for mask in (prediction, reference)]
    spacing = np.array(spacing_mm, np.float64)
    predicted, actual = surfaces
    return SurfaceDistances(
        from_reference=_distances(actual, predicted, spacing),
        from_prediction=_distances(predicted, actual, spacing),
        reference_areas=actual.areas,
        prediction_areas=predicted.areas,
    )


class _Surface:
    """Where a mask has surface elements: as a map of cells, as the cells' numbers, and their areas."""

    def __init__(self, mask: NDArray[np.bool_], area_of_code: NDArray[np.float64]) -> None:
        codes = np.ascontiguousarray(neighbour_codes(np.ascontiguousarray(mask)))
        # Neither 0 (all outside) nor the last code (all inside); 0 less 1 is 255.
        self.cells = codes - np.uint8(1) < np.uint8(area_of_code.size - 2)
        self.numbers = np.flatnonzero(self.cells)
        self.areas = area_of_code[codes.ravel()[self.numbers]]

    def points(self, numbers: NDArray[np.intp], spacing: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where cells lie, in mm."""
        return np.column_stack(np.unravel_index(numbers, self.cells.shape)) * spacing


def _distances(of: _Surface, to: _Surface, spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance in mm of each element of one surface to the nearest of another."""
    distances = np.zeros(of.numbers.size)
    apart = np.flatnonzero(~to.cells.ravel()[of.numbers])  # the others coincide
    numbers = of.numbers[apart]
    if numbers.size * _VOXELS_PER_SEARCH < to.cells.size:
        tree = scipy.spatial.cKDTree(
            to.points(to.numbers, spacing), leafsize=16, balanced_tree=False, compact_nodes=False
        )
        distances[apart] = tree.query(of.points(numbers, spacing))[0]
    elif numbers.size:  # surfaces everywhere, as of noise
        unit = spacing.min()  # edt computes in float32: with equal spacings in whole numbers, without rounding
        maps = edt.edt(~to.cells, anisotropy=tuple(spacing / unit), black_border=False, parallel=1)
        distances[apart] = maps.ravel()[numbers] * unit
    return distances


def _percentile(distances: NDArray[np.float64], areas: NDArray[np.float64], share: float) -> float:
    """The smallest distance that at least a share of the area does not exceed."""
    order = np.argsort(distances)
    area = np.cumsum(areas[order])
    return float(distances[order[np.searchsorted(area, (share - _SHARE_SLACK) * area[-1])]])
