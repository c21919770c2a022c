"""Rankings of several comparisons together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lossevo.comparison import consensus
from lossevo.experiment import CohortSource
from tests.comparison.compared_cohorts import LOSSES, ONE, TWO, compared


def test_by_hand():
    found = consensus([ONE, TWO])
    main, distance = found.metrics
    assert {rank.loss: rank.ranks for rank in main.losses} == {
        "dice": (1, 2), "focal": (2, 1), "cross_entropy": (3.5, 3), "tversky": (3.5, 4),
    }  # fmt: skip
    assert [rank.mean_rank for rank in main.losses] == [1.5, 1.5, 3.25, 3.75]
    assert main.losses[0].means == (pytest.approx(0.85), 0.5)
    # lower is better there, and so everything is the same
    assert [(rank.loss, rank.ranks) for rank in distance.losses] == [(rank.loss, rank.ranks) for rank in main.losses]
    expected = stats.kendalltau([1, 2, 3.5, 3.5], [2, 1, 3, 4]).statistic
    assert main.agreement[0].tau == main.mean_tau == pytest.approx(expected)
    assert (main.agreement[0].first, main.agreement[0].second) == ("one", "two")
    assert found.finding.startswith("By Dice, dice and focal have the best mean rank, 1.5 of 4 (from 1 to 2).")


def test_an_external_test_is_no_second_look_at_the_cohort_that_it_trains_on():
    values = {"dice": [0.9, 0.8], "focal": [0.8, 0.7]}
    config = compared("one", values, test_cohort=CohortSource(path=Path("two"))).config
    external = replace(compared("external", values), config=config)
    assert consensus([compared("one", values), external]).cohorts == ("one", "one → two")


def test_the_interval_is_a_bootstrap_over_subjects_within_each_cohort():
    rng = np.random.default_rng(0)
    clear = {loss: list(0.9 - 0.1 * number + rng.normal(0, 0.01, 20)) for number, loss in enumerate(LOSSES)}
    noisy = {loss: list(0.5 + rng.normal(0, 0.2, 20)) for loss in LOSSES}
    sure = consensus([compared("a", clear), compared("b", clear)]).metrics[0].losses
    assert all((rank.ci_low, rank.ci_high) == (rank.mean_rank, rank.mean_rank) for rank in sure)
    assert sure[0].ranks == (1, 1)
    unsure = consensus([compared("a", noisy), compared("b", noisy)]).metrics[0].losses
    assert all(rank.ci_low < rank.mean_rank < rank.ci_high for rank in unsure[1:3])
    assert consensus([compared("a", noisy), compared("b", clear)]) == consensus(
        [compared("a", noisy), compared("b", clear)]
    )


def test_a_winner_everywhere_is_told():
    found = consensus([ONE, compared("two", {"dice": [0.9], "focal": [0.1], "cross_entropy": [0.2], "tversky": [0.1]})])
    assert "dice has the best mean rank, 1 of 4, and is first everywhere." in found.finding


def test_losses_that_tie_everywhere_in_a_cohort_have_no_tau():
    found = consensus([ONE, compared("two", {loss: [0.5] for loss in LOSSES})])
    assert found.metrics[0].agreement[0].tau is None
    assert "Kendall" not in found.finding


def test_losses_that_are_not_the_same_everywhere_are_left_out():
    fewer = compared("two", {"dice": [0.5], "focal": [0.9], "boundary": [0.4]})
    found = consensus([ONE, fewer])
    assert {rank.loss for rank in found.metrics[0].losses} == {"dice", "focal"}
    assert found.left_out == ("cross_entropy", "tversky", "boundary")
