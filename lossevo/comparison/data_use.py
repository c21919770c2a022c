"""Data utilisation: how far losses get with a part of the training subjects, and whether their ranking is the same.

It is one of the three questions of Gonzalez & Miikkulainen, "Improved training speed, accuracy, and data utilization
through loss function optimization" (arXiv 1905.11528).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np

from lossevo.cluster import Status
from lossevo.comparison.fractions import WHOLE
from lossevo.comparison.scores import CaseScore, subject_scores
from lossevo.comparison.statistics import kendall_tau, score_table
from lossevo.csv_files import csv_text
from lossevo.metrics import Metric

_COLUMNS = (
    *("metric", "loss", "fraction", "fewest_training_subjects", "most_training_subjects"),
    *("mean", "sd", "se", "subjects", "rank", "share_of_whole", "trainings", "failures"),
)


@dataclass(frozen=True, slots=True)
class FractionScore:
    """A loss in one metric, trained with a fraction of the training subjects.

    Attributes:
        metric: its name.
        loss: its name.
        fraction: of a fold's training subjects.
        fewest_training_subjects: how many that is in the fold with the fewest.
        most_training_subjects: and in that with the most.
        mean: over the tested subjects.
        sd: standard deviation over them; None for one.
        se: standard error of the mean, SD/√n; None for one.
        subjects: how many are tested and have a value.
        rank: of the mean among the losses, 1 the best; losses that tie share the better rank.
        share_of_whole: the mean by that with all training subjects; None where lower is better, or where that is 0.
        trainings: how many there were.
        failures: how many of them failed, and score the worst values.
    """

    metric: str
    loss: str
    fraction: float
    fewest_training_subjects: int
    most_training_subjects: int
    mean: float
    sd: float | None
    se: float | None
    subjects: int
    rank: int
    share_of_whole: float | None
    trainings: int
    failures: int


@dataclass(frozen=True, slots=True)
class FractionAgreement:
    """Kendall's τ-b of the rankings with two fractions in one metric; None if all losses tie in one of them."""

    metric: str
    first: float
    second: float
    tau: float | None


@dataclass(frozen=True, slots=True)
class DataUse:
    """Scores by metric, loss and fraction, the smallest first; the agreement of rankings; and what both say."""

    fractions: tuple[float, ...]
    scores: tuple[FractionScore, ...]
    agreement: tuple[FractionAgreement, ...]
    finding: str

    def of(self, metric: str) -> dict[str, dict[float, FractionScore]]:
        """Loss → fraction → score in a metric."""
        found: dict[str, dict[float, FractionScore]] = {}
        for score in self.scores:
            if score.metric == metric:
                found.setdefault(score.loss, {})[score.fraction] = score
        return found


def data_use(
    scores: Mapping[float, Sequence[CaseScore]],
    metrics: Sequence[Metric],
    sizes: Mapping[float, tuple[int, int]],
    resampled_tau: float | None = None,
) -> DataUse | None:
    """What fraction → scores say; None if there are no fractions but the whole.

    ``sizes`` is how many training subjects a fraction is, at least and at most. ``resampled_tau`` is Kendall's τ that
    resamples of the tested subjects have with the ranking by the main metric.

    Raises:
        LossevoError: one loss has a value where another has none.
    """
    if len(scores) < 2:
        return None
    fractions = tuple(sorted(scores))
    found: list[FractionScore] = []
    agreement: list[FractionAgreement] = []
    for metric in metrics:
        tables = {fraction: subject_scores(scores[fraction], metric.name) for fraction in fractions}
        utilities = {
            fraction: score_table(table, higher_is_better=metric.higher_is_better).utilities.mean(axis=1)
            for fraction, table in tables.items()
        }
        for place, loss in enumerate(tables[WHOLE]):
            found += [
                _score(
                    metric,
                    loss,
                    fraction,
                    sizes[fraction],
                    list(tables[fraction][loss].values()),
                    statistics.fmean(tables[WHOLE][loss].values()),
                    1 + int((np.round(utilities[fraction] - utilities[fraction][place], 9) > 0).sum()),
                    scores[fraction],
                )
                for fraction in fractions
            ]
        if len(tables[WHOLE]) > 1:
            agreement += [
                FractionAgreement(metric.name, first, second, kendall_tau(utilities[first], utilities[second]))
                for first, second in combinations(fractions, 2)
            ]
    return DataUse(
        fractions, tuple(found), tuple(agreement), _finding(metrics[0], fractions, found, agreement, resampled_tau)
    )


