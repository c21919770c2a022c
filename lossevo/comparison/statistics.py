"""What a comparison may claim: means with their uncertainty, and paired differences, with subjects as the unit of
analysis.

Classes, cases and seeds are averaged per subject first, since a second case or seed of a person is no second person.
Folds are not analysed as if they were repetitions: their trainings share most of their subjects. What remains
dependent, that the subjects of a fold were segmented by the same trained network, no test here corrects for; more
seeds make it smaller.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 10_000
TIE_DECIMALS = 9
"""Differences are rounded to this: equal Dice values that were averaged in another way are ties."""

_CHUNK = 2**22
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
    """Reference minus other, over the subjects, who are the same for both.

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
        ValueError: no subject.
    """
    values = np.array([scores[subject] for subject in sorted(scores)])
    if values.size == 0:
        raise ValueError("no subject has a defined score")
    sd = float(values.std(ddof=1)) if values.size > 1 else None
    low, high = bootstrap_interval(values, np.random.default_rng(seed))
    return Mean(float(values.mean()), sd, low, high, values.size)


def paired_difference(reference: Mapping[str, float], other: Mapping[str, float], *, seed: int) -> PairedDifference:
    """Compare two losses subject by subject.

    Raises:
        ValueError: no subject, or not the same ones: leaving some out would choose them by what a loss predicted.
    """
    pairs = sorted(reference)
    if not pairs:
        raise ValueError("no subject has a defined score")
    if alone := sorted(reference.keys() ^ other.keys()):
        raise ValueError(f"only one of the two losses has a score of subject {alone[0]}; give both the same subjects")
    differences = np.round([reference[subject] - other[subject] for subject in pairs], TIE_DECIMALS)
    count = len(pairs)
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


def bootstrap_interval(
    values: NDArray[np.float64], generator: np.random.Generator, *, resamples: int = RESAMPLES
) -> tuple[float | None, float | None]:
    """95 % percentile bootstrap interval of the mean: resample the values with replacement ``resamples`` times.

    With n values it is about √((n-1)/n) times as wide as it should be, and ignores the heavier tails of few values:
    below some 20 subjects read it as a lower bound of the uncertainty. (None, None) for fewer than two values, which
    say nothing about spread.
    """
    if values.size < 2:
        return None, None
    chunk = max(1, _CHUNK // values.size)
    means = np.concatenate(
        [
            values[generator.integers(values.size, size=(min(chunk, resamples - start), values.size))].mean(axis=1)
            for start in range(0, resamples, chunk)
        ]
    )
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def signed_rank(differences: NDArray[np.float64]) -> tuple[float, float]:
    """Two-sided p of the Wilcoxon signed-rank test, zeros dropped, and the matched-pairs rank-biserial correlation.

    Up to 200 differences p is exact, also where their sizes tie (SciPy's exact p is not); beyond that it is SciPy's
    normal approximation. For the effect size see Kerby, Comprehensive Psychology 2014, 3:1.
    """
    untied = differences[differences != 0]
    if untied.size == 0:
        return 1.0, 0.0
    ranks = stats.rankdata(np.abs(untied))
    rank_biserial = float(np.sign(untied) @ ranks / ranks.sum())
    if untied.size > _LARGEST_EXACT:
        return float(stats.wilcoxon(untied).pvalue), rank_biserial
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
