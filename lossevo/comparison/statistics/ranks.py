"""How firm a ranking is: that of the mean over subjects, repeated on subjects drawn with replacement.

Wiesenfarth et al., Methods and open-source toolkit for analyzing and visualizing challenge results, Sci. Rep. 2021,
11:2369.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from lossevo.comparison.statistics.bootstrap import CONFIDENCE
from lossevo.comparison.statistics.table import TIE_DECIMALS, Array, ScoreTable

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Rank:
    """The ranks of a loss, 1 the best; losses that tie share the better rank.

    Attributes:
        rank: that of its mean over all subjects.
        median: of its ranks in the resamples.
        ci_low: lower end of the interval that holds the middle 95 % of them.
        ci_high: its upper end.
        shares: share of the resamples in which it has rank 1, 2, and so on.
    """

    rank: int
    median: float
    ci_low: float
    ci_high: float
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Ranks by loss, the best first, and Kendall's τ-b of each resample's ranking with the full one.

    ``tau`` is the mean, ``tau_low`` and ``tau_high`` hold the middle 95 %; None if all losses tie.
    """

    ranks: dict[str, Rank]
    tau: float | None
    tau_low: float | None
    tau_high: float | None


def rank_distribution(table: ScoreTable, *, seed: int, resamples: int = RESAMPLES) -> Ranking | None:
    """The ranking of ``table`` and its bootstrap over subjects; None for one subject, or for one loss."""
    count, subjects = table.utilities.shape
    if count < 2 or subjects < 2:
        return None
    draws = np.random.default_rng(seed).multinomial(subjects, np.full(subjects, 1 / subjects), size=resamples)
    full = np.round(table.utilities.mean(axis=1), TIE_DECIMALS)
    means = np.round(draws @ table.utilities.T / subjects, TIE_DECIMALS)
    whole = scipy.stats.rankdata(-full, method="min").astype(int)
    ranks = scipy.stats.rankdata(-means, method="min", axis=1).astype(int)
    low, middle, high = np.quantile(ranks, _MIDDLE, axis=0, method="inverted_cdf")
    shares = np.array([(ranks == rank).mean(axis=0) for rank in range(1, count + 1)])
    taus = _taus(full, means)
    tau_low, _, tau_high = (None, None, None) if taus is None else map(float, np.quantile(taus, _MIDDLE))
    return Ranking(
        ranks={
            table.losses[place]: Rank(
                rank=int(whole[place]),
                median=float(middle[place]),
                ci_low=float(low[place]),
                ci_high=float(high[place]),
                shares=tuple(map(float, shares[:, place])),
            )
            for place in table.by_mean
        },
        tau=None if taus is None else float(taus.mean()),
        tau_low=tau_low,
        tau_high=tau_high,
    )


_MIDDLE = ((1 - CONFIDENCE) / 2, 0.5, (1 + CONFIDENCE) / 2)


def kendall_tau(one: Array, other: Array) -> float | None:
    """Kendall's τ-b of two rankings by utility; None if all of one of them tie."""
    tau = float(scipy.stats.kendalltau(np.round(one, TIE_DECIMALS), np.round(other, TIE_DECIMALS)).statistic)
    return tau if np.isfinite(tau) else None


def _taus(full: Array, resampled: Array) -> Array | None:
    """Kendall's τ-b of ``full`` with each row; 0 for a row in which all tie, None if all of ``full`` tie."""
    one, other = np.triu_indices(full.size, 1)
    expected = np.sign(full[one] - full[other])
    if not expected.any():
        return None
    found = np.sign(resampled[:, one] - resampled[:, other])
    untied = np.abs(found).sum(axis=1)
    taus: Array = (found @ expected) / np.sqrt(np.maximum(untied, 1) * np.abs(expected).sum())
    return taus
