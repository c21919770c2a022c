"""Choose the training task by measurement: do short trainings rank losses as longer ones do, and what do they cost?

Trains every loss with several seeds at each budget and prints, for the embedded phantom and the cohorts given, Dice
mean and seed SD, seconds, the signal-to-noise ratio (SD between the losses' means over the SD between seeds) and the
rank correlation of each budget with the longest one::

    python benchmarks/proxy.py --workers 2 --out proxy.csv
    python benchmarks/proxy.py --data DIR --losses cross_entropy dice dice_ce --budgets 75 150 --seeds 2
    python benchmarks/proxy.py --data DIR --phantom-cases 0 --forms all --losses dice_ce --seeds 2
    python benchmarks/proxy.py --data DIR --phantom-cases 0 --forms default "constant, ema"
    python benchmarks/proxy.py --set learning_rate=3e-3 strides=[1,2] 'preprocessing={"crop": "body"}'

Several forms of the task are also put side by side: what of each budget's scores is signal, and how far it ranks losses
as the longest budget does, its own and that of the first form.

With ``--out`` every training is appended to a CSV file as it ends; the same command later trains only what is missing.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.stats import kendalltau, spearmanr

from lossevo.cluster import Job, WorkerSpec, open_executor
from lossevo.data import MERGED, SubjectSplit, phantom_cohort, prepare, read_cohort, relabel, split_subjects
from lossevo.errors import LossevoError
from lossevo.training import Fidelity, Measurement, Split, TaskSettings, TrainingData, Trial, make_training_data

LOSSES = (
    "cross_entropy",
    "dice",
    "dice_ce",
    "focal",
    "tversky",
    "generalized_dice",
    "dice_focal",
    "focal_tversky",
    "baikal",
)

Scores = dict[int, dict[str, list[float]]]
"""Dice by budget, loss and seed."""

# What --forms compares.
FORMS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "lr 3e-3": {"learning_rate": 3e-3},
    "lr 2e-2": {"learning_rate": 2e-2},
    "contiguous": {"channels_last": False},
    "wide": {"channels": (16, 32, 64)},
    "four levels": {"channels": (8, 16, 32, 64), "strides": (2, 2, 2)},
    "residual": {"residual_units": 1},
    "batch norm": {"norm": "batch"},
    "full resolution": {"channels": (8, 16, 32, 64), "strides": (1, 2, 2)},
    "full resolution, narrow": {"channels": (4, 8, 16, 32), "strides": (1, 2, 2)},
    "no flips": {"flip_probability": 0.0},
    "batch of 4": {"batch_size": 4},
    "ema": {"weights": "ema"},
    "constant": {"schedule": "constant"},
    "constant, ema": {"schedule": "constant", "weights": "ema"},
}


@dataclass(frozen=True, slots=True)
class Result:
    """One training; ``task`` is the fingerprint of data and settings, ``dice`` is nan unless ``status`` is done."""

    cohort: str
    form: str
    task: str
    loss: str
    budget_steps: int
    seed: int
    status: str
    dice: float
    seconds: float

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What decides the result."""
        return self.task, self.loss, self.budget_steps, self.seed


def main() -> None:
    options = parse_options()
    cohorts = [phantom_cohort(cases=options.phantom_cases)] if options.phantom_cases else []
    known = read_csv(options.out)
    console = Console()
    for cohort in cohorts + [read_cohort(folder) for folder in options.data]:
        prepared = prepare(
            relabel(cohort, MERGED),
            spacing_mm=options.spacing,
            settings=TaskSettings(**options.set).preprocessing,
        )
        split = split_subjects(prepared.subjects, seed=0, untouched_share=0)
        sides = "x".join(f"{side:g}" for side in prepared.spacing_mm)
        shape = "x".join(map(str, prepared.volumes[0].label.shape))
        console.print(
            f"{prepared.name}: {len(split.train)} training, {len(split.validation)} validation subjects, "
            f"{sides} mm, first volume {shape} voxels; {options.workers} worker(s)"
        )
        forms: dict[str, Scores] = {}
        for form in options.forms:
            data = make_training_data(prepared, TaskSettings(**(FORMS[form] | options.set)))
            measurements = measure(data, split, options, form=form, cohort=prepared.name, known=known)
            console.print(report(measurements, title=f"{prepared.name}, {form}"))
            forms[form] = scores(measurements)
        if len(forms) > 1:
            console.print(side_by_side(forms, title=f"{prepared.name}, forms of the task"))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", default=[], metavar="DIR", help="cohorts (docs/data.md)")
    parser.add_argument("--phantom-cases", type=int, default=24, help="0 leaves the embedded phantom out")
    parser.add_argument("--spacing", type=float, nargs=3, metavar="MM", help="default: automatic")
    parser.add_argument("--losses", nargs="+", default=LOSSES)
    parser.add_argument("--budgets", type=int, nargs="+", default=[75, 150, 400], metavar="STEPS")
    parser.add_argument("--seeds", type=int, default=4, help="seeds 0 ... SEEDS-1")
    parser.add_argument("--workers", type=int, default=2, help="Ray workers; 0 trains in this process")
    parser.add_argument(
        "--forms", nargs="+", choices=["all", *FORMS], default=["default"], help="forms of the task to compare"
    )
    parser.add_argument(
        "--set", type=setting, nargs="+", default=[], metavar="KEY=VALUE", help="override task settings"
    )
    parser.add_argument("--out", type=Path, metavar="CSV", help="append each training here and skip those it has")
    options = parser.parse_args()
    options.set = dict(options.set)
    options.forms = list(FORMS) if "all" in options.forms else list(dict.fromkeys(options.forms))
    options.spacing = tuple(options.spacing) if options.spacing else None
    return options


def setting(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def measure(
    data: TrainingData,
    split: SubjectSplit,
    options: argparse.Namespace,
    *,
    form: str,
    cohort: str,
    known: Mapping[tuple[str, str, int, int], Result],
) -> list[Result]:
    """Every (loss, budget, seed), from the CSV file where it has it, else trained."""
    combinations = [
        (data.fingerprint, loss, budget, seed)
        for budget, loss, seed in itertools.product(sorted(options.budgets), options.losses, range(options.seeds))
    ]
    measurements = [known[key] for key in combinations if key in known]
    missing = [key for key in combinations if key not in known]
    if not missing:
        return measurements
    spec = WorkerSpec(factory="lossevo.training.worker:TrainingWorker", payload=data)
    with (
        open_executor(spec, workers=options.workers or None, in_process=not options.workers) as executor,
        Progress() as progress,
    ):
        bar = progress.add_task(form, total=len(missing))
        tickets = {}
        for key in missing:
            _, loss, budget, seed = key
            trial = Trial({"name": loss}, Fidelity(budget, seed, Split(split.train, split.validation)))
            tickets[executor.submit(Job(payload=trial.to_payload()))] = key
        for ticket, outcome in executor.completed():
            dice = Measurement.from_payload(outcome.value).mean("dice") if outcome.value else float("nan")
            measurement = Result(cohort, form, *tickets[ticket], outcome.status.value, dice, outcome.seconds)
            measurements.append(measurement)
            if options.out:
                append_csv(options.out, measurement)
            if outcome.error:
                progress.console.print(f"{measurement.loss}, {measurement.budget_steps} steps: {outcome.error}")
            progress.advance(bar)
    return measurements


def read_csv(path: Path | None) -> dict[tuple[str, str, int, int], Result]:
    if path is None or not path.exists():
        return {}
    with path.open(newline="") as file:
        rows = TypeAdapter(list[Result]).validate_python(list(csv.DictReader(file)))
    return {row.key: row for row in rows}


def append_csv(path: Path, measurement: Result) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Result)])
        if new:
            writer.writeheader()
        writer.writerow(asdict(measurement))


