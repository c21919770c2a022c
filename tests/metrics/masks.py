"""Pairs of masks that tests compare: random, touching, thin, single voxels, at the border; 2D and 3D."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]

KINDS = ("noise", "blob", "thin", "voxel", "touching", "border")


class Pair(NamedTuple):
    """Two masks and their voxel size."""

    prediction: Mask
    reference: Mask
    spacing_mm: tuple[float, ...]


def false_voxels(prediction: NDArray[np.uint8], label: NDArray[np.uint8], classes: int) -> tuple[int | None, ...]:
    """The voxels predicted of each foreground class that a label lacks; None where it has the class."""
    return tuple(None if (label == c).any() else int((prediction == c).sum()) for c in range(1, classes))


def mask(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> Mask:
    """A mask that is not empty."""
    found = np.zeros(shape, bool)
    voxel = tuple(int(rng.integers(size)) for size in shape)
    match kind:
        case "noise":
            found = rng.random(shape) < rng.uniform(0.02, 0.98)
        case "blob":
            smooth = ndimage.gaussian_filter(rng.standard_normal(shape), 1.5)
            found = smooth > np.quantile(smooth, rng.uniform(0.3, 0.95))
        case "thin":
            found[voxel[0]] = True
            found[voxel] = False
        case "touching":
            corner = tuple(slice(max(0, at - 1), at + 1) for at in voxel)
            found[corner] = True
            found[tuple(slice(side.stop, side.stop + 1) for side in corner)] = True
        case "border":
            found[: voxel[0] + 1] = True
    found[voxel] |= not found.any()
    return found


@st.composite
def pairs(draw: st.DrawFn, *, dimensions: tuple[int, ...] = (2, 3)) -> Pair:
    """Two masks of one small shape with any voxel size."""
    axes = draw(st.sampled_from(dimensions))
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=axes, max_size=axes)))
    spacing = tuple(draw(st.lists(st.sampled_from([0.3, 0.75, 1.0, 1.7, 4.4]), min_size=axes, max_size=axes)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = [draw(st.sampled_from(KINDS)) for _ in range(2)]
    return Pair(mask(kinds[0], shape, rng), mask(kinds[1], shape, rng), spacing)
