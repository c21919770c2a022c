"""What it takes to bring a prediction back to the image's own grid: seconds a case, and the Dice that nothing exceeds.

::

    python benchmarks/original_grid.py
    python benchmarks/original_grid.py --data DIR --labels separate --spacing 4 --cases 6

Seconds are medians of repeated calls on random probabilities with foreground in a box of 15 % of the volume, and
everywhere. With ``--data`` the ceiling is measured: the exact share of each class in each voxel at the working spacing
is taken for a prediction. What is lost is lost by the resampling alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from lossevo.data import Volume, read_cohort
from lossevo.data.labels import label_scheme
from lossevo.data.original import OriginalLabel
from lossevo.data.resampling import Spacing, resample
from lossevo.metrics import evaluate, mean_over_cases
from lossevo.training.inference import Prediction
from lossevo.training.regrid import label_on_original

GRIDS: tuple[tuple[tuple[int, int, int], Spacing, float], ...] = (
    ((15, 512, 512), (4.0, 0.8, 0.8), 4.0),
    ((15, 512, 512), (4.4, 0.6, 0.6), 2.0),
    ((35, 50, 35), (1.0, 1.0, 1.0), 2.0),
)
CLASSES = (2, 20)
SHARE = 0.15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a data set; without it seconds are measured")
    parser.add_argument("--labels", default="separate")
    parser.add_argument("--spacing", type=float, default=4.0, help="working spacing in mm")
    parser.add_argument("--cases", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.data is None:
        Console().print(seconds_table(options.rounds))
    else:
        ceiling(options.data, options.labels, options.spacing, options.cases)


def seconds_table(rounds: int) -> Table:
    table = Table("own grid", "working spacing", *(f"{count} classes" for count in CLASSES), title="seconds a case")
    for shape, spacing_mm, working_mm in GRIDS:
        cells = [
            " ".join(
                form.format(seconds(shape, spacing_mm, working_mm, count, share, rounds))
                for share, form in ((SHARE, "{:.3f}"), (1.0, "({:.3f})"))
            )
            for count in CLASSES
        ]
        sizes = "×".join(map(str, shape)), "×".join(f"{side:g}" for side in spacing_mm)
        table.add_row(f"{sizes[0]}, {sizes[1]} mm", f"{working_mm:g} mm", *cells)
    return table


def seconds(
    shape: tuple[int, int, int], spacing_mm: Spacing, working_mm: float, classes: int, share: float, rounds: int
) -> float:
    """The median over ``rounds``; foreground lies in a box of so much of the volume."""
    to_mm = (working_mm, working_mm, working_mm)
    original = OriginalLabel.of(
        Volume("case", "case", np.empty((1, 0, 0, 0)), np.zeros(shape, np.uint8), spacing_mm), None
    )
    size = resample(np.zeros(shape, np.float32), spacing_mm, to_mm).shape
    logits = torch.randn((classes, *size), generator=torch.Generator().manual_seed(0))
    outside = torch.ones(size, dtype=torch.bool)
    outside[tuple(slice(0, max(1, round(side * share ** (1 / 3)))) for side in size)] = False
    logits[0][outside] = 50.0
    taken = []
    for _ in range(rounds):
        prediction = Prediction(logits, voting=False)
        start = time.perf_counter()
        label_on_original(prediction, to_mm, original)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def ceiling(data: Path, labels: str, working_mm: float, cases: int) -> None:
    cohort = read_cohort(data, labels=label_scheme(labels, None))
    names, to_mm = cohort.class_names, (working_mm, working_mm, working_mm)
    dice, taken = [], []
    for case in sorted(cohort.cases, key=lambda case: case.case_id)[:cases]:
        volume = case.load()
        shares = np.stack(
            [
                resample((volume.label == value).astype(np.float32), volume.spacing_mm, to_mm)
                for value in range(len(names))
            ]
        )
        start = time.perf_counter()
        label = label_on_original(
            Prediction(torch.from_numpy(shares), voting=True), to_mm, OriginalLabel.of(volume, None)
        )
        taken.append(time.perf_counter() - start)
        found = evaluate(label, volume.label, volume.spacing_mm, "dice", names[1:])
        dice.append([values["dice"] for values in found.values()])
    print(
        f"{cohort.name}, {len(dice)} cases, {len(names)} classes, {working_mm:g} mm: "
        f"mean Dice {mean_over_cases(dice):.3f}, {statistics.median(taken):.2f} s a case"
    )


if __name__ == "__main__":
    main()
