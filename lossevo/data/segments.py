"""Segmentations of 3D Slicer: segments that overlap lie in several layers of one file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lossevo.data.stored import Segment, Stored, UnusableFile

_ADVICE = (
    "In 3D Slicer, export the segments as one label map (Segmentations, Export to files, Single file), or give one "
    "mask file per structure"
)


def segments_of(metadata: Mapping[str, str]) -> tuple[Segment, ...]:
    """The segments that the metadata of a ``.seg.nrrd`` file name (``Segment0_LabelValue``, ``Segment0_Layer``)."""
    segments = []
    for key, value in sorted(metadata.items()):
        match = re.fullmatch(r"(Segment\d+)_LabelValue", key)
        layer = metadata.get(f"{match[1]}_Layer", "0") if match else ""
        if match and value.strip().isdecimal() and layer.strip().isdecimal():
            name = metadata.get(f"{match[1]}_Name", match[1])
            segments.append(Segment(name, int(layer), int(value)))
    return tuple(segments)


def one_layer(stored: Stored, file: Path) -> NDArray[Any]:
    """A label's voxels (X, Y, Z); layers whose segments have values of their own and do not overlap become one.

    Raises:
        UnusableFile: they overlap, or what their values mean is not told.
    """
    voxels, segments = stored.voxels, stored.header.segments
    if voxels.ndim == 3:
        return voxels
    shape = "×".join(map(str, voxels.shape[:3]))
    what = f"{file}: {voxels.shape[3]} layers of {shape} voxels, expected one label map in 3D"
    if not segments:
        raise UnusableFile(f"{what} (and no segments of 3D Slicer are named). {_ADVICE}", "label-shape")
    first: dict[int, Segment] = {}
    for segment in segments:
        other = first.setdefault(segment.value, segment)
        if other.layer != segment.layer:
            told = f"segments '{other.name}' and '{segment.name}' both have the value {segment.value}"
            raise UnusableFile(f"{what}; {told}, in different layers. {_ADVICE}", "label-shape")
    for layer in range(voxels.shape[3]):
        named = {segment.value for segment in segments if segment.layer == layer}
        if unnamed := {int(value) for value in np.unique(voxels[..., layer])} - named - {0}:
            told = f"layer {layer} has the value {min(unnamed)}, which belongs to none of its segments"
            raise UnusableFile(f"{what}; {told}. {_ADVICE}", "label-shape")
    merged = voxels[..., 0].copy()
    for layer in range(1, voxels.shape[3]):
        inside = voxels[..., layer] != 0
        if overlap := np.count_nonzero(merged[inside]):
            names = ", ".join(f"'{segment.name}'" for segment in segments)
            raise UnusableFile(f"{what}; segments ({names}) overlap in {overlap} voxel(s). {_ADVICE}", "label-shape")
        merged[inside] = voxels[..., layer][inside]
    return merged


__all__ = ["one_layer", "segments_of"]
