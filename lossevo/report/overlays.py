"""Pictures of cases with their labels over the image: three planes per case, and a contact sheet of the cohort."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from numpy.typing import NDArray

from lossevo.data import Volume
from lossevo.report.style import GREY

# Okabe & Ito 2008 in an order in which neighbours differ, without black and with a blue that is seen on dark tissue.
COLOURS = ("#56B4E9", "#E69F00", "#2BD4A0", "#F0E442", "#E58BC0", "#FF7F50", "#7A9BFF")
FILL = 0.28
CONTRAST_PERCENTILES = (1.0, 99.5)
MOST_CHANNELS = 4
MOST_IN_LEGEND = 24

Plane = Literal["sagittal", "coronal", "axial"]
# Plane -> the axis it is cut across, and what lies left, right, above and below: as radiologists hold them, the
# patient's front or right to the left.
PLANES: dict[Plane, tuple[int, tuple[str, str, str, str]]] = {
    "sagittal": (0, ("A", "P", "S", "I")),
    "coronal": (1, ("R", "L", "S", "I")),
    "axial": (2, ("R", "L", "A", "P")),
}


@dataclass(frozen=True, slots=True)
class Slice:
    """A plane of a case: grey values 0 to 1 and classes, both (rows from the bottom, columns), and the pixel's size."""

    grey: NDArray[np.float32]
    label: NDArray[np.uint8]
    pixel_mm: tuple[float, float]

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height."""
        rows, columns = self.grey.shape
        return (columns * self.pixel_mm[1], rows * self.pixel_mm[0])


def cut(volume: Volume, plane: Plane, channel: int = 0) -> Slice:
    """The slice that shows most of all classes (Σ √voxels), or the middle one if there is no label."""
    axis, _ = PLANES[plane]
    others = tuple({0, 1, 2} - {axis})
    shown = np.zeros(volume.label.shape[axis])
    for value in np.unique(volume.label[volume.label > 0]):
        shown += np.sqrt(np.count_nonzero(volume.label == value, axis=others))
    index = int(shown.argmax()) if shown.any() else volume.label.shape[axis] // 2
    column_mm, row_mm = (side for other, side in enumerate(volume.spacing_mm) if other != axis)
    # The first axis points right or forward: reversed it runs to the left or back.
    grey, label = (np.moveaxis(voxels, axis, 0)[index].T[:, ::-1] for voxels in (volume.image[channel], volume.label))
    low, high = _window(volume.image[channel], volume.label)
    shades = np.clip((np.nan_to_num(grey) - low) / max(high - low, 1e-12), 0, 1).astype(np.float32)
    return Slice(shades, label, (row_mm, column_mm))


def case_figure(volume: Volume, class_names: Sequence[str], channel_names: Sequence[str]) -> Figure:
    """Three planes in true proportions, one row per channel, labels as transparent colour with an outline."""
    rows = range(min(len(volume.image), MOST_CHANNELS))
    entries = _legend_entries(volume, class_names)
    legend_inches = 0.35 + 0.075 * max(len(str(entry.get_label())) for entry in entries)
    gap, head = 0.12, 0.3
    sizes_mm = [cut(volume, plane).size_mm for plane in PLANES]
    wide_mm, high_mm = sum(wide for wide, _ in sizes_mm), max(high for _, high in sizes_mm)
    # Inches per mm, the same in all planes.
    scale = min(9.0 / wide_mm, 7.5 / (len(rows) * high_mm))
    width = scale * wide_mm + 4 * gap + legend_inches
    height = head + len(rows) * (scale * high_mm + gap)
    figure = Figure(figsize=(width, height))
    for row in rows:
        left, top = gap, height - head - row * (scale * high_mm + gap)
        for plane, size_mm in zip(PLANES, sizes_mm, strict=True):
            wide, high = (scale * side for side in size_mm)
            axes = figure.add_axes((left / width, (top - high) / height, wide / width, high / height))
            first = plane == "sagittal"
            part = cut(volume, plane, row)
            draw(axes, part, names=class_names if first and row == 0 else ())
            _directions(axes, PLANES[plane][1])
            if first:
                _scale_bar(axes, part)
            if first and len(rows) > 1:
                _write(axes, 0.01, 0.99, channel_names[row], ha="left", va="top")
            left += wide + gap
    line = 1 - head / 2 / height
    subject = f"subject {volume.subject}, " if volume.subject != volume.case_id else ""
    voxels = f"{_times(volume.label.shape)} voxels of {_times(volume.spacing_mm)} mm"
    figure.text(gap / width, line, volume.case_id, weight="bold", fontsize=10, va="center")
    figure.text((left - gap) / width, line, subject + voxels, ha="right", va="center", fontsize=8, color=GREY)
    legend = figure.legend(
        handles=entries,
        labels=[" "] * len(entries),  # written below: a label that begins with an underscore would be left out
        loc="upper left",
        bbox_to_anchor=(left / width, 1 - head / height),
        fontsize=8,
        borderaxespad=0,
        handlelength=1,
    )
    for written, entry in zip(legend.get_texts(), entries, strict=True):
        written.set_text(str(entry.get_label()))
    return figure


def contact_sheet(
    thumbnails: Sequence[tuple[str, Slice | None]], title: str, *, columns: int = 8, cell_inches: float = 1.6
) -> Figure:
    """The sagittal slices of many cases; a case that cannot be shown (None) has an empty cell that says so."""
    columns = min(columns, len(thumbnails))
    rows = math.ceil(len(thumbnails) / columns)
    proportion = np.median([part.size_mm[1] / part.size_mm[0] for _, part in thumbnails if part] or [1.0])
    cell_high = cell_inches * float(np.clip(proportion, 0.6, 1.8)) + 0.14
    figure = Figure(
        figsize=(columns * cell_inches, rows * cell_high + 0.3),
        layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0),
    )
    figure.suptitle(title, fontsize=10, weight="bold", x=0.01, ha="left")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(thumbnails) :]:
        axes.set_axis_off()
    for axes, (name, part) in zip(grid.flat, thumbnails, strict=False):
        axes.set_title(name if len(name) <= 22 else f"…{name[-21:]}", fontsize=7, weight="normal", pad=2)
        if part is None:
            axes.set_axis_off()
            axes.text(0.5, 0.5, "cannot be read", ha="center", va="center", fontsize=8, color="#D55E00")
        else:
            draw(axes, part, line_width=0.5)
    return figure


def draw(axes: Axes, part: Slice, *, names: Sequence[str] = (), line_width: float = 0.9) -> None:
    """A slice in mm with its labels; ``names`` are written into the structures."""
    wide, high = part.size_mm
    picture = np.repeat(part.grey[..., None], 3, axis=2)
    outlines, colours = [], []
    for value in map(int, np.unique(part.label[part.label > 0])):
        mask = part.label == value
        colour = colour_of(value)
        picture[mask] = (1 - FILL) * picture[mask] + FILL * _rgb(colour)
        edges = outline(mask, part.pixel_mm)
        outlines += edges
        colours += [colour] * len(edges)
        if names and len(names) > 2:
            row, column = np.argwhere(mask).mean(axis=0) + 0.5
            text = axes.text(
                column * part.pixel_mm[1],
                row * part.pixel_mm[0],
                names[value],
                color="white",
                fontsize=7,
                ha="center",
                va="center",
            )
            text.set_path_effects([patheffects.withStroke(linewidth=1.5, foreground="black")])
    axes.imshow(picture, origin="lower", extent=(0, wide, 0, high), interpolation="nearest", aspect="equal")
    axes.add_collection(LineCollection(outlines, colors=colours, linewidths=line_width))
    axes.set(xlim=(0, wide), ylim=(0, high), xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def outline(mask: NDArray[np.bool_], pixel_mm: tuple[float, float]) -> list[list[tuple[float, float]]]:
    """The border of a mask along its pixels' sides: segments of (x, y) in mm."""
    row_mm, column_mm = pixel_mm
    around = np.pad(mask, 1)
    segments: list[list[tuple[float, float]]] = []
    for row, column in np.argwhere(around[1:-1, 1:] != around[1:-1, :-1]):
        segments.append([(column * column_mm, row * row_mm), (column * column_mm, (row + 1) * row_mm)])
    for row, column in np.argwhere(around[1:, 1:-1] != around[:-1, 1:-1]):
        segments.append([(column * column_mm, row * row_mm), ((column + 1) * column_mm, row * row_mm)])
    return segments


