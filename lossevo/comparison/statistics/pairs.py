"""Means with their uncertainty, and paired differences with their tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from lossevo.comparison.statistics.bootstrap import bootstrap_interval
from lossevo.comparison.statistics.table import TIE_DECIMALS, Array, require_finite, score_table

_LARGEST_EXACT = 200


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean over ``subjects``, and what one subject has not: standard deviation and bootstrap interval of the mean."""

    mean: float
    sd: float | None
    ci_low: float | None
    ci_high: float | None
    subjects: int


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Reference minus other in utility, over the subjects, who are the same for both.

    Attributes:
        difference: mean difference; above 0 the reference is better.
        se: standard error of the mean difference, SD/√n; None for one subject.
        ci_low: of the bootstrap interval of the mean difference; None for one subject.
        ci_high: its upper end.
        wins: subjects for whom the reference is better.
        ties: subjects for whom both are equal.
        losses: subjects for whom the other is better.
        rank_biserial: effect size in [-1, 1], (W₊ - W₋)/(W₊ + W₋) with the rank sums of positive and negative
            differences; 0 if all tie.
        p: of the two-sided Wilcoxon signed-rank test; 1 if all tie.
        p_smallest: the smallest p that a test of so many untied pairs can have, 2^(1-n).
        subjects: number of pairs.
    """

    difference: float
    se: float | None
    ci_low: float | None
    ci_high: float | None
    wins: int
    ties: int
    losses: int
    rank_biserial: float
    p: float
    p_smallest: float
    subjects: int


def describe(scores: Mapping[str, float], *, seed: int) -> Mean:
    """Mean, SD and bootstrap interval over subjects.

    Raises:
        ValueError: no subject, or a score that is no finite number.
    """
    if not scores:
        raise ValueError("no subject has a defined score")
    require_finite(scores)
    values = np.array([scores[subject] for subject in sorted(scores)])
    sd = float(values.std(ddof=1)) if values.size > 1 else None
    low, high = bootstrap_interval(values, np.random.default_rng(seed))
    return Mean(float(values.mean()), sd, low, high, values.size)


def paired_difference(
    reference: Mapping[str, float], other: Mapping[str, float], *, seed: int, higher_is_better: bool = True
) -> PairedDifference:
    """Compare two losses subject by subject.

    Raises:
        ValueError: no subject, a score that is no finite number, or not the same subjects: leaving some out would
            choose them by what a loss predicted.
    """
    scores = score_table({"reference": reference, "other": other}, higher_is_better=higher_is_better).utilities
    differences = np.round(scores[0] - scores[1], TIE_DECIMALS)
    count = differences.size
    low, high = bootstrap_interval(differences, np.random.default_rng(seed))
    p, rank_biserial = signed_rank(differences)
    untied = int(np.count_nonzero(differences))
    return PairedDifference(
        difference=float(differences.mean()),
        se=float(differences.std(ddof=1)) / math.sqrt(count) if count > 1 else None,
        ci_low=low,
        ci_high=high,
        wins=int((differences > 0).sum()),
        ties=count - untied,
        losses=int((differences < 0).sum()),
        rank_biserial=rank_biserial,
        p=p,
        p_smallest=min(1.0, 2.0 ** (1 - untied)),
        subjects=count,
    )


def signed_rank(differences: Array) -> tuple[float, float]:
    """Two-sided p of the Wilcoxon signed-rank test, zeros dropped, and the matched-pairs rank-biserial correlation.

    Up to 200 differences p is exact, also where their sizes tie (SciPy's exact p is not); beyond that it is SciPy's
    normal approximation. For the effect size see Kerby, Comprehensive Psychology 2014, 3:1.
    """
    untied = differences[differences != 0]
    if untied.size == 0:
        return 1.0, 0.0
    ranks = scipy.stats.rankdata(np.abs(untied))
    rank_biserial = float(np.sign(untied) @ ranks / ranks.sum())
    if untied.size > _LARGEST_EXACT:
        return float(scipy.stats.wilcoxon(untied).pvalue), rank_biserial
    # Tied ranks are halves, so twice a rank is whole. chance[w]: that random signs give a doubled rank sum of w.
    doubled = np.rint(2 * ranks).astype(int)
    chance = np.zeros(doubled.sum() + 1)
    chance[0] = 1.0
    for rank in doubled:
        chance[rank:] = chance[rank:] + chance[:-rank]
        chance /= 2
    positive = doubled[untied > 0].sum()
    tail = min(chance[: positive + 1].sum(), chance[positive:].sum())
    return min(1.0, 2 * float(tail)), rank_biserial


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: p₍ᵢ₎ of m sorted ones becomes max over j ≤ i of min(1, (m - j + 1) p₍ⱼ₎). Holm,
    1979.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted
