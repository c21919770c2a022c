"""Which way of searching finds the better loss: equal optimiser steps, several seeds, judged where nothing was chosen.

    python benchmarks/search.py --data DIR --out OUT
    python benchmarks/search.py --data DIR --out OUT --variants default random glo --budgets 200 600 --seeds 1 2 3
    python benchmarks/search.py --data DIR --out OUT --variants default no-surrogate one-seed --horizon 150
    python benchmarks/search.py --data DIR --out OUT --judge 150 400

Each search runs in a folder of OUT as ``lossevo search`` does it. Its winner, the best evolved loss of the hall of
fame, and the hand-crafted losses are then trained with fresh seeds on the subjects that the search trained on, and
scored on the subjects that it never touched. The lead is over the best hand-crafted loss, chosen on those scores
themselves, which favours the hand-crafted side. Overtuning is by how much the evolved finalists scored better when they
were selected than when they were confirmed. Standard errors are over the seeds of the search.

Whatever is done is kept: the same command goes on where it was stopped, and another one adds to OUT.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.progress import Progress

from lossevo.cluster import Job, WorkerSpec, open_executor
from lossevo.experiment import CohortSource, Entry, Study, Subjects, hall_of_fame
from lossevo.experiment.candidate import standard_error
from lossevo.experiment.trainings import TRAINING_WORKER
from lossevo.markdown import table
from lossevo.search import Run, RunConfig, SearchSpace, available, load_space
from lossevo.search.findings import read_findings
from lossevo.training import (
    Fidelity,
    Measurement,
    Split,
    TaskSettings,
    TrainingData,
    Trial,
    make_training_data,
)
from lossevo.training.seeds import comparison_seed

HAND_CRAFTED = (
    "dice_ce",
    "dice_focal",
    "generalized_dice",
    "lovasz",
    "unified_focal",
    "uncertainty_weighting",
)


@dataclass(frozen=True, slots=True)
class Variant:
    """A way of searching: a search space, what is changed of it, and of the task."""

    space: str = "segmentation"
    changes: Mapping[str, Mapping[str, Any]] | None = None
    task: Mapping[str, Any] | None = None

    def of(self, trainings: int) -> SearchSpace:
        """The space with a budget."""
        document = load_space(self.space).model_dump(mode="json")
        changes = {"budget": {}, **(self.changes or {})}
        for section, changed in changes.items():
            # Another kind of strategy has settings of its own.
            document[section] = {**({} if "kind" in changed else document[section]), **changed}
        document["budget"]["trainings"] = trainings
        return SearchSpace.model_validate(document)


UNTUNED: Mapping[str, Mapping[str, Any]] = {"tuning": {"structures": 0}, "preselection": {"proposals": 1}}
VARIANTS: Mapping[str, Variant] = {
    "default": Variant(),
    "no-surrogate": Variant(changes={"preselection": {"proposals": 1}}),
    "four-proposals": Variant(changes={"preselection": {"proposals": 4}}),
    "one-seed": Variant(changes={"allocation": {"elite_seeds": 1}}),
    "untuned": Variant(changes={"tuning": {"structures": 0}}),
    "one-cycle": Variant(task={"schedule": "one_cycle", "weights": "last"}),
    "constant-ema": Variant(task={"schedule": "constant", "weights": "ema"}),
    "random": Variant(changes={"strategy": {"kind": "random"}, **UNTUNED}),
    "ageing": Variant(changes={"strategy": {"kind": "ageing"}, **UNTUNED}),
    **{name: Variant(name) for name in available() if name not in ("segmentation", "distillation")},
}


@dataclass(frozen=True, slots=True)
class Judged:
    """One training of a loss on the subjects of a search, scored on those that it never touched.

    ``task`` is the fingerprint of data and settings, ``seed`` that of the search, ``number`` that of the training.
    """

    task: str
    seed: int
    loss: str
    steps: int
    number: int
    score: float

    @property
    def key(self) -> tuple[str, int, str, int, int]:
        """What decides the score."""
        return self.task, self.seed, self.loss, self.steps, self.number


Searched = Mapping[tuple[str, int, int], Path]
"""Run folders by variant, budget and seed."""
Scores = dict[tuple[str, int, str, int, int], Judged]


def main() -> None:
    options = parse_options()
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console(width=120)
    searched = {
        (variant, budget, seed): search(options, variant, budget, seed, console)
        for seed in options.seeds
        for budget in options.budgets
        for variant in options.variants
    }
    data = judging_data(options)
    scores = judge(options, data, searched, console)
    for steps in options.judge:
        text = report(options, searched, scores, data.fingerprint, steps)
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="DIR", help="cohort (docs/data.md); default: the embedded phantom")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder for the searches and scores.csv")
    parser.add_argument("--variants", nargs="+", choices=[*VARIANTS], default=["default", "random"])
    parser.add_argument("--budgets", type=int, nargs="+", default=[600], metavar="N", help="trainings of --steps steps")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the searches")
    parser.add_argument("--steps", type=int, default=75, help="of the shortest training")
    parser.add_argument("--horizon", type=int, help="default: as --steps")
    parser.add_argument(
        "--judge", type=int, nargs="+", metavar="STEPS", help="lengths to judge at; default: the horizon"
    )
    parser.add_argument("--judge-seeds", type=int, default=5, help="fresh seeds of each judged loss")
    parser.add_argument("--hand-crafted", nargs="+", default=HAND_CRAFTED, metavar="LOSS")
    parser.add_argument("--workers", type=int, default=2, help="Ray workers; 0 trains in this process")
    options = parser.parse_args()
    options.judge = options.judge or [options.horizon or options.steps]
    options.hand_crafted = list(dict.fromkeys(["dice_ce", *options.hand_crafted]))
    return options


def folder_of(options: argparse.Namespace, variant: str, budget: int, seed: int) -> Path:
    """Where a search runs."""
    cohort = options.data.name if options.data else "phantom"
    lengths = f"{options.steps}-{options.horizon or options.steps}"
    folder: Path = options.out / f"{cohort}-{lengths}-{variant}-{budget}-{seed}"
    return folder


def search(options: argparse.Namespace, variant: str, budget: int, seed: int, console: Console) -> Path:
    """The folder of a search that has ended, now or before."""
    folder = folder_of(options, variant, budget, seed)
    if read_findings(folder) is not None:
        return folder
    console.print(f"search: {folder.name}", highlight=False)
    chosen = VARIANTS[variant]
    config = RunConfig(
        space=chosen.of(budget),
        task=TaskSettings(budget_steps=options.steps, **(chosen.task or {})),
        horizon=options.horizon,
        cohort=CohortSource(path=options.data),
        seed=seed,
    )
    run = Run.open(folder) if (folder / "run.json").exists() else Run.create(folder, config)
    run.search(partial(open_executor, **workers_of(options)))
    return folder


def workers_of(options: argparse.Namespace) -> dict[str, Any]:
    return {"workers": options.workers or None, "in_process": not options.workers}


def winner(folder: Path) -> Entry:
    """The best loss that the search found itself: of ``tuned_catalogue`` a variant of a known one, or that itself."""
    entries = hall_of_fame.read(folder)
    return next((entry for entry in entries if not entry.literature), entries[0])


def judge(options: argparse.Namespace, data: TrainingData, searched: Searched, console: Console) -> Scores:
    """Scores of all winners and hand-crafted losses at each length, from ``scores.csv`` where it has them.

    All are trained as the default task does it, also those found by trainings of another kind.
    """
    path = options.out / "scores.csv"
    known = {row.key: row for row in read_csv(path)}
    missing: dict[tuple[str, int, str, int, int], Trial] = {}
    for (_, _, seed), folder in searched.items():
        entry, subjects = winner(folder), Subjects.read(folder)
        split = Split(subjects.train, subjects.untouched)
        specs = {entry.id: entry.loss} | {name: {"name": name} for name in options.hand_crafted}
        for steps, loss, number in itertools.product(options.judge, specs, range(options.judge_seeds)):
            trial = Trial(specs[loss], Fidelity(steps, comparison_seed(seed, number), split))
            missing[data.fingerprint, seed, loss, steps, number] = trial
    missing = {key: trial for key, trial in missing.items() if key not in known}
    if not missing:
        return known
    with (
        open_executor(WorkerSpec(TRAINING_WORKER, data), **workers_of(options)) as executor,
        Progress(console=console) as progress,
    ):
        bar = progress.add_task("judging", total=len(missing))
        tickets = {executor.submit(Job(trial.to_payload())): key for key, trial in missing.items()}
        for ticket, outcome in executor.completed():
            measurement = Measurement.from_payload(outcome.value) if outcome.value else None
            row = Judged(*tickets[ticket], measurement.mean("dice") if measurement else 0.0)
            append_csv(path, row)
            known[row.key] = row
            progress.advance(bar)
    return known


def judging_data(options: argparse.Namespace) -> TrainingData:
    """The cohort for the default task."""
    task = TaskSettings(budget_steps=options.steps)
    return make_training_data(Study(task=task, cohort=CohortSource(path=options.data)).prepare(), task)


def read_csv(path: Path) -> list[Judged]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return TypeAdapter(list[Judged]).validate_python(list(csv.DictReader(file)))


def append_csv(path: Path, row: Judged) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Judged)])
        if new:
            writer.writeheader()
        writer.writerow(asdict(row))


def report(options: argparse.Namespace, searched: Searched, scores: Scores, task: str, steps: int) -> str:
    """A table: variant, budget, the winner's score, its lead, and by how much it was selected too well."""

    def mean(seed: int, loss: str) -> float:
        return statistics.fmean(scores[task, seed, loss, steps, number].score for number in range(options.judge_seeds))

    found: dict[tuple[str, int], list[tuple[float, float, float, float]]] = defaultdict(list)
    for (variant, budget, seed), folder in searched.items():
        entry = winner(folder)
        score = mean(seed, entry.id)
        rivals = {name: mean(seed, name) for name in options.hand_crafted}
        findings = read_findings(folder)
        optimism = findings.overtuning if findings is not None and findings.overtuning is not None else math.nan
        found[variant, budget].append((score, score - max(rivals.values()), score - rivals["dice_ce"], optimism))
    rows = []
    for (variant, budget), results in found.items():
        scores_of, leads, ahead, overtuned = zip(*results, strict=True)
        rows.append(
            {
                "variant": variant,
                "budget": str(budget),
                "Dice of the winner": f"{statistics.fmean(scores_of):.4f}",
                "lead over the best hand-crafted": in_points(leads),
                "over Dice+CE": in_points(ahead),
                "overtuning": in_points(overtuned),
            }
        )
    lengths = f"{options.steps} steps" if not options.horizon else f"{options.steps} to {options.horizon} steps"
    return (
        f"\n{options.data.name if options.data else 'phantom'}: searched with trainings of {lengths}, search seeds "
        f"{', '.join(map(str, options.seeds))}; judged at {steps} steps with {options.judge_seeds} fresh seeds on "
        "untouched subjects. Differences in Dice points ± SE over the seeds of the search.\n\n"
    ) + table(rows)


def in_points(differences: Sequence[float]) -> str:
    known = [100 * difference for difference in differences if not math.isnan(difference)]
    return f"{statistics.fmean(known):+.2f} ± {standard_error(known):.2f}" if known else "–"


if __name__ == "__main__":
    main()
