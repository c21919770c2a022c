from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from lossevo.comparison.statistics import rank_distribution

ROWS = np.array([[0.9, 0.6, 0.7], [0.8, 0.8, 0.65], [0.2, 0.9, 0.6]])


def all_resamples(rows: np.ndarray) -> np.ndarray:
    """The mean of each loss in each of the nⁿ resamples of the subjects."""
    count = rows.shape[1]
    draws = np.array(list(itertools.product(range(count), repeat=count)))
    return rows[:, draws].mean(axis=-1).round(9).T


def test_shares_are_those_of_all_resamples(table):
    found = rank_distribution(table(ROWS), seed=0, resamples=40_000)
    ranks = stats.rankdata(-all_resamples(ROWS), method="min", axis=1)
    for place, loss in enumerate("abc"):
        expected = [(ranks[:, place] == rank).mean() for rank in (1, 2, 3)]
        assert found.ranks[loss].shares == pytest.approx(expected, abs=0.01)
        assert found.ranks[loss].median == np.quantile(ranks[:, place], 0.5, method="inverted_cdf")


def test_tau_is_scipys(table):
    found = rank_distribution(table(ROWS), seed=0, resamples=40_000)
    full = ROWS.mean(axis=1)
    taus = np.nan_to_num([stats.kendalltau(full, means).statistic for means in all_resamples(ROWS)])
    assert found.tau == pytest.approx(taus.mean(), abs=0.01)
    assert found.tau_low == pytest.approx(np.quantile(taus, 0.025))


def test_the_best_comes_first_and_a_clear_ranking_is_firm(table):
    rows = np.array([0.5, 0.7, 0.6])[:, np.newaxis] + np.random.default_rng(0).normal(0, 0.01, size=(3, 20))
    found = rank_distribution(table(rows), seed=0)
    assert list(found.ranks) == ["b", "c", "a"]
    assert [rank.rank for rank in found.ranks.values()] == [1, 2, 3]
    assert found.ranks["b"].shares == (1.0, 0.0, 0.0)
    assert (found.tau, found.tau_low, found.tau_high) == pytest.approx((1, 1, 1))
    assert (found.ranks["a"].ci_low, found.ranks["a"].ci_high) == (3, 3)


def test_where_lower_is_better_the_lowest_is_first(table):
    assert list(rank_distribution(table(ROWS, higher_is_better=False), seed=0).ranks)[-1] == "b"


def test_losses_that_tie_share_the_better_rank(table):
    found = rank_distribution(table([[0.5, 0.6], [0.5, 0.6], [0.1, 0.2]]), seed=0)
    assert [found.ranks[loss].rank for loss in "abc"] == [1, 1, 3]
    assert found.ranks["a"].shares == found.ranks["b"].shares == (1.0, 0.0, 0.0)


def test_where_all_tie_there_is_no_tau(table):
    found = rank_distribution(table(np.full((3, 5), 0.5)), seed=0)
    assert found.tau is found.tau_low is found.tau_high is None


@pytest.mark.parametrize("shape", [(1, 5), (3, 1)])
def test_takes_two_losses_and_two_subjects(table, shape):
    assert rank_distribution(table(np.full(shape, 0.5)), seed=0) is None


def test_the_seed_decides(table):
    assert rank_distribution(table(ROWS), seed=1) == rank_distribution(table(ROWS), seed=1)
