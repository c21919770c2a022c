"""Measure the phantom beside the real cohorts: geometry, contrast, noise, bias, sharpness, and how losses fare on both.

    LOSSEVO_DATA=/data python benchmarks/phantom.py --quick      # no training; without LOSSEVO_DATA the phantoms alone
    LOSSEVO_DATA=/data python benchmarks/phantom.py              # and 30 trainings a column, a minute each on one core
    python benchmarks/phantom.py --only phantom-lumbar myosegmentum --seeds 3

The columns are the two phantoms, ``$LOSSEVO_DATA/myosegmentum`` (lumbar, water image: what the lumbar phantom is fitted
to) and ``$LOSSEVO_DATA/vb2`` (thoracolumbar, T2 TSE: the contrast of the cervical phantom, not its geometry). Signals
are in standard deviations of the image above its mean. Where tissues lie is derived from the labels alone and alike for
all cohorts, in the axes of each vertebral body (see :func:`tissues`).
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from scipy.stats import kendalltau, rankdata

from lossevo.cluster import Job, WorkerSpec, open_executor
from lossevo.data import MERGED, Cohort, Volume, k_folds, phantom_cohort, prepare, read_cohort, relabel
from lossevo.data.phantom import REGIONS
from lossevo.training import Fidelity, Measurement, Split, TaskSettings, Trial, make_training_data

LOSSES = ("dice_ce", "dice", "cross_entropy", "focal", "tversky")
BUDGETS = (75, 150)
FOLDS = 3
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Body:
    """One labelled body: its mask, centre (mm), sagittal axes (anterior, superior), depth and height (mm)."""

    mask: Mask
    centre_mm: NDArray[np.float64]
    ahead: NDArray[np.float64]
    up: NDArray[np.float64]
    back_mm: float
    front_mm: float
    height_mm: float


@dataclass(frozen=True, slots=True)
class Reach:
    """Where to look for a tissue, in mm sideways from a body's centre and behind its posterior wall."""

    canal_behind_mm: tuple[float, float]
    muscle_behind_mm: tuple[float, float]
    muscle_aside_mm: tuple[float, float]


REACH = {
    "lumbar": Reach((3.0, 13.0), (34.0, 54.0), (14.0, 26.0)),
    "cervical": Reach((2.0, 13.0), (24.0, 42.0), (10.0, 22.0)),
}


def bodies(volume: Volume) -> list[Body]:
    """The labelled bodies from head to foot; one class for all of them is taken apart where it hangs together."""
    label, spacing = volume.label, np.array(volume.spacing_mm)
    if label.max() == 1:
        label, _ = ndimage.label(ndimage.binary_opening(label, np.ones((1, 3, 3))))
    sizes = np.bincount(label.ravel())[1:]
    values = [value for value, size in enumerate(sizes, start=1) if size > 0.3 * np.median(sizes[sizes > 0])]
    points = {value: np.argwhere(label == value) * spacing for value in values}
    values.sort(key=lambda value: -points[value][:, 2].mean())
    centres = np.array([points[value].mean(axis=0) for value in values])
    found = []
    for i, value in enumerate(values):
        up = (centres[max(i - 1, 0)] - centres[min(i + 1, len(values) - 1)])[1:]
        up = up / np.linalg.norm(up) if len(values) > 1 else np.array([0.0, 1.0])
        ahead = np.array([up[1], -up[0]])
        v, w = ((points[value] - centres[i])[:, 1:] @ axis for axis in (ahead, up))
        middle = np.abs((points[value] - centres[i])[:, 0]) < 8
        wall = v[middle & (np.abs(w) < 4)]
        tall = w[middle & (np.abs(v) < 4)]
        found.append(
            Body(label == value, centres[i], ahead, up, float(-wall.min()), float(wall.max()), float(np.ptp(tall)))
        )
    return found


def tissues(volume: Volume, region: str, found: list[Body]) -> dict[str, Mask]:
    """Masks by geometry: u sideways, v anterior and w up from each body's centre, within 6 mm of the mid-plane.

    body: the middle half of its depth and height; disc: 3 mm about the middle of the gap between two bodies; canal:
    right behind the posterior wall; muscle: further behind and aside; prevertebral: 3 to 13 mm in front of the body.
    """
    reach, spacing = REACH[region], volume.spacing_mm
    x, y, z = np.ogrid[tuple(slice(n) for n in volume.label.shape)]
    x, y, z = x * spacing[0], y * spacing[1], z * spacing[2]
    masks = {name: np.zeros(volume.label.shape, bool) for name in ("body", "disc", "canal", "muscle", "prevertebral")}
    for i, body in enumerate(found):
        u = np.abs(x - body.centre_mm[0])
        v = (y - body.centre_mm[1]) * body.ahead[0] + (z - body.centre_mm[2]) * body.ahead[1]
        w = np.abs((y - body.centre_mm[1]) * body.up[0] + (z - body.centre_mm[2]) * body.up[1])
        level, middle, behind = w < body.height_mm / 4, u < 6, -v - body.back_mm
        masks["body"] |= middle & level & (np.abs(v) < (body.back_mm + body.front_mm) / 4)
        masks["canal"] |= (u < 4) & level & between(behind, reach.canal_behind_mm)
        masks["muscle"] |= level & between(u, reach.muscle_aside_mm) & between(behind, reach.muscle_behind_mm)
        masks["prevertebral"] |= middle & level & between(v - body.front_mm, (3.0, 13.0))
        if i + 1 < len(found):
            gap = (body.centre_mm + found[i + 1].centre_mm)[1:] / 2
            along = (y - gap[0]) * body.up[0] + (z - gap[1]) * body.up[1]
            across = (y - gap[0]) * body.ahead[0] + (z - gap[1]) * body.ahead[1]
            depth = (body.back_mm + body.front_mm) / 5
            masks["disc"] |= middle & (np.abs(along) < 1.5) & (np.abs(across) < depth)
    return masks


