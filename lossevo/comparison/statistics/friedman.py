"""Friedman's test over all losses, Nemenyi's post hoc test, and the data of a critical-difference diagram.

Demšar, Statistical comparisons of classifiers over multiple data sets, J. Mach. Learn. Res. 2006, 7:1. The blocks are
subjects. Nemenyi compares average ranks, which depend on the other losses too (Benavoli et al., J. Mach. Learn. Res.
2016, 17:5): the verdict of a comparison rests on paired tests (:mod:`~lossevo.comparison.statistics.groups`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy

from lossevo.comparison.statistics.table import TIE_DECIMALS, ScoreTable

ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Friedman:
    """Friedman's test and what its diagram shows.

    Attributes:
        chi2: the statistic, corrected for ties; 0 if all losses tie for every subject.
        p: of the test, by the χ² distribution with (losses - 1) degrees of freedom; 1 if all tie.
        average_ranks: loss → its mean rank over subjects, 1 the best, ties averaged; the best first.
        critical_difference: average ranks that differ by less cannot be told apart at 5 %.
        cliques: the largest groups within which no two average ranks differ by the critical difference.
        nemenyi: loss → loss → p of Nemenyi's test.
    """

    chi2: float
    p: float
    average_ranks: dict[str, float]
    critical_difference: float
    cliques: tuple[tuple[str, ...], ...]
    nemenyi: dict[str, dict[str, float]]


def friedman(table: ScoreTable) -> Friedman | None:
    """The tests for ``table``; None for fewer than three losses or two subjects, for which they are not defined."""
    count, subjects = table.utilities.shape
    if count < 3 or subjects < 2:
        return None
    from scikit_posthocs import posthoc_nemenyi_friedman  # takes seconds

    worse_is_lower = np.round(table.utilities, TIE_DECIMALS)
    ranks = scipy.stats.rankdata(-worse_is_lower, axis=0)
    if (ranks == ranks[0]).all():
        chi2, p = 0.0, 1.0
    else:
        chi2, p = map(float, scipy.stats.friedmanchisquare(*ranks))
    means = ranks.mean(axis=1)
    order = np.argsort(means, kind="stable")
    distance = critical_difference(count, subjects)
    nemenyi = posthoc_nemenyi_friedman(ranks.T).to_numpy()
    return Friedman(
        chi2=chi2,
        p=p,
        average_ranks={table.losses[place]: float(means[place]) for place in order},
        critical_difference=distance,
        cliques=_cliques([table.losses[place] for place in order], [float(means[place]) for place in order], distance),
        nemenyi={
            table.losses[row]: {table.losses[column]: float(nemenyi[row, column]) for column in order} for row in order
        },
    )


def critical_difference(losses: int, subjects: int) -> float:
    """Nemenyi's q √(k(k+1)/(6n)) with q the 95 % quantile of the studentized range of k means, divided by √2."""
    quantile = float(scipy.stats.studentized_range.ppf(1 - ALPHA, losses, np.inf)) / math.sqrt(2)
    return quantile * math.sqrt(losses * (losses + 1) / (6 * subjects))


def _cliques(losses: list[str], ranks: list[float], distance: float) -> tuple[tuple[str, ...], ...]:
    """The runs of at least two losses, sorted by rank, that span less than ``distance`` and lie in no longer run."""
    found: list[tuple[int, int]] = []
    for start, rank in enumerate(ranks):
        end = start
        while end + 1 < len(ranks) and ranks[end + 1] - rank < distance:
            end += 1
        if end > start and not (found and found[-1][1] >= end):
            found.append((start, end))
    return tuple(tuple(losses[start : end + 1]) for start, end in found)
