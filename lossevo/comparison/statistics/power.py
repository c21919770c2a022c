"""What a comparison can find: variance of a paired difference by its sources, and what follows for its size.

The difference of two losses for subject i and seed r is modelled as δ + subjectᵢ + seedᵣ + restᵢᵣ, all independent and
normal. Their variances come from the mean squares of the two-way layout (Searle, Casella and McCulloch, Variance
Components, 1992, section 4.5), cut off at 0. The mean over n subjects and R seeds has the variance
σ²_subject/n + σ²_seed/R + σ²_rest/(nR).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import optimize, stats

from lossevo.comparison.statistics.table import Array, Scores, score_table

POWER = 0.8
ALPHA = 0.05
MOST = 1_000_000
"""More subjects or seeds than this count as none."""


@dataclass(frozen=True, slots=True)
class PairPower:
    """What a comparison of two losses can find, two-sided at 5 % with 80 % power.

    Attributes:
        smallest: the smallest difference that it could have found.
        target: the difference that the next two are for.
        subjects_needed: with as many seeds; None if no number of subjects is enough.
        seeds_needed: with as many subjects; None if no number of seeds is enough, or with one seed, which does not
            tell the luck of trainings from what is peculiar to a subject.
        sd_subject: standard deviation of the difference between subjects; with one seed that of the rest is in it.
        sd_seed: between seeds, for all subjects alike; None with one seed.
        sd_rest: what is left; None with one seed.
        subjects: number of subjects.
        seeds: number of seeds.
    """

    smallest: float
    target: float
    subjects_needed: int | None
    seeds_needed: int | None
    sd_subject: float
    sd_seed: float | None
    sd_rest: float | None
    subjects: int
    seeds: int


@dataclass(frozen=True, slots=True)
class SignalToNoise:
    """Whether a task can tell losses apart at all.

    Attributes:
        between: standard deviation over losses of their mean over subjects and seeds.
        within: over seeds of the mean over subjects, pooled over losses; None with one seed.
        ratio: the first by the second; None with one seed, or where seeds make no difference.
        seeds: number of seeds.
    """

    between: float
    within: float | None
    ratio: float | None
    seeds: int


def pair_power(differences: Array, target: float) -> PairPower | None:
    """Power of the comparison with the paired ``differences`` (seeds, subjects); None for one subject.

    It is that of the t-test on n - 1 degrees of freedom with the variance above. More subjects are taken to be like
    these, and trainings with them to be as good.

    Raises:
        ValueError: ``target`` is negative.
    """
    if target < 0:
        raise ValueError(f"target is {target}; give a number from 0 up")
    seeds, subjects = differences.shape
    if subjects < 2:
        return None
    subject, seed, rest = _components(differences)

    def smallest(n: int, repetitions: int) -> float:
        variance = subject / n + seed / repetitions + rest / (n * repetitions)
        return _noncentrality(n - 1) * math.sqrt(variance)

    several = seeds > 1
    return PairPower(
        smallest=smallest(subjects, seeds),
        target=target,
        subjects_needed=_least(lambda n: smallest(n, seeds) <= target, 2),
        seeds_needed=_least(lambda repetitions: smallest(subjects, repetitions) <= target, 1) if several else None,
        sd_subject=math.sqrt(subject),
        sd_seed=math.sqrt(seed) if several else None,
        sd_rest=math.sqrt(rest) if several else None,
        subjects=subjects,
        seeds=seeds,
    )


def signal_to_noise(by_seed: Mapping[int, Scores]) -> SignalToNoise | None:
    """Signal to noise of seed → loss → subject → value; None for one loss.

    Nothing is taken off ``between``: by noise alone the ratio is about 1/√seeds.
    """
    means = np.array([score_table(scores).utilities.mean(axis=1) for scores in by_seed.values()])
    seeds, losses = means.shape
    if losses < 2:
        return None
    between = float(means.mean(axis=0).std(ddof=1))
    within = math.sqrt(float(means.var(axis=0, ddof=1).mean())) if seeds > 1 else None
    return SignalToNoise(between, within, between / within if within else None, seeds)


def _components(differences: Array) -> tuple[float, float, float]:
    """Variances between subjects, between seeds, and of the rest; with one seed all of it is between subjects."""
    seeds, subjects = differences.shape
    by_subject, by_seed = differences.mean(axis=0), differences.mean(axis=1)
    if seeds == 1:
        return float(by_subject.var(ddof=1)), 0.0, 0.0
    residual = differences - by_subject - by_seed[:, np.newaxis] + differences.mean()
    rest = float((residual**2).sum()) / ((seeds - 1) * (subjects - 1))
    subject = (seeds * float(by_subject.var(ddof=1)) - rest) / seeds
    seed = (subjects * float(by_seed.var(ddof=1)) - rest) / subjects
    return max(0.0, subject), max(0.0, seed), rest


@lru_cache(maxsize=4096)
def _noncentrality(degrees: int) -> float:
    """Of the t-test that finds a difference with 80 % power: the difference by its standard error."""
    critical = float(stats.t.ppf(1 - ALPHA / 2, degrees))

    def lacking(noncentrality: float) -> float:  # that the other tail finds it is less than 1e-5, and no find
        return float(stats.nct.sf(critical, degrees, noncentrality)) - POWER

    return float(optimize.brentq(lacking, 0.1, 2 * critical + 1))


def _least(enough: Callable[[int], bool], lowest: int) -> int | None:
    """The smallest number from ``lowest`` to :data:`MOST` that is enough, if any; more never is less."""
    high = lowest
    while not enough(high):
        if high >= MOST:
            return None
        high = min(2 * high, MOST)
    low = lowest
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
