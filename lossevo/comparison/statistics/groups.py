"""All pairs of losses, and which losses cannot be told apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lossevo.comparison.statistics.bootstrap import bootstrap_intervals
from lossevo.comparison.statistics.claims import Relevance, false_claim_probability, relevance
from lossevo.comparison.statistics.pairs import holm, signed_rank
from lossevo.comparison.statistics.table import TIE_DECIMALS, ScoreTable

ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Pair:
    """Two losses, ``better`` the one with the better mean, paired by subject.

    Attributes:
        better: the loss with the better mean utility.
        worse: the other.
        difference: by how much, in utility, so never below 0.
        ci_low: of its BCa interval; None for one subject.
        ci_high: its upper end.
        p: of the two-sided Wilcoxon signed-rank test.
        p_holm: adjusted over all pairs of losses.
        false_claim: probability that "``better`` is better than ``worse``" is false; None for one subject.
        relevance: probabilities of a difference of more than rope; None for one subject.
    """

    better: str
    worse: str
    difference: float
    ci_low: float | None
    ci_high: float | None
    p: float
    p_holm: float
    false_claim: float | None
    relevance: Relevance | None


def all_pairs(table: ScoreTable, *, rope: float, seed: int) -> tuple[Pair, ...]:
    """Every pair, by the means of its losses."""
    order = table.by_mean
    places = [(one, other) for number, one in enumerate(order) for other in order[number + 1 :]]
    if not places:
        return ()
    rows = np.round([table.utilities[one] - table.utilities[other] for one, other in places], TIE_DECIMALS)
    intervals = bootstrap_intervals(rows, np.random.default_rng(seed))
    p_values = [signed_rank(row)[0] for row in rows]
    return tuple(
        Pair(
            better=table.losses[one],
            worse=table.losses[other],
            difference=float(row.mean()),
            ci_low=low,
            ci_high=high,
            p=p,
            p_holm=p_holm,
            false_claim=false_claim_probability(row),
            relevance=relevance(row, rope),
        )
        for (one, other), row, (low, high), p, p_holm in zip(
            places, rows, intervals, p_values, holm(p_values), strict=True
        )
    )


def not_told_apart(pairs: tuple[Pair, ...]) -> tuple[str, tuple[str, ...]]:
    """The loss with the best mean, and those that cannot be told apart from it, by their means.

    A loss can be told apart from the best if the signed-rank test between the two has p < 0.05 after Holm's adjustment
    over all pairs of losses. All pairs count, since the best was not named before.

    Raises:
        ValueError: no pair.
    """
    if not pairs:
        raise ValueError("one loss alone cannot be told apart from another")
    best = pairs[0].better
    return best, tuple(pair.worse for pair in pairs if pair.better == best and pair.p_holm >= ALPHA)


def verdict(pairs: tuple[Pair, ...]) -> str:
    """Who cannot be told apart from the best, in a sentence."""
    best, others = not_told_apart(pairs)
    count = sum(pair.better == best for pair in pairs)
    if not others:
        return f"{best} is the best: it can be told apart from {'all others' if count > 1 else pairs[0].worse}."
    what = "This loss" if len(others) == 1 else f"These {len(others)} losses"
    which = f"{what} cannot be told apart from the best, {best}: {', '.join(others)}."
    return which if len(others) < count or count == 1 else f"{which} No loss can be told apart from it."
