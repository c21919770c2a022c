"""Seconds of Dice, NSD, HD95 and ASSD of every class of a case: lossevo's, MONAI's and DeepMind's on the same masks.

``python benchmarks/metrics.py`` measures five classes in 64³ (1 mm) and 128³ (0.8 × 0.8 × 3.3 mm) voxels; medians of
rounds in which all take turns, one thread each. ``--shift 2`` moves the prediction by so many voxels. MONAI and
DeepMind take masks of each class; making them is not timed.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from monai import metrics as monai
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from surface_distance import metrics as deepmind

from lossevo.metrics import dice_per_class, evaluate
from lossevo.metrics.surface_elements import element_areas

CLASSES, TOLERANCE_MM = 5, 2.0
CASES = {"64³, 1 mm": (64, (1.0, 1.0, 1.0)), "128³, 0.8 × 0.8 × 3.3 mm": (128, (0.8, 0.8, 3.3))}

Labels = NDArray[np.uint8]
Masks = list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]


def scene(side: int, shift: float, stray: bool) -> tuple[Labels, Labels]:
    """Five ellipsoids with rough surfaces; the prediction is rough elsewhere, and may have stray voxels."""
    rng = np.random.default_rng(0)
    grid = np.indices((side,) * 3, dtype=np.float32) / side
    pair = []
    for moved in (shift / side, 0.0):
        labels = np.zeros((side,) * 3, np.uint8)
        rough = ndimage.gaussian_filter(rng.standard_normal(labels.shape).astype(np.float32), 2.0)
        rough *= 0.25 / rough.std()
        for number in range(CLASSES):
            centre = np.array((0.5 + moved, 0.3 + 0.4 * (number % 2), 0.15 + 0.17 * number))
            radii = np.array((0.22, 0.16, 0.08))
            square = (((grid - centre[:, None, None, None]) / radii[:, None, None, None]) ** 2).sum(0)
            labels[square + rough < 1] = number + 1
        pair.append(labels)
    prediction, reference = pair
    if stray:
        at = rng.integers(0, side, (3, 20))
        prediction[tuple(at)] = rng.integers(1, CLASSES + 1, 20)
    return prediction, reference


def by_monai(predicted: torch.Tensor, actual: torch.Tensor, spacing: tuple[float, ...]) -> None:
    whole = {"include_background": True, "spacing": spacing}
    monai.compute_dice(predicted, actual)
    monai.compute_surface_dice(predicted, actual, [TOLERANCE_MM] * CLASSES, use_subvoxels=True, **whole)
    monai.compute_hausdorff_distance(predicted, actual, percentile=95, **whole)
    monai.compute_average_surface_distance(predicted, actual, symmetric=True, **whole)


def by_deepmind(masks: Masks, spacing: tuple[float, ...]) -> None:
    for prediction, reference in masks:
        found = deepmind.compute_surface_distances(reference, prediction, spacing)
        deepmind.compute_dice_coefficient(reference, prediction)
        deepmind.compute_surface_dice_at_tolerance(found, TOLERANCE_MM)
        deepmind.compute_robust_hausdorff(found, 95)
        deepmind.compute_average_surface_distance(found)


def medians(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Milliseconds; the first round is for warming up."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, contender in contenders.items():
            start = time.perf_counter()
            contender()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(seconds[1:]) for name, seconds in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shift", type=float, default=1.0, help="voxels by which the prediction is off")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    element_areas((1.0, 1.0, 1.0))  # the table of areas is made once per process
    table = Table(title="Milliseconds per case of five classes: Dice, NSD at 2 mm, HD95 and ASSD")
    for column in ("case", "lossevo", "MONAI", "DeepMind", "MONAI / lossevo", "DeepMind / lossevo", "Dice alone"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for name, (side, spacing) in CASES.items():
        for stray in (False, True):
            prediction, reference = scene(side, arguments.shift, stray)
            masks = [(prediction == number, reference == number) for number in range(1, CLASSES + 1)]
            predicted, actual = (torch.from_numpy(np.stack(part))[None].float() for part in zip(*masks, strict=True))
            wanted = ["dice", f"nsd@{TOLERANCE_MM:g}mm", "hd95", "assd"]
            contenders: dict[str, Callable[[], object]] = {
                "lossevo": lambda p=prediction, r=reference, s=spacing, w=wanted: evaluate(p, r, s, w),
                "monai": lambda p=predicted, r=actual, s=spacing: by_monai(p, r, s),
                "deepmind": lambda m=masks, s=spacing: by_deepmind(m, s),
                "dice": lambda p=prediction, r=reference: dice_per_class(p, r, CLASSES + 1),
            }
            ms = medians(contenders, arguments.rounds)
            ratios = [f"{ms[other] / ms['lossevo']:.1f}" for other in ("monai", "deepmind")]
            shown = [f"{ms[column]:.0f}" for column in ("lossevo", "monai", "deepmind")]
            table.add_row(name + (", 20 stray voxels" if stray else ""), *shown, *ratios, f"{ms['dice']:.1f}")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
