"""Rankings of several comparisons together: which losses are good on all cohorts, and how far the cohorts agree.

Rankings of losses hardly transfer from one task to another (Ma et al., Loss odyssey, Medical Image Analysis 2021), so
the agreement of the cohorts stands beside the consensus. The consensus is the mean rank over the cohorts, which weigh
alike, whatever the number of their subjects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import scipy

from lossevo.comparison.compared import Compared, common_losses, names_of, require_comparable
from lossevo.comparison.statistics.table import TIE_DECIMALS, Array
from lossevo.metrics import Metric

RESAMPLES = 2000
_MIDDLE = (0.025, 0.975)


@dataclass(frozen=True, slots=True)
class ConsensusRank:
    """A loss in one metric, over cohorts.

    Attributes:
        loss: its name.
        mean_rank: mean of its ranks; losses that tie share the mean of their places.
        ci_low: of the 95 % interval of the mean rank, when subjects are drawn anew within each cohort.
        ci_high: its upper end.
        ranks: its rank in each cohort, in their order.
        means: its mean in each cohort.
    """

    loss: str
    mean_rank: float
    ci_low: float
    ci_high: float
    ranks: tuple[float, ...]
    means: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Kendall's τ-b of the rankings of two cohorts in one metric; None if all losses tie in one of them."""

    first: str
    second: str
    tau: float | None


@dataclass(frozen=True, slots=True)
class MetricConsensus:
    """One metric over cohorts: losses by their mean rank, and the agreement of each two cohorts."""

    metric: Metric
    losses: tuple[ConsensusRank, ...]
    agreement: tuple[Agreement, ...]

    @property
    def mean_tau(self) -> float | None:
        """Mean of Kendall's τ over all two cohorts; None if it is undefined for all."""
        taus = [one.tau for one in self.agreement if one.tau is not None]
        return math.fsum(taus) / len(taus) if taus else None


@dataclass(frozen=True, slots=True)
class Consensus:
    """Comparisons of the same losses on several cohorts, the main metric first. ``left_out`` are losses that not all of
    the comparisons have.
    """

    cohorts: tuple[str, ...]
    folders: tuple[str, ...]
    metrics: tuple[MetricConsensus, ...]
    left_out: tuple[str, ...]

    @property
    def finding(self) -> str:
        """What the main metric says, in a sentence or two."""
        main = self.metrics[0]
        lowest = main.losses[0].mean_rank
        best = [rank for rank in main.losses if math.isclose(rank.mean_rank, lowest)]
        places = [place for rank in best for place in rank.ranks]
        told = (
            f"By {main.metric.label}, {' and '.join(rank.loss for rank in best)} {'has' if len(best) == 1 else 'have'} "
            f"the best mean rank, {lowest:.3g} of {len(main.losses)}"
        )
        told += ", and is first everywhere." if max(places) == 1 else f" (from {min(places):g} to {max(places):g})."
        if main.mean_tau is None:
            return told
        return f"{told} Kendall's τ between cohorts is {main.mean_tau:.2f} on average; 1 is one ranking, 0 is chance."


def consensus(compared: Sequence[Compared], *, seed: int = 0) -> Consensus:
    """Rank the losses that all comparisons have, over cohorts. ``seed`` draws the resamples.

    Raises:
        LossevoError: fewer than two comparisons, the same twice, or other metrics, grid or labels; fewer than two
            losses that all of them have.
    """
    require_comparable(compared)
    losses, left_out = common_losses(compared)
    metrics = tuple(
        _metric_consensus(metric, losses, compared, names_of(compared), seed) for metric in compared[0].config.measured
    )
    return Consensus(names_of(compared), tuple(str(one.folder) for one in compared), metrics, left_out)


def _metric_consensus(
    metric: Metric, losses: Sequence[str], compared: Sequence[Compared], names: Sequence[str], seed: int
) -> MetricConsensus:
    tables = [_table(one.values[metric.name], losses) for one in compared]
    sign = 1.0 if metric.higher_is_better else -1.0
    means = np.array([table.mean(axis=1) for table in tables])  # (cohorts, losses)
    ranks = np.array([_ranks(sign * of_cohort) for of_cohort in means])
    drawn = np.mean(
        [_resampled_ranks(sign * table, np.random.default_rng([seed, n])) for n, table in enumerate(tables)], axis=0
    )
    low, high = np.quantile(drawn, _MIDDLE, axis=0)
    found = [
        ConsensusRank(
            loss=loss,
            mean_rank=float(ranks[:, place].mean()),
            ci_low=float(low[place]),
            ci_high=float(high[place]),
            ranks=tuple(map(float, ranks[:, place])),
            means=tuple(map(float, means[:, place])),
        )
        for place, loss in enumerate(losses)
    ]
    agreement = tuple(
        Agreement(names[one], names[other], _tau(ranks[one], ranks[other]))
        for one, other in combinations(range(len(compared)), 2)
    )
    return MetricConsensus(metric, tuple(sorted(found, key=lambda rank: rank.mean_rank)), agreement)


def _table(values: Mapping[str, Mapping[str, float]], losses: Sequence[str]) -> Array:
    """(losses, subjects)."""
    return np.array([[values[loss][subject] for subject in values[losses[0]]] for loss in losses])


def _ranks(utilities: Array) -> Array:
    ranks: Array = scipy.stats.rankdata(-np.round(utilities, TIE_DECIMALS), axis=-1)
    return ranks


def _resampled_ranks(utilities: Array, generator: np.random.Generator) -> Array:
    """(resamples, losses): ranks of the means over subjects that are drawn with replacement."""
    subjects = utilities.shape[1]
    draws = generator.multinomial(subjects, np.full(subjects, 1 / subjects), size=RESAMPLES)
    return _ranks(draws @ utilities.T / subjects)


def _tau(one: Array, other: Array) -> float | None:
    tau = float(scipy.stats.kendalltau(one, other).statistic)
    return tau if math.isfinite(tau) else None