def _score(
    metric: Metric,
    loss: str,
    fraction: float,
    size: tuple[int, int],
    values: Sequence[float],
    whole: float,
    rank: int,
    scores: Iterable[CaseScore],
) -> FractionScore:
    mean = statistics.fmean(values)
    sd = statistics.stdev(values) if len(values) > 1 else None
    status = {(score.fold, score.seed): score.status for score in scores if score.loss == loss}
    return FractionScore(
        metric=metric.name,
        loss=loss,
        fraction=fraction,
        fewest_training_subjects=size[0],
        most_training_subjects=size[1],
        mean=mean,
        sd=sd,
        se=None if sd is None else sd / math.sqrt(len(values)),
        subjects=len(values),
        rank=rank,
        share_of_whole=mean / whole if metric.higher_is_better and whole > 0 else None,
        trainings=len(status),
        failures=sum(ended is not Status.DONE for ended in status.values()),
    )


def _finding(
    metric: Metric,
    fractions: Sequence[float],
    scores: Iterable[FractionScore],
    agreement: Iterable[FractionAgreement],
    resampled_tau: float | None,
) -> str:
    """How much of the whole's score the smallest fraction reaches, and how far its ranking is the whole's."""
    least = [score for score in scores if score.metric == metric.name and score.fraction == fractions[0]]
    whole = [score for score in scores if score.metric == metric.name and score.fraction == WHOLE]
    told = f"With {fractions[0]:g} of the training subjects ({size_told(least[0])}) "
    shares = sorted((score.share_of_whole, score.loss) for score in least if score.share_of_whole is not None)
    if len(shares) == len(least):
        (low, worst), (high, best) = shares[0], shares[-1]
        several = f"losses reach {low:.0%} ({worst}) to {high:.0%} ({best})"
        reached = several if len(shares) > 1 else f"{worst} reaches {low:.0%}"
        told += f"{reached} of the {metric.label} with all."
        if round(high, 2) > 1:
            told += " Above 100% trainings are too short to use all subjects, or it is noise: raise --steps or --seeds."
    else:
        mean, of_all = (statistics.fmean(score.mean for score in group) for group in (least, whole))
        unit = f" {metric.unit}" if metric.unit else ""
        told += f"the mean {metric.label} of the losses is {mean:.3g}{unit}, with all it is {of_all:.3g}{unit}."
    taus = {one.first: one.tau for one in agreement if (one.metric, one.second) == (metric.name, WHOLE)}
    if not taus:
        return told
    if all(tau is not None and math.isclose(tau, 1) for tau in taus.values()):
        return f"{told} The ranking of the losses is the same with every fraction."
    shown = ", ".join(f"{'not defined' if tau is None else f'{tau:.2f}'} with {first:g}" for first, tau in taus.items())
    resampled = "" if resampled_tau is None else f" Resamples of the tested subjects alone have {resampled_tau:.2f}."
    return f"{told} Kendall's τ of the ranking with that of all training subjects: {shown}.{resampled}"


def size_told(score: FractionScore) -> str:
    """``3 subjects``, ``2 to 3 subjects``."""
    fewest, most = score.fewest_training_subjects, score.most_training_subjects
    return f"{fewest} to {most} subjects" if fewest < most else f"{most} subject{'s' if most > 1 else ''}"


def fractions_csv(found: DataUse) -> str:
    """The text of ``fractions.csv``: a row per metric, loss and fraction."""
    return csv_text(_COLUMNS, ({**asdict(score), "fraction": f"{score.fraction:g}"} for score in found.scores))