def colour_of(value: int) -> str:
    """The colour of a class, the same in every picture."""
    return COLOURS[(value - 1) % len(COLOURS)]


def _rgb(colour: str) -> NDArray[np.float32]:
    return np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)], dtype=np.float32)


def _window(image: NDArray[np.float32], label: NDArray[np.uint8]) -> tuple[float, float]:
    """Black and white: percentiles of the signal in a box around the label, as fat near the coil outshines the rest."""
    box: tuple[slice, ...] = (slice(None),) * 3
    if label.any():
        ends = [np.flatnonzero(label.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]] for axis in range(3)]
        margins = [(stop - start + 1) // 4 for start, stop in ends]
        box = tuple(slice(max(0, a - gap), b + gap + 1) for (a, b), gap in zip(ends, margins, strict=True))
    signal = image[box]
    signal = signal[np.isfinite(signal) & (signal != 0)]
    low, high = np.percentile(signal, CONTRAST_PERCENTILES) if signal.size else (0.0, 1.0)
    return float(low), float(high)


def _write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """White letters that are seen on bright tissue too; x and y are shares of the panel."""
    written = axes.text(x, y, text, transform=axes.transAxes, color="white", fontsize=7, **style)
    written.set_path_effects([patheffects.withStroke(linewidth=1.2, foreground="black")])


def _directions(axes: Axes, letters: tuple[str, str, str, str]) -> None:
    left, right, top, bottom = letters
    _write(axes, 0.01, 0.5, left, ha="left", va="center")
    _write(axes, 0.99, 0.5, right, ha="right", va="center")
    _write(axes, 0.5, 0.99, top, ha="center", va="top")
    _write(axes, 0.5, 0.01, bottom, ha="center", va="bottom")


def _scale_bar(axes: Axes, part: Slice) -> None:
    wide, high = part.size_mm
    length_mm = 50 if wide > 120 else 10
    axes.plot([0.97 * wide - length_mm, 0.97 * wide], [0.02 * high] * 2, color="white", linewidth=1.5)
    _write(axes, 0.97 - length_mm / 2 / wide, 0.03, f"{length_mm} mm", ha="center", va="bottom")


def _legend_entries(volume: Volume, class_names: Sequence[str]) -> list[Patch]:
    """Names and volumes of the classes that the case has."""
    voxel_cm3 = math.prod(volume.spacing_mm) / 1000
    values, counts = np.unique(volume.label[volume.label > 0], return_counts=True)
    entries = [
        Patch(color=colour_of(int(value)), label=f"{class_names[value]}  {count * voxel_cm3:.3g} cm³")
        for value, count in zip(values[:MOST_IN_LEGEND], counts, strict=False)
    ]
    if len(values) > MOST_IN_LEGEND:
        entries.append(Patch(color="none", label=f"and {len(values) - MOST_IN_LEGEND} more"))
    return entries or [Patch(color="none", label="no label")]


def _times(numbers: Sequence[float]) -> str:
    """``1×1×4``."""
    return "×".join(f"{number:.4g}" for number in numbers)
