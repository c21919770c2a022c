"""The scores of a comparison as other tools read them.

A case is a subject there: both tools take cases for independent, and the subject is what is independent here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from lossevo.comparison.scores import CaseScore, subject_scores
from lossevo.csv_files import csv_text

_CHALLENGER_COLUMNS = ("task", "case", "algorithm", "metric_value")


def challenger_csv(scores: Iterable[CaseScore], cohort: str) -> str:
    """The text of ``challenger.csv``, for the R package challengeR: a row per task, case and algorithm.

    A task is a class of a cohort, so that the files of several cohorts can be joined. A case is a subject, an
    algorithm a loss; the value is the mean Dice over the subject's cases and
    the seeds. Where a label lacks the class there is no row, for any loss.
    """
    by_class: dict[str, list[CaseScore]] = defaultdict(list)
    for score in scores:
        by_class[score.class_name].append(score)
    rows = [
        {"task": f"{cohort}: {name}", "case": subject, "algorithm": loss, "metric_value": value}
        for name, found in by_class.items()
        for loss, subjects in subject_scores(found).items()
        for subject, value in subjects.items()
    ]
    return csv_text(_CHALLENGER_COLUMNS, rows)


def claims_reloaded_csv(scores: Iterable[CaseScore]) -> str:
    """The text of ``claims_reloaded.csv``: a row per subject, a column per loss, the value that statistics see."""
    by_loss = subject_scores(scores)
    case = "case"
    while case in by_loss:
        case += "_"
    subjects = next(iter(by_loss.values()), {})
    rows = ({case: subject, **{loss: values[subject] for loss, values in by_loss.items()}} for subject in subjects)
    return csv_text((case, *by_loss), rows)