def report(measurements: Sequence[Result], *, title: str) -> Table:
    """Losses by their mean at the longest budget, and below them what the budgets are worth."""
    dice = scores(measurements)
    seconds: dict[int, list[float]] = {budget: [] for budget in dice}
    for row in measurements:
        seconds[row.budget_steps].append(row.seconds)
    longest = max(dice)
    complete = done_everywhere([dice])
    complete.sort(key=lambda loss: -statistics.fmean(dice[longest][loss]))

    table = Table("loss", *(f"{budget} steps" for budget in dice), title=title)
    for loss in [*complete, *(loss for loss in dice[longest] if loss not in complete)]:
        table.add_row(loss, *(mean_and_sd(by_loss[loss]) for by_loss in dice.values()))
    table.add_section()
    means = {budget: [statistics.fmean(by_loss[loss]) for loss in complete] for budget, by_loss in dice.items()}
    noise = {budget: pooled_sd([by_loss[loss] for loss in complete]) for budget, by_loss in dice.items()}
    table.add_row("seconds a training", *(f"{statistics.fmean(values):.1f}" for values in seconds.values()))
    table.add_row("seed SD, pooled", *(f"{sd:.4f}" for sd in noise.values()))
    if len(complete) > 1:
        spread = {budget: statistics.stdev(values) for budget, values in means.items()}
        table.add_row("SD between losses", *(f"{sd:.4f}" for sd in spread.values()))
        table.add_row("signal to noise", *(f"{spread[b] / noise[b]:.1f}" if noise[b] else "-" for b in dice))
        for name, correlation in (("Kendall", kendalltau), ("Spearman", spearmanr)):
            correlations = (correlation(values, means[longest]).statistic for values in means.values())
            table.add_row(f"{name} with {longest} steps", *(f"{value:.2f}" for value in correlations))
    return table


def scores(measurements: Sequence[Result]) -> Scores:
    """Dice by budget, loss and seed; a training that failed has none."""
    dice: Scores = {}
    for row in sorted(measurements, key=lambda row: (row.budget_steps, row.seed)):
        values = dice.setdefault(row.budget_steps, {}).setdefault(row.loss, [])
        if row.status == "done":
            values.append(row.dice)
    return dice


def done_everywhere(forms: Sequence[Scores]) -> list[str]:
    """The losses with a Dice at every budget: one that diverged anywhere has no place in a comparison of rankings."""
    tables = [by_loss for dice in forms for by_loss in dice.values()]
    return [loss for loss in tables[0] if all(by_loss.get(loss) for by_loss in tables)]


def side_by_side(forms: Mapping[str, Scores], *, title: str) -> Table:
    """What a score says in each form of the task at each budget."""
    losses = done_everywhere([*forms.values()])
    if len(losses) < 2:
        return Table(title=f"{title}: fewer than two losses to compare")
    first = next(iter(forms))

    def means(form: str, budget: int) -> list[float]:
        return [statistics.fmean(forms[form][budget][loss]) for loss in losses]

    table = Table("", *(f"{form}\n{budget} steps" for form, dice in forms.items() for budget in dice), title=title)
    rows: dict[str, list[str]] = {}
    for form, dice in forms.items():
        references = {"its longest": means(form, max(dice)), f"{first}'s longest": means(first, max(forms[first]))}
        for budget, by_loss in dice.items():
            groups = [by_loss[loss] for loss in losses]
            noise, spread = pooled_sd(groups), statistics.stdev(means(form, budget))
            deviations = [statistics.stdev(group) if len(group) > 1 else 0.0 for group in groups]
            column = {
                "mean Dice": f"{statistics.fmean(means(form, budget)):.3f}",
                "seed SD, pooled": f"{noise:.4f}",
                "seed SD, median": f"{statistics.median(deviations):.4f}",
                "SD between losses": f"{spread:.4f}",
                "signal to noise": f"{spread / noise:.2f}" if noise else "-",
            }
            for name, reference in references.items():
                column[f"τ with {name}"] = f"{kendalltau(means(form, budget), reference).statistic:.2f}"
                # What one training of each loss tells: the mean over the seeds.
                each = [kendalltau(ranking, reference).statistic for ranking in zip(*groups, strict=False)]
                column[f"one seed, {name}"] = f"{statistics.fmean(each):.2f}"
            for name, value in column.items():
                rows.setdefault(name, []).append(value)
    for name, values in rows.items():
        table.add_row(name, *values)
    return table


def mean_and_sd(values: Sequence[float]) -> str:
    if not values:
        return "failed"
    return f"{statistics.fmean(values):.3f}" + (f" ({statistics.stdev(values):.3f})" if len(values) > 1 else "")


def pooled_sd(groups: Sequence[Sequence[float]]) -> float:
    """Root mean square of the groups' standard deviations; 0 where no group has two values."""
    variances = [statistics.variance(group) for group in groups if len(group) > 1]
    return statistics.fmean(variances) ** 0.5 if variances else 0.0


if __name__ == "__main__":
    try:
        main()
    except (LossevoError, ValidationError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