def between(values: NDArray[np.float64], limits: tuple[float, float]) -> Mask:
    return np.asarray((values > limits[0]) & (values < limits[1]))


def measures(volume: Volume, region: str, class_names: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    """Everything that is printed of one case."""
    image, spacing = volume.image[0].astype(np.float64), np.array(volume.spacing_mm)
    foreground = volume.label > 0
    score = (image - image.mean()) / image.std()
    found = bodies(volume)

    for axis, side, length in zip("xyz", spacing, image.shape, strict=True):
        yield f"spacing {axis}, mm", float(side)
        yield f"field of view {axis}, mm", float(side * length)
    yield "foreground, %", 100 * float(foreground.mean())
    if len(class_names) > 2:
        sizes = np.bincount(volume.label.ravel(), minlength=len(class_names)) * spacing.prod() / 1000
        yield from (
            (f"{name} volume, cm³", float(size)) for name, size in list(zip(class_names, sizes, strict=True))[1:]
        )
    else:
        yield "body volume, cm³", float(np.median([body.mask.sum() for body in found]) * spacing.prod() / 1000)
    steps = np.diff([body.centre_mm for body in found], axis=0)
    yield "between centres, mm", float(np.linalg.norm(steps, axis=1).mean())

    masks = tissues(volume, region, found)
    for name, mask in masks.items():
        yield f"{name}, SD", float(score[mask].mean())
    yield "disc to disc, SD", float(score[masks["disc"]].std())
    each = [float(score[masks["body"] & body.mask].mean()) for body in found]
    yield "body to body, SD", statistics.stdev(each)
    yield "within labels, SD", float(score[foreground].std())
    distance = signed_distance_mm(foreground, volume.spacing_mm)
    shell = between(distance, (1.0, 6.0))
    yield "shell - label, SD", float(score[shell].mean() - score[foreground].mean())
    near = distance < 12
    yield "AUC, label from 12 mm around", auc(score, foreground, near)
    yield "AUC, label from the rest", auc(score, foreground, np.ones_like(foreground))
    yield "edge width, mm", edge_width_mm(score, distance)

    core = ndimage.binary_erosion(foreground, np.ones((1, 5, 5)))
    yield "noise in bodies, SD", noise(score, core)
    yield "body signal over noise", float(image[core].mean() / (noise(image, core) or math.nan))
    yield "bias over bodies, max/min", bias_range(image, masks["body"], found)
    for q, value in zip(QUANTILES, np.quantile(score, QUANTILES), strict=True):
        yield f"{100 * q:g} % of voxels below, SD", float(value)


def signed_distance_mm(mask: Mask, spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """In-plane distance to the outline, negative inside: slices are too thick to tell between them."""
    side = (1e3, *spacing_mm[1:])
    outside = ndimage.distance_transform_edt(~mask, side) - spacing_mm[1] / 2
    inside = ndimage.distance_transform_edt(mask, side) - spacing_mm[1] / 2
    return np.asarray(np.where(mask, -inside, outside))


def edge_width_mm(score: NDArray[np.float64], distance_mm: NDArray[np.float64]) -> float:
    """Step of the mean profile across the outlines over its steepest slope: blur and the rater's hand together."""
    at = np.arange(-4.5, 5.0)
    profile = np.array([score[between(distance_mm, (r - 0.5, r + 0.5))].mean() for r in at])
    return float(np.ptp(profile) / np.abs(np.gradient(profile)).max())


def auc(score: NDArray[np.float64], mask: Mask, where: Mask) -> float:
    """Probability that a voxel outside is brighter than one inside: 0.5 says that intensity tells nothing."""
    ranks = rankdata(score[where])
    outside = ~mask[where]
    n, m = outside.sum(), (~outside).sum()
    return float((ranks[outside].sum() - n * (n + 1) / 2) / (n * m))


def noise(image: NDArray[np.float64], mask: Mask) -> float:
    """SD of white noise after Immerkær 1996: what a difference of two Laplacians leaves, by the median."""
    kernel = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])[None] / 6
    residual = ndimage.convolve(image, kernel)[mask]
    return float(1.4826 * np.median(np.abs(residual)))


