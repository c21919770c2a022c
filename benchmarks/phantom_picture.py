"""Draw the phantom, and measure it beside a real cohort.

    python benchmarks/phantom_picture.py                      # writes docs/images/phantom.png (phantom only)
    python benchmarks/phantom_picture.py --calibration        # prints the phantom's figures
    LOSSEVO_DATA=/data python benchmarks/phantom_picture.py --real myosegmentum --out /tmp/beside.png --calibration

``--real NAME`` reads the nnU-Net cohort ``$LOSSEVO_DATA/NAME``, draws it below the phantom and adds its column to the
table. A picture with real patients in it is for looking at, not for committing.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lossevo.data.cohort import Cohort, Volume
from lossevo.data.nnunet import read_nnunet
from lossevo.data.phantom import phantom_cohort, phantom_volume

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "phantom.png"


def centre(volume: Volume, value: int) -> NDArray[np.float64]:
    """Centre of one labelled body, in voxels."""
    return np.argwhere(volume.label == value).mean(axis=0)


def figure(rows: list[list[Volume]], path: Path) -> None:
    """Three planes through L3 per volume (mid-sagittal twice, with and without the labels), one column per volume."""
    columns = len(rows[0])
    heights = [2.4, 2.4, 0.85, 2.4] * len(rows)
    fig, axes = plt.subplots(len(heights), columns, figsize=(2.4 * columns, sum(heights)), height_ratios=heights)
    colours = mpl.colormaps["tab10"]
    for row, volumes in enumerate(rows):
        for column, volume in enumerate(volumes):
            image = volume.image[0]
            x, y, z = np.round(centre(volume, 3)).astype(int)
            sx, sy, sz = volume.spacing_mm
            sagittal, axial, coronal = (slice(x, x + 1), 0), (slice(z, z + 1), 2), (slice(y, y + 1), 1)
            for panel, ((where, axis), aspect, contour) in enumerate(
                [
                    (sagittal, sz / sy, False),
                    (sagittal, sz / sy, True),
                    (axial, sx / sy, True),
                    (coronal, sz / sx, True),
                ]
            ):
                index = tuple(where if i == axis else slice(None) for i in range(3))
                # Anterior to the left; in the coronal plane the patient's right.
                plane, label = (array[index].squeeze(axis)[::-1, ::-1] for array in (image, volume.label))
                if axis != 2:
                    plane, label = plane.T, label.T
                ax = axes[4 * row + panel, column]
                ax.imshow(plane, cmap="gray", vmin=0, vmax=np.percentile(image, 99.5), aspect=aspect)
                for value in range(1, 6) if contour else ():
                    if (label == value).any():
                        ax.contour(label == value, [0.5], colors=[colours(value - 1)], linewidths=0.7)
                ax.axis("off")
    fig.subplots_adjust(0, 0, 1, 1, 0.02, 0.02)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=75, facecolor="black")
    plt.close(fig)


def measures(volume: Volume) -> Iterator[tuple[str, float]]:
    """Geometry in mm and cm³, and tissue signals in SDs of the image above its mean, read off around the labels."""
    image, label, spacing = volume.image[0], volume.label, np.array(volume.spacing_mm)
    z_score = (image - image.mean()) / image.std()
    centres = np.array([centre(volume, value) for value in range(1, 6)])

    def at(point: NDArray[np.float64], *offset_mm: float) -> float:
        i = np.round(point + np.array(offset_mm) / spacing).astype(int) if offset_mm else np.round(point).astype(int)
        box = tuple(slice(max(0, k - r), k + r + 1) for k, r in zip(i, (0, 2, 2), strict=True))
        patch = z_score[box]
        return float(np.median(patch)) if patch.size else float("nan")

    yield "foreground share", float((label > 0).mean())
    for value in range(1, 6):
        yield f"L{value} volume, cm³", float((label == value).sum() * spacing.prod() / 1000)
    yield "distance between bodies, mm", float(np.linalg.norm(np.diff(centres, axis=0) * spacing, axis=1).mean())
    yield "label width of L3, mm", float(np.ptp(np.where(label == 3)[0]) + 1) * spacing[0]
    for value in (1, 3, 5):
        yield f"body L{value}, SD", at(centres[value - 1])
    for value in range(1, 5):
        yield f"disc L{value}/{value + 1}, SD", at((centres[value - 1] + centres[value]) / 2)
    i = np.round(centres[2]).astype(int)
    behind = z_score[i[0], max(0, i[1] - round(45 / spacing[1])) : i[1] - round(15 / spacing[1]), i[2] - 3 : i[2] + 4]
    yield "canal at L3, SD", float(np.percentile(behind, 97))
    yield "psoas at L4, SD", float(np.nanmean([at(centres[3], hand * 36, 4, 0) for hand in (-1, 1)]))
    yield "back muscle at L3, SD", float(np.nanmean([at(centres[2], hand * 24, -62, 0) for hand in (-1, 1)]))
    yield "abdomen, SD", at(centres[2], 0, 55, 0)
    yield "within bodies, SD", float(z_score[label > 0].std())
    shell = ndimage.binary_dilation(label > 0, iterations=3) & ~ndimage.binary_dilation(label > 0)
    yield "shell around bodies, SD", float(z_score[shell].mean())
    core = ndimage.binary_erosion(label > 0, np.ones((1, 7, 7)))
    detail = z_score - ndimage.uniform_filter(z_score, (1, 3, 3))
    yield "fine texture in bodies, SD", float(1.4826 * np.median(np.abs(detail[core])))


def table(cohorts: dict[str, list[Volume]]) -> None:
    """Print mean and SD over subjects of every measure, one column per cohort."""
    columns = {name: [dict(measures(volume)) for volume in volumes] for name, volumes in cohorts.items()}
    print(f"{'mean (SD over subjects)':30}" + "".join(f"{name:>24}" for name in columns))
    for measure in next(iter(columns.values()))[0]:
        cells = [np.array([row[measure] for row in rows]) for rows in columns.values()]
        print(f"{measure:30}" + "".join(f"{np.nanmean(c):15.3f} ({np.nanstd(c):.3f})".rjust(24) for c in cells))


def timing() -> None:
    """Print the processor time one volume takes at the native and at the search's spacing."""
    for spacing in ((4.0, 1.0, 1.0), (4.0, 4.0, 4.0)):
        times = []
        for seed in range(8):
            start = time.process_time()
            phantom_volume(seed, spacing_mm=spacing)
            times.append(time.process_time() - start)
        print(f"one volume at {'×'.join(f'{s:g}' for s in spacing)} mm: median {np.median(times):.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PICTURE, help="where to write the picture")
    parser.add_argument("--columns", type=int, default=6, help="subjects in the picture")
    parser.add_argument("--seed", type=int, default=0, help="seed of the phantom cohort")
    parser.add_argument("--real", metavar="NAME", help="also read the cohort $LOSSEVO_DATA/NAME; needs --out")
    parser.add_argument("--calibration", action="store_true", help="print the table (38 phantoms, every real case)")
    arguments = parser.parse_args()
    if arguments.real and arguments.out.resolve() == PICTURE.resolve():
        parser.error("--real needs another --out: the committed picture shows no patients")
    if arguments.real and "LOSSEVO_DATA" not in os.environ:
        parser.error("--real needs LOSSEVO_DATA, the folder that holds the cohort")

    cohorts: dict[str, Cohort] = {"phantom": phantom_cohort(cases=38, seed=arguments.seed)}
    if arguments.real:
        cohorts[arguments.real] = read_nnunet(Path(os.environ["LOSSEVO_DATA"]) / arguments.real)
    shown = {name: [case.load() for case in cohort.cases[: arguments.columns]] for name, cohort in cohorts.items()}
    figure(list(shown.values()), arguments.out)
    print(f"wrote {arguments.out}")
    if arguments.calibration:
        table({name: [case.load() for case in cohort.cases] for name, cohort in cohorts.items()})
        timing()


if __name__ == "__main__":
    main()
