"""The area of the surface between voxel centres: marching cubes on binary masks, in 3D, and marching squares in 2D.

A cell is the block of 2×2×2 voxel centres (2×2 in 2D) around a corner of the voxel grid. Which of its voxels are in
the mask is its code, a sum of bits. Code → area is a table of 256 values (2D: code → length, 16 values).
The table equals that of google-deepmind/surface-distance, for every spacing; it is computed here from the geometry:

1. The surface crosses an edge of the cell at its middle, where one end is inside the mask and the other is not.
2. It separates the voxels that are fewer: inside, or outside where more than half of the cell is inside.
3. On a face of the cell, a line cuts off each run of neighbouring voxels of that kind.
4. The lines form closed polygons. A polygon is cut into the triangles with the largest total area in a cubic cell.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

_Point = tuple[float, ...]
_Vector = NDArray[np.float64]
_RING = ((0, 0), (1, 0), (1, 1), (0, 1))  # the corners of a face, in turn


def neighbour_codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The code of every cell; an axis of n voxels has n + 1 cells, since outside of the array nothing is in the mask.

    The voxel at offset (o₀, o₁, o₂) in a cell has the bit 2^(o₀ + 2·o₁ + 4·o₂).
    """
    codes: NDArray[np.uint8] = np.pad(mask.view(np.uint8), 1)
    for axis in range(mask.ndim):
        along = np.moveaxis(codes, axis, 0)
        codes = np.moveaxis(along[:-1] | (along[1:] << np.uint8(1 << axis)), 0, axis)
    return codes


def element_areas(spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Area in mm² (2D: length in mm) of the surface in a cell, by its code."""
    spacing = np.array(spacing_mm, np.float64)
    scale = spacing if spacing.size == 2 else spacing.prod() / spacing
    areas: NDArray[np.float64] = np.linalg.norm(_pieces(spacing.size) * scale, axis=-1).sum(axis=-1)
    return areas


@cache
def _pieces(dimensions: int) -> NDArray[np.float64]:
    """By code, the pieces of the surface in a cell of side 1, filled up with zeros.

    A piece is a triangle's area vector (2D: a line's vector). A cell with other sides scales it component by component.
    """
    of_code = _lines_of_square if dimensions == 2 else _triangles_of_cube
    found = [list(of_code(code)) for code in range(2**2**dimensions)]
    pieces = np.zeros((len(found), max(map(len, found)), dimensions))
    for code, vectors in enumerate(found):
        for number, vector in enumerate(vectors):
            pieces[code, number] = vector
    return pieces


def _lines_of_square(code: int) -> Iterator[_Vector]:
    for start, end in _face_lines(_separated(code, 2), _RING):
        yield np.subtract(end, start)


def _triangles_of_cube(code: int) -> Iterator[_Vector]:
    separated = _separated(code, 3)
    lines: list[tuple[_Point, _Point]] = []
    for axis, side in itertools.product(range(3), (0, 1)):
        lines += _face_lines(separated, [(*pair[:axis], side, *pair[axis:]) for pair in _RING])
    for polygon in _polygons(lines):
        yield from _largest(np.array(polygon))


def _separated(code: int, dimensions: int) -> set[tuple[int, ...]]:
    """The voxels of a cell that the surface separates from the others: those that are fewer."""
    inside: set[tuple[int, ...]] = set()
    outside: set[tuple[int, ...]] = set()
    for offset in itertools.product((0, 1), repeat=dimensions):
        bit = 1 << sum(step << axis for axis, step in enumerate(offset))
        (inside if code & bit else outside).add(offset)
    return inside if len(inside) <= len(outside) else outside


def _face_lines(separated: set[tuple[int, ...]], ring: Sequence[tuple[int, ...]]) -> Iterator[tuple[_Point, _Point]]:
    """The lines that cut off each run of separated voxels around a face, between middles of its edges."""
    for first in range(4):
        if ring[first] in separated and ring[first - 1] not in separated:
            last = next(last for last in range(first, first + 4) if ring[(last + 1) % 4] not in separated)
            yield _middle(ring[first - 1], ring[first]), _middle(ring[last % 4], ring[(last + 1) % 4])


def _middle(one: tuple[int, ...], other: tuple[int, ...]) -> _Point:
    return tuple((a + b) / 2 for a, b in zip(one, other, strict=True))


def _polygons(lines: Iterable[tuple[_Point, _Point]]) -> Iterator[list[_Point]]:
    """The lines joined to closed polygons; every point is the end of two lines, one on each face at its edge."""
    ends: dict[_Point, list[_Point]] = {}
    for start, end in lines:
        ends.setdefault(start, []).append(end)
        ends.setdefault(end, []).append(start)
    while ends:
        polygon: list[_Point] = []
        point: _Point | None = next(iter(ends))
        while point is not None:
            polygon.append(point)
            point = next((end for end in ends.pop(point) if end in ends), None)
        yield polygon


def _largest(polygon: NDArray[np.float64]) -> list[_Vector]:
    """Area vectors of the triangles that a polygon is cut into, with the largest total area."""
    if len(polygon) < 3:
        return []

    def cut(at: int) -> list[_Vector]:
        triangle = np.cross(polygon[at] - polygon[0], polygon[-1] - polygon[0]) / 2
        return [triangle, *_largest(polygon[: at + 1]), *_largest(polygon[at:])]

    # Cuts of equal area in a cubic cell have equal areas in every other.
    return max(map(cut, range(1, len(polygon) - 1)), key=lambda vectors: sum(map(np.linalg.norm, vectors)))
