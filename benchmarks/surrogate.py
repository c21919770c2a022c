"""What the surrogate would have known: how well it predicts the trainings of a finished search before they are done.

    python benchmarks/surrogate.py RUN [RUN ...]

Goes through a run's ledger in the order of its trainings. Fitted on the trainings before, the surrogate is asked about
the new candidates among the next 15 trainings (``--block``). Its predictions are compared with the score of each
candidate's first training, beside the mean score of its parents so far, which is what a tournament goes by. A failure
is a score more than 8 % of the objective's range below the 80 % quantile. Times are CPU time of this process.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from lossevo.experiment.scoring import Scoring
from lossevo.experiment.study import Subjects
from lossevo.markdown import table
from lossevo.search import read_config
from lossevo.search.selected import Scored, selection_trainings
from lossevo.search.surrogate import Probes, Surrogate
from lossevo.search.surrogate.points import BELOW, QUANTILE

PROPOSALS = 6
"""Candidates of which one is to be trained: what a prediction costs is measured for so many."""
BEST, TOP = 0.10, 0.25


@dataclass(frozen=True, slots=True)
class Asked:
    """A new candidate: what was predicted of its first training, and what became of it."""

    block: int
    predicted: float
    parents_mean: float
    score: float


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a finished search")
    options.add_argument("--block", type=int, default=15, help="trainings that are asked about at once (15)")
    options.add_argument("--seed", type=int, default=0, help="of the probe states (0)")
    chosen = options.parse_args()
    for run in chosen.runs:
        print(f"\n## {run}\n\n{report(run, chosen.block, chosen.seed)}")


def report(run: Path, block: int, seed: int) -> str:
    """All tables of a run."""
    config, subjects = read_config(run), Subjects.read(run)
    prepared = config.prepare()
    validated = [volume for volume in prepared.volumes if volume.subject in subjects.validation]
    trained_on = [volume for volume in prepared.volumes if volume.subject in subjects.train]
    scoring = Scoring.of(config.objective, validated)
    trainings = list(selection_trainings(run, scoring))
    probes = Probes.of(trained_on, len(prepared.class_names), seed=seed)
    began = time.process_time()
    features = {training.candidate: probes.features(training.expression) for training in trainings}
    seconds = {"features of a loss": (time.process_time() - began) / len(features)}
    surrogate = Surrogate(scoring.range)
    asked = list(replay(trainings, features, surrogate, block, seconds))
    return "\n\n".join(
        (
            f"{len(trainings)} trainings of {len(features)} candidates; {len(asked)} asked about",
            ranking(asked),
            selection(asked, scoring.range),
            state(surrogate, seconds),
        )
    )


def replay(
    trainings: Sequence[Scored],
    features: dict[str, NDArray[np.float32] | None],
    surrogate: Surrogate,
    block: int,
    seconds: dict[str, float],
) -> Iterator[Asked]:
    """Ask about the new candidates of each block, then tell its scores."""
    scores: dict[str, list[float]] = defaultdict(list)
    telling, asking = [], []
    for first in range(0, len(trainings), block):
        now = trainings[first : first + block]
        fresh = {t.candidate: t for t in reversed(now) if t.candidate not in scores}
        new = [t for t in now if fresh.get(t.candidate) is t and features[t.candidate] is not None]
        if first and new:
            stacked = np.stack([features[t.candidate] for t in new])
            began = time.process_time()
            surrogate.predict(stacked[:PROPOSALS], steps=new[0].steps)
            asking.append(time.process_time() - began)
            for t, predicted in zip(new, surrogate.predict(stacked, steps=new[0].steps).mean, strict=True):
                known = [statistics.fmean(scores[parent]) for parent in t.origin.parents if scores.get(parent)]
                parents_mean = statistics.fmean(known) if known else float("nan")
                yield Asked(first // block, float(predicted), parents_mean, t.score)
        for t in now:
            found = features[t.candidate]
            scores[t.candidate].append(t.score)
            if found is not None:
                began = time.process_time()
                surrogate.tell(found, t.score, steps=t.steps)
                telling.append(time.process_time() - began)
    seconds["a new score, mean"] = statistics.fmean(telling)
    seconds["a new score, largest"] = max(telling)
    seconds[f"{PROPOSALS} predictions, last"] = asking[-1]


def ranking(asked: Sequence[Asked]) -> str:
    """Rank correlation with the score: over all, and within what was asked at once."""
    children = [a for a in asked if not np.isnan(a.parents_mean)]
    median = float(np.median([a.score for a in children]))
    good = [a for a in children if a.score >= median]
    rows = []
    for name, among in (("children", children), ("the better half of the children", good), ("all", asked)):
        for predictor in ("parents' mean", "surrogate"):
            if predictor == "surrogate" or among is not asked:
                rows.append([name, predictor, str(len(among)), *correlations(among, predictor)])
    return tabulated(["candidates", "predictor", "n", "Spearman", "within blocks"], rows)


def correlations(asked: Sequence[Asked], predictor: str) -> tuple[str, str]:
    def spearman(among: Sequence[Asked]) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of constant scores
            return float(spearmanr([value_of(a, predictor) for a in among], [a.score for a in among]).statistic)

    blocks = defaultdict(list)
    for a in asked:
        blocks[a.block].append(a)
    within = [spearman(among) for among in blocks.values() if len(among) >= 5]
    return f"{spearman(asked):.2f}", f"{np.nanmean(within):.2f}" if within else "-"


def value_of(asked: Asked, predictor: str) -> float:
    return asked.predicted if predictor == "surrogate" else asked.parents_mean


def selection(asked: Sequence[Asked], unit: float) -> str:
    """What a choice of the top quarter by prediction would have kept, among children, for which both predict."""
    children = [a for a in asked if not np.isnan(a.parents_mean)]
    scores = np.array([a.score for a in children])
    failed = scores < np.quantile(scores, QUANTILE) - BELOW * unit
    best = scores >= np.quantile(scores, 1 - BEST)
    rows = [["all", "100 %", share(failed), f"{np.median(scores):.4f}"]]
    for part, name in ((TOP, "top quarter"), (0.5, "top half")):
        for predictor in ("parents' mean", "surrogate"):
            values = np.array([value_of(a, predictor) for a in children])
            top = np.argsort(-values, kind="stable")[: round(part * len(children))]
            kept = [f"{100 * best[top].sum() / best.sum():.0f} %", share(failed[top]), f"{np.median(scores[top]):.4f}"]
            rows.append([f"{name} by {predictor}", *kept])
    return tabulated(["children", "of the best tenth", "failures", "median score"], rows)


def tabulated(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return table([dict(zip(header, row, strict=True)) for row in rows])


def share(flags: NDArray[np.bool_]) -> str:
    return f"{100 * flags.mean():.0f} %"


def state(surrogate: Surrogate, seconds: dict[str, float]) -> str:
    """Leave-one-out, calibration, hyper-parameters, cost."""
    actual, predicted = surrogate.leave_one_out()
    errors = surrogate.standardised_errors()
    r2 = 1 - float(np.square(actual - predicted).sum() / np.square(actual - actual.mean()).sum())
    kernel = surrogate.hyperparameters
    rows = [
        ["leave-one-out R2 (bent scores)", f"{r2:.2f}"],
        ["leave-one-out Spearman", f"{spearmanr(actual, predicted).statistic:.2f}"],
        ["standardised errors, last 100: mean, SD", f"{errors.mean():.2f}, {errors.std():.2f}"],
        ["of them within 1.96", share(np.abs(errors) < 1.96)],
        ["calibration factor", f"{surrogate.calibration():.2f}"],
        ["signal, noise (SD)", f"{kernel.signal:.4f}, {kernel.noise:.4f}"],
        ["length scale", f"{kernel.length_scale:g}"],
        *([f"CPU ms: {what}", f"{1000 * taken:.1f}"] for what, taken in seconds.items()),
    ]
    return tabulated(["state at the end", ""], rows)


if __name__ == "__main__":
    main()
