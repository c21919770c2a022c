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
        rank_biserial: effect size of that test; below 0 most subjects speak for ``worse``, though its mean is worse.
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
    rank_biserial: float
    false_claim: float | None
    relevance: Relevance | None

    @property
    def told_apart(self) -> bool:
        """Whether the test finds ``better`` better: mean and ranks agree, and p_holm is below 0.05."""
        return self.p_holm < ALPHA and self.rank_biserial > 0

    @property
    def contradicts(self) -> bool:
        """Whether the test finds ``worse`` better, against the means, which few subjects may decide."""
        return self.p_holm < ALPHA and self.rank_biserial < 0


def all_pairs(table: ScoreTable, *, rope: float, seed: int) -> tuple[Pair, ...]:
    """Every pair, by the means of its losses."""
    order = table.by_mean
    places = [(one, other) for number, one in enumerate(order) for other in order[number + 1 :]]
    if not places:
        return ()
    rows = np.round([table.utilities[one] - table.utilities[other] for one, other in places], TIE_DECIMALS)
    intervals = bootstrap_intervals(rows, np.random.default_rng(seed))
    tests = [signed_rank(row) for row in rows]
    return tuple(
        Pair(
            better=table.losses[one],
            worse=table.losses[other],
            difference=float(row.mean()),
            ci_low=low,
            ci_high=high,
            p=p,
            p_holm=p_holm,
            rank_biserial=rank_biserial,
            false_claim=false_claim_probability(row),
            relevance=relevance(row, rope),
        )
        for (one, other), row, (low, high), (p, rank_biserial), p_holm in zip(
            places, rows, intervals, tests, holm([p for p, _ in tests]), strict=True
        )
    )


def not_told_apart(pairs: tuple[Pair, ...]) -> tuple[str, tuple[str, ...]]:
    """The loss with the best mean, and those that cannot be told apart from it, by their means.

    A loss can be told apart from the best if the signed-rank test between the two speaks for the best with p < 0.05
    after Holm's adjustment over all pairs of losses. All pairs count, since the best was not named before.

    Raises:
        ValueError: no pair.
    """
    if not pairs:
        raise ValueError("one loss alone cannot be told apart from another")
    best = pairs[0].better
    return best, tuple(pair.worse for pair in pairs if pair.better == best and not pair.told_apart)


def verdict(pairs: tuple[Pair, ...]) -> str:
    """Who cannot be told apart from the best, and for whom means and ranks disagree."""
    best, others = not_told_apart(pairs)
    against = [pair.worse for pair in pairs if pair.better == best and pair.contradicts]
    doubt = (
        f" Means and ranks disagree: most subjects speak for {' and '.join(against)}, against {best}, and few with "
        "large differences, such as those of a failed training, decide the means."
        if against
        else ""
    )
    return _told_apart(pairs, best, others) + doubt


def _told_apart(pairs: tuple[Pair, ...], best: str, others: tuple[str, ...]) -> str:
    count = sum(pair.better == best for pair in pairs)
    if not others:
        return f"{best} is the best: it can be told apart from {'all others' if count > 1 else pairs[0].worse}."
    what = "This loss" if len(others) == 1 else f"These {len(others)} losses"
    which = f"{what} cannot be told apart from the best, {best}: {', '.join(others)}."
    return which if len(others) < count or count == 1 else f"{which} No loss can be told apart from it."
