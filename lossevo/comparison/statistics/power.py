"""What a comparison can find: variance of a paired difference by its sources, and what follows for its size.

The subjects of a fold are segmented by the same network in each repetition (seed). The difference of two losses for
subject i of fold f and seed r is modelled as δ + subjectᵢ + training_{fr} + rest_{ir}, all independent and normal. The
variances come from the mean squares of the two-way layouts within the folds, pooled (Searle, Casella and McCulloch,
Variance Components, 1992, chapter 4), cut off at 0. The mean over n subjects, F folds of one size and R seeds has the
variance σ²_subject/n + σ²_training/(FR) + σ²_rest/(nR).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import NDArray

from lossevo.comparison.statistics.table import TIE_DECIMALS, Array, Scores, score_table

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
        subjects_needed: with as many folds and seeds; None if no number of subjects is enough.
        seeds_needed: with as many subjects; None if no number of seeds is enough, or with one seed, which does not
            tell the luck of trainings from what is peculiar to a subject.
        sd_subject: standard deviation of the difference between subjects; with one seed that of the rest is in it.
        sd_training: between trainings, for all subjects of a fold alike; None with one seed. If every subject is a fold
            of its own it is in the rest, and 0.
        sd_rest: what is left; None with one seed.
        subjects: number of subjects.
        seeds: number of seeds.
    """

    smallest: float
    target: float
    subjects_needed: int | None
    seeds_needed: int | None
    sd_subject: float
    sd_training: float | None
    sd_rest: float | None
    subjects: int
    seeds: int


@dataclass(frozen=True, slots=True)
class SignalToNoise:
    """Whether a task can tell losses apart at all.

    Attributes:
        between: standard deviation over losses of their mean over subjects and seeds.
        within: over seeds of the mean over subjects, pooled over losses, less what a seed does to all losses alike;
            None with one seed.
        ratio: the first by the second; None with one seed, or where seeds make no difference.
        seeds: number of seeds.
    """

    between: float
    within: float | None
    ratio: float | None
    seeds: int


def pair_power(differences: Array, target: float, folds: Sequence[int] | None = None) -> PairPower | None:
    """Power of the comparison with the paired ``differences`` (seeds, subjects); None for one subject.

    ``folds`` is the fold of each subject; without it they are all in one. The power is that of the t-test on n - 1
    degrees of freedom with the variance above. More subjects are taken to be like these, in as many folds, and
    trainings with them to be as good.

    Raises:
        ValueError: ``target`` is negative.
    """
    if target < 0:
        raise ValueError(f"target is {target}; give a number from 0 up")
    seeds, subjects = differences.shape
    if subjects < 2:
        return None
    members = _members(subjects, folds)
    subject, training, rest = _components(differences, members)
    networks = 1 / float(((members.sum(axis=1) / subjects) ** 2).sum())  # the number of folds, if they are of one size

    def smallest(n: int, repetitions: int) -> float:
        variance = subject / n + training / (networks * repetitions) + rest / (n * repetitions)
        return _noncentrality(n - 1) * math.sqrt(variance)

    several = seeds > 1
    return PairPower(
        smallest=smallest(subjects, seeds),
        target=target,
        subjects_needed=_least(lambda n: smallest(n, seeds) <= target, 2),
        seeds_needed=_least(lambda repetitions: smallest(subjects, repetitions) <= target, 1) if several else None,
        sd_subject=math.sqrt(subject),
        sd_training=math.sqrt(training) if several else None,
        sd_rest=math.sqrt(rest) if several else None,
        subjects=subjects,
        seeds=seeds,
    )


def signal_to_noise(by_seed: Mapping[int, Scores]) -> SignalToNoise | None:
    """Signal to noise of seed → loss → subject → value; None for one loss.

    Nothing is taken off ``between``: by noise alone the ratio is about 1/√seeds.
    """
    means = np.array([score_table(scores).utilities.mean(axis=1) for scores in by_seed.values()])
    means = np.round(means, TIE_DECIMALS)
    seeds, losses = means.shape
    if losses < 2:
        return None
    between = float(means.mean(axis=0).std(ddof=1))
    within = None
    if seeds > 1:
        alone = means - means.mean(axis=1, keepdims=True) - means.mean(axis=0) + means.mean()
        within = math.sqrt(round(float((alone**2).sum()), 2 * TIE_DECIMALS) / ((seeds - 1) * (losses - 1)))
    return SignalToNoise(between, within, between / within if within else None, seeds)


def _members(subjects: int, folds: Sequence[int] | None) -> NDArray[np.bool_]:
    """(folds, subjects): who is in which fold."""
    of_subject = np.zeros(subjects, dtype=int) if folds is None else np.array(folds)
    return np.array([of_subject == fold for fold in np.unique(of_subject)])


def _components(differences: Array, members: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Variances between subjects, between trainings, and of the rest; with one seed all of it is between subjects."""
    (seeds, subjects), count = differences.shape, len(members)
    if seeds == 1:
        return float(differences[0].var(ddof=1)), 0.0, 0.0
    if count == subjects:
        rest = float(differences.var(axis=0, ddof=1).mean())
        return max(0.0, float(differences.mean(axis=0).var(ddof=1)) - rest / seeds), 0.0, rest
    of_subjects = of_trainings = of_rest = 0.0
    for member in members:
        part = differences[:, member]
        by_subject, by_training = part.mean(axis=0), part.mean(axis=1, keepdims=True)
        of_subjects += seeds * float(((by_subject - part.mean()) ** 2).sum())
        of_trainings += by_subject.size * float(((by_training - part.mean()) ** 2).sum())
        of_rest += float(((part - by_subject - by_training + part.mean()) ** 2).sum())
    rest = of_rest / ((seeds - 1) * (subjects - count))
    subject = (of_subjects / (subjects - count) - rest) / seeds
    training = (of_trainings / ((seeds - 1) * count) - rest) * count / subjects
    return max(0.0, subject), max(0.0, training), rest


@lru_cache(maxsize=4096)
def _noncentrality(degrees: int) -> float:
    """Of the t-test that finds a difference with 80 % power: the difference by its standard error."""
    critical = float(scipy.stats.t.ppf(1 - ALPHA / 2, degrees))

    def lacking(noncentrality: float) -> float:  # that the other tail finds it is less than 1e-5, and no find
        return float(scipy.stats.nct.sf(critical, degrees, noncentrality)) - POWER

    return float(scipy.optimize.brentq(lacking, 0.1, 2 * critical + 1))


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
