from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lossevo.comparison.statistics import all_pairs, holm, not_told_apart, verdict


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Losses b and c are alike and best, a is a little worse, d much."""
    rng = np.random.default_rng(3)
    return rng.normal(0.7, 0.1, size=20) + np.array([[-0.03], [0], [0], [-0.2]]) + rng.normal(0, 0.01, size=(4, 20))


def test_every_pair_once_the_better_first(table, rows):
    pairs = all_pairs(table(rows), rope=0.005, seed=0)
    assert len(pairs) == 6
    assert all(pair.difference >= 0 for pair in pairs)
    assert len({frozenset((pair.better, pair.worse)) for pair in pairs}) == 6


def test_p_is_scipys_with_holm_over_all_pairs(table, rows):
    pairs = all_pairs(table(rows), rope=0.005, seed=0)
    expected = [
        stats.wilcoxon(rows[ord(pair.better) - 97], rows[ord(pair.worse) - 97], method="exact").pvalue for pair in pairs
    ]
    assert [pair.p for pair in pairs] == pytest.approx(expected)
    assert [pair.p_holm for pair in pairs] == pytest.approx(holm(expected))


def test_who_cannot_be_told_apart_from_the_best(table, rows):
    pairs = all_pairs(table(rows), rope=0.005, seed=0)
    best, others = not_told_apart(pairs)
    assert {best, *others} == {"b", "c"}
    assert verdict(pairs) == f"This loss cannot be told apart from the best, {best}: {others[0]}."


def test_with_few_subjects_nobody_can_be_told_apart(table, rows):
    pairs = all_pairs(table(rows[:, :4]), rope=0.005, seed=0)
    told = verdict(pairs)
    assert told.startswith("These 3 losses cannot be told apart from the best")
    assert told.endswith("No loss can be told apart from it.")


def test_a_clear_best(table, rows):
    assert verdict(all_pairs(table(rows[[0, 1, 3]]), rope=0, seed=0)) == (
        "b is the best: it can be told apart from all others."
    )
    assert verdict(all_pairs(table(rows[[0, 1]]), rope=0, seed=0)) == "b is the best: it can be told apart from a."


def test_all_equal(table):
    pairs = all_pairs(table(np.full((3, 5), 0.5)), rope=0.005, seed=0)
    assert {pair.p for pair in pairs} == {1.0}
    assert not_told_apart(pairs) == ("a", ("b", "c"))


def test_of_equal_losses_any_two_are_told_apart_in_at_most_5_percent(table):
    rng, comparisons = np.random.default_rng(4), 120
    told = 0
    for _ in range(comparisons):
        pairs = all_pairs(table(rng.normal(size=(4, 12))), rope=0, seed=0)
        told += any(pair.p_holm < 0.05 for pair in pairs)
    assert told <= stats.binom.ppf(0.99, comparisons, 0.05)


def test_one_loss(table):
    assert all_pairs(table([[0.1, 0.2]]), rope=0, seed=0) == ()
    with pytest.raises(ValueError, match="one loss alone"):
        not_told_apart(())


def test_one_subject(table):
    (pair,) = all_pairs(table([[0.2], [0.1]]), rope=0.005, seed=0)
    assert (pair.difference, pair.ci_low, pair.p, pair.false_claim, pair.relevance) == (0.1, None, 1.0, None, None)


def test_a_mean_that_one_failed_training_decides_is_no_best(table):
    """l0 has the better mean by two subjects whose training with the other failed, and is worse for the other 18."""
    other = np.full(20, 0.8) + np.linspace(0, 0.01, 20)
    first = other - np.linspace(0.004, 0.006, 20)
    other[:2] = 0.0
    (pair,) = all_pairs(table([first, other]), rope=0, seed=0)
    assert (pair.better, pair.told_apart, pair.contradicts) == ("a", False, True)
    assert pair.p_holm < 0.05
    assert pair.rank_biserial < 0
    told = verdict((pair,))
    assert told.startswith("This loss cannot be told apart from the best, a: b.")
    assert "Means and ranks disagree: most subjects speak for b, against a" in told
