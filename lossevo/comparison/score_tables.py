"""The scores of a comparison as other tools read them.

A case is a subject there: both tools take cases for independent, and the subject is what is independent here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from lossevo.comparison.scores import CaseScore, subject_scores
from lossevo.csv_files import csv_text
from lossevo.metrics import Metric

_CHALLENGER_COLUMNS = ("task", "case", "algorithm", "metric_value")


def challenger_csv(scores: Sequence[CaseScore], cohort: str, metrics: Sequence[Metric]) -> str:
    """The text of ``challenger.csv``, for the R package challengeR: a row per task, case and algorithm.

    A task is a metric of a class of a cohort, ``cohort: class: metric``, so that the files of several cohorts can be
    joined. A case is a subject, an algorithm a loss; the value is the metric's mean over the subject's cases and the
    seeds, and lower is better where it is for the metric. Where a label lacks the class there is no row, for any loss.
    """
    by_class: dict[str, list[CaseScore]] = defaultdict(list)
    for score in scores:
        by_class[score.class_name].append(score)
    rows = [
        {"task": f"{cohort}: {name}: {metric.name}", "case": subject, "algorithm": loss, "metric_value": value}
        for metric in metrics
        for name, found in by_class.items()
        for loss, subjects in subject_scores(found, metric.name).items()
        for subject, value in subjects.items()
    ]
    return csv_text(_CHALLENGER_COLUMNS, rows)


def claims_reloaded_csv(scores: Sequence[CaseScore], metrics: Sequence[Metric]) -> str:
    """The text of ``claims_reloaded.csv``: a row per metric and subject, a column per loss, the value that statistics
    see.
    """
    losses = [*dict.fromkeys(score.loss for score in scores)]
    first, case = _not_among(losses, "metric"), _not_among(losses, "case")
    rows = [
        {first: metric.name, case: subject, **{loss: by_loss[loss][subject] for loss in losses}}
        for metric in metrics
        for by_loss in (subject_scores(scores, metric.name),)
        for subject in next(iter(by_loss.values()), {})
    ]
    return csv_text((first, case, *losses), rows)


def _not_among(losses: Sequence[str], column: str) -> str:
    """The name of a column that no loss has."""
    while column in losses:
        column += "_"
    return column