def bias_range(image: NDArray[np.float64], mask: Mask, found: list[Body]) -> float:
    """Highest over lowest of a quadratic along the column, linear across it, fitted to log signal in the bodies."""
    where = np.argwhere(mask & (image > 0))
    x, y, z = (where - where.mean(axis=0)).T / 50
    terms = np.stack([np.ones_like(x), x, y, z, z * z], axis=1)
    weights, *_ = np.linalg.lstsq(terms, np.log(image[tuple(where.T)]), rcond=None)
    fit = terms @ weights
    return float(np.exp(np.quantile(fit, 0.99) - np.quantile(fit, 0.01)))


def figures(name: str, cohort: Cohort, region: str) -> dict[str, list[float]]:
    """Per measure its values over the cases."""
    values: dict[str, list[float]] = {}
    for case in cohort.cases:
        for measure, value in measures(case.load(), region, cohort.class_names):
            values.setdefault(measure, []).append(value)
    return values


def show(columns: Mapping[str, Mapping[str, list[float]]], console: Console) -> None:
    table = Table("mean (SD over subjects)", *columns)
    rows = {measure: None for values in columns.values() for measure in values}
    for measure in rows:
        cells = [values.get(measure) for values in columns.values()]
        table.add_row(measure, *(f"{np.mean(c):.3f} ({np.std(c):.3f})" if c else "" for c in cells))
    console.print(table)


def train(cohort: Cohort, region: str, *, seeds: int, workers: int) -> dict[tuple[str, int], list[float]]:
    """Dice of every (loss, steps), mean over the folds, one value per seed."""
    prepared = prepare(relabel(cohort, MERGED), spacing_mm=REGIONS[region].training_spacing_mm)
    data = make_training_data(prepared, TaskSettings())
    folds = k_folds(prepared.subjects, FOLDS, seed=0)
    spec = WorkerSpec(factory="lossevo.training.worker:TrainingWorker", payload=data)
    scores: dict[tuple[str, int], list[list[float]]] = {}
    with open_executor(spec, workers=workers or None, in_process=not workers) as executor:
        tickets = {}
        for loss in LOSSES:
            for steps in BUDGETS:
                for seed in range(seeds):
                    for tested in folds:
                        trained = tuple(sorted({*prepared.subjects} - {*tested}))
                        trial = Trial({"name": loss}, Fidelity(steps, seed, Split(trained, tested)))
                        tickets[executor.submit(Job(payload=trial.to_payload()))] = (loss, steps, seed)
        for ticket, outcome in executor.completed():
            loss, steps, seed = tickets[ticket]
            by_seed = scores.setdefault((loss, steps), [[] for _ in range(seeds)])
            value = outcome.value
            by_seed[seed].append(Measurement.from_payload(value).mean("dice") if value else math.nan)
    return {key: [statistics.fmean(values) for values in by_seed] for key, by_seed in scores.items()}


def show_dice(columns: Mapping[str, Mapping[tuple[str, int], list[float]]], console: Console) -> None:
    """Dice side by side, and Kendall's τ between the losses of every two columns."""
    for steps in BUDGETS:
        table = Table(f"Dice, {steps} steps", *columns)
        for loss in LOSSES:
            cells = [scores[loss, steps] for scores in columns.values()]
            spreads = [f" ({statistics.stdev(c):.3f})" if len(c) > 1 else "" for c in cells]
            table.add_row(loss, *(f"{np.mean(c):.3f}{sd}" for c, sd in zip(cells, spreads, strict=True)))
        table.add_section()
        means = {name: [np.mean(scores[loss, steps]) for loss in LOSSES] for name, scores in columns.items()}
        for name, mine in means.items():
            table.add_row(f"τ with {name}", *(f"{kendalltau(mine, theirs).statistic:.2f}" for theirs in means.values()))
        console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="no training")
    parser.add_argument("--only", nargs="+", metavar="COHORT", help="of the columns, these")
    parser.add_argument("--cases", type=int, default=38, help="phantoms of each region")
    parser.add_argument("--seed", type=int, default=0, help="seed of the phantoms")
    parser.add_argument("--seeds", type=int, default=1, help="of every training")
    parser.add_argument("--workers", type=int, default=0, help="Ray workers; 0 trains in this process")
    options = parser.parse_args()

    cohorts: dict[str, tuple[str, Cohort]] = {}
    for region in REGIONS:
        cohorts[f"phantom-{region}"] = region, phantom_cohort(cases=options.cases, seed=options.seed, region=region)
    if "LOSSEVO_DATA" in os.environ:
        for name in ("myosegmentum", "vb2"):
            cohorts[name] = "lumbar", read_cohort(Path(os.environ["LOSSEVO_DATA"]) / name)
    if options.only:
        cohorts = {name: cohorts[name] for name in options.only}
    console = Console(width=140)
    show({name: figures(name, cohort, region) for name, (region, cohort) in cohorts.items()}, console)
    if not options.quick:
        dice = {
            name: train(cohort, region, seeds=options.seeds, workers=options.workers)
            for name, (region, cohort) in cohorts.items()
        }
        show_dice(dice, console)


if __name__ == "__main__":
    main()
