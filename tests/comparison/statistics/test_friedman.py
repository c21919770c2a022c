from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lossevo.comparison.statistics import critical_difference, friedman


@pytest.fixture(scope="module")
def scores() -> np.ndarray:
    rng = np.random.default_rng(2)
    return rng.normal(0, 1, size=14) + np.array([[1.0], [0.9], [0.3], [0.0], [-2.0]]) + rng.normal(0, 0.4, (5, 14))


def test_is_scipys_test(table, scores):
    found, expected = friedman(table(scores)), stats.friedmanchisquare(*scores)
    assert (found.chi2, found.p) == pytest.approx((expected.statistic, expected.pvalue))


def test_average_ranks_begin_with_the_best(table, scores):
    ranks = friedman(table(scores)).average_ranks
    assert list(ranks.values()) == sorted(ranks.values())
    assert sum(ranks.values()) == pytest.approx(15)
    assert list(ranks)[-1] == "e"
    assert ranks["e"] == 5


def test_where_lower_is_better_ranks_turn(table, scores):
    assert friedman(table(scores, higher_is_better=False)).average_ranks["e"] == 1


@pytest.mark.parametrize(("losses", "q"), [(3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_difference_has_the_published_quantiles(losses, q):
    """Table 5a of Demšar 2006."""
    assert critical_difference(losses, 30) == pytest.approx(q * math.sqrt(losses * (losses + 1) / 180), rel=1e-3)


def test_nemenyi_by_the_studentized_range(table, scores):
    found = friedman(table(scores))
    distance = found.average_ranks["e"] - found.average_ranks["c"]
    expected = stats.studentized_range.sf(distance / math.sqrt(5 * 6 / (6 * 14)) * math.sqrt(2), 5, np.inf)
    assert found.nemenyi["c"]["e"] == found.nemenyi["e"]["c"] == pytest.approx(expected)


def test_cliques_and_nemenyi_agree(table, scores):
    found = friedman(table(scores))
    together = {frozenset((one, other)) for clique in found.cliques for one in clique for other in clique}
    for one, row in found.nemenyi.items():
        for other, p in row.items():
            assert one == other or (frozenset((one, other)) in together) == (p > 0.05)
    for clique in found.cliques:
        assert not any(set(clique) < set(other) for other in found.cliques)


def test_all_equal(table):
    found = friedman(table(np.full((4, 6), 0.5)))
    assert (found.chi2, found.p) == (0.0, 1.0)
    assert set(found.average_ranks.values()) == {2.5}
    assert found.cliques == (("a", "b", "c", "d"),)


def test_ties_are_those_of_scipy(table):
    rows = np.array([[3, 2, 3, 3], [3, 1, 2, 3], [1, 1, 1, 0]], dtype=float)
    assert friedman(table(rows)).p == pytest.approx(stats.friedmanchisquare(*rows).pvalue)


@pytest.mark.parametrize("shape", [(2, 8), (4, 1)])
def test_is_not_defined_for_two_losses_or_one_subject(table, shape):
    assert friedman(table(np.random.default_rng(0).normal(size=shape))) is None
