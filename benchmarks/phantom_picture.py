"""Draw the phantom of each region, beside real patients if asked.

    python benchmarks/phantom_picture.py                      # docs/images/phantom.png and phantom_cervical.png
    LOSSEVO_DATA=/data python benchmarks/phantom_picture.py --real myosegmentum vb2 --out /tmp/pictures

``--real NAME …`` draws the cohorts ``$LOSSEVO_DATA/NAME`` below the phantoms. A picture with real patients in it is for
looking at, not for committing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from lossevo.data import Cohort, Volume, phantom_cohort, read_cohort

PICTURES = Path(__file__).parents[1] / "docs" / "images"
NAMES = {"lumbar": "phantom.png", "cervical": "phantom_cervical.png"}
INCHES = 2.4


def figure(rows: Sequence[Sequence[Volume]], path: Path) -> None:
    """Per volume mid-sagittal without and with the labels, axial and coronal through a body; one column each."""
    # The longest side of every panel in mm decides how large the panels are beside each other.
    extents = [np.multiply(volumes[0].label.shape, volumes[0].spacing_mm) for volumes in rows]
    heights = [height for x, y, z in extents for height in (z / y, z / y, x / y, z / y)]
    columns = max(map(len, rows))
    size = (INCHES * columns, INCHES * sum(heights))
    fig, axes = plt.subplots(len(heights), columns, figsize=size, height_ratios=heights, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for row, volumes in enumerate(rows):
        for column, volume in enumerate(volumes):
            panels(volume, axes[4 * row : 4 * row + 4, column])
    fig.subplots_adjust(0, 0, 1, 1, 0.02, 0.02)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=60, facecolor="black")
    plt.close(fig)


def panels(volume: Volume, axes: Sequence[plt.Axes]) -> None:
    image, colours = volume.image[0], mpl.colormaps["tab10"]
    values = range(1, int(volume.label.max()) + 1)
    x, y, z = np.round(np.argwhere(volume.label == values[len(values) // 2]).mean(axis=0)).astype(int)
    sx, sy, sz = volume.spacing_mm
    sagittal, axial, coronal = (slice(x, x + 1), 0), (slice(z, z + 1), 2), (slice(y, y + 1), 1)
    shown = [(sagittal, sz / sy, False), (sagittal, sz / sy, True), (axial, sx / sy, True), (coronal, sz / sx, True)]
    for ax, ((where, axis), aspect, outlined) in zip(axes, shown, strict=True):
        index = tuple(where if i == axis else slice(None) for i in range(3))
        # Anterior to the left; in the coronal plane the patient's right.
        plane, label = (array[index].squeeze(axis)[::-1, ::-1] for array in (image, volume.label))
        if axis != 2:
            plane, label = plane.T, label.T
        ax.imshow(plane, cmap="gray", vmin=0, vmax=np.percentile(image, 99.5), aspect=aspect)
        for value in values if outlined else ():
            if (label == value).any():
                ax.contour(label == value, [0.5], colors=[colours((value - 1) % 10)], linewidths=0.7)


def first(cohort: Cohort, columns: int) -> list[Volume]:
    return [case.load() for case in cohort.cases[:columns]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PICTURES, help="folder of the pictures")
    parser.add_argument("--columns", type=int, default=6, help="subjects in a picture")
    parser.add_argument("--seed", type=int, default=0, help="seed of the phantom cohorts")
    parser.add_argument("--real", nargs="+", default=[], metavar="NAME", help="cohorts in $LOSSEVO_DATA; needs --out")
    options = parser.parse_args()
    if options.real and options.out.resolve() == PICTURES.resolve():
        parser.error("--real needs another --out: the committed pictures show no patients")
    if options.real and "LOSSEVO_DATA" not in os.environ:
        parser.error("--real needs LOSSEVO_DATA, the folder that holds the cohorts")

    real = [first(read_cohort(Path(os.environ["LOSSEVO_DATA"]) / name), options.columns) for name in options.real]
    for region, name in NAMES.items():
        phantoms = first(phantom_cohort(cases=options.columns, seed=options.seed, region=region), options.columns)
        figure([phantoms, *real], options.out / name)
        print(f"wrote {options.out / name}")


if __name__ == "__main__":
    main()
