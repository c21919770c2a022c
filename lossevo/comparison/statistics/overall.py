"""All statistics of one metric, from the scores of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lossevo.comparison.statistics.claims import Relevance, false_claim_probability, relevance
from lossevo.comparison.statistics.friedman import Friedman, friedman
from lossevo.comparison.statistics.groups import Pair, all_pairs, verdict
from lossevo.comparison.statistics.power import PairPower, SignalToNoise, pair_power, signal_to_noise
from lossevo.comparison.statistics.ranks import Ranking, rank_distribution
from lossevo.comparison.statistics.table import Scores, ScoreTable, score_table


@dataclass(frozen=True, slots=True)
class Against:
    """The reference against a loss: probability that "the reference is better" is false, that the difference is of
    practical relevance, and what the pair could have found. None for one subject.
    """

    false_claim: float | None
    relevance: Relevance | None
    power: PairPower | None


@dataclass(frozen=True, slots=True)
class Statistics:
    """What is None needs more losses, subjects or seeds; see the function that makes it.

    ``from_best`` is the power of the pairs of the loss with the best mean, by the other loss.
    """

    reference: str
    rope: float
    verdict: str
    friedman: Friedman | None
    ranking: Ranking | None
    pairs: tuple[Pair, ...]
    against: dict[str, Against]
    from_best: dict[str, PairPower | None]
    signal_to_noise: SignalToNoise | None


def statistics_of(
    by_seed: Mapping[int, Scores],
    *,
    reference: str,
    rope: float,
    seed: int,
    higher_is_better: bool = True,
    folds: Mapping[str, int] | None = None,
) -> Statistics:
    """The statistics of seed → loss → subject → value of a metric.

    ``rope`` is the largest difference without practical relevance, in the metric's unit; the sizes that a comparison
    needs are for a difference of just as much. ``seed`` draws the resamples. ``folds`` is the fold of each subject:
    those of one were segmented by the same network. Without it they are all in one.

    Raises:
        ValueError: no seed, loss or subject, a negative rope, other losses or subjects in another seed, or a value that
            is no finite number.
    """
    if not by_seed:
        raise ValueError("no seed has a score")
    if rope < 0:
        raise ValueError(f"rope is {rope}; give a number from 0 up")
    tables = [score_table(scores, higher_is_better=higher_is_better) for scores in by_seed.values()]
    first = tables[0]
    if any((table.losses, table.subjects) != (first.losses, first.subjects) for table in tables):
        raise ValueError("the seeds have not the same losses and subjects")
    utilities = np.array([table.utilities for table in tables])  # (seeds, losses, subjects)
    mean = ScoreTable(first.losses, first.subjects, utilities.mean(axis=0))
    pairs = all_pairs(mean, rope=rope, seed=seed)
    place = first.losses.index(reference)
    fold_of = [folds[subject] for subject in first.subjects] if folds else None

    def power(one: int, other: int) -> PairPower | None:
        return pair_power(utilities[:, one] - utilities[:, other], rope, fold_of)

    best = mean.by_mean[0]
    against = {
        loss: Against(
            false_claim=false_claim_probability(mean.utilities[place] - mean.utilities[other]),
            relevance=relevance(mean.utilities[place] - mean.utilities[other], rope),
            power=power(place, other),
        )
        for other, loss in enumerate(first.losses)
        if loss != reference
    }
    return Statistics(
        reference=reference,
        rope=rope,
        verdict=verdict(pairs) if pairs else "",
        friedman=friedman(mean),
        ranking=rank_distribution(mean, seed=seed),
        pairs=pairs,
        against=against,
        from_best={loss: power(best, other) for other, loss in enumerate(first.losses) if other != best},
        signal_to_noise=signal_to_noise(by_seed),
    )
