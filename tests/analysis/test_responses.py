"""What errors cost, against counts of voxels."""

from __future__ import annotations

import math

import pytest

from lossevo.analysis import AnalysedLoss
from lossevo.analysis.responses import predicted, responses, two_balls
from lossevo.analysis.scenes import SURE

TARGET = two_balls().target
N, FOREGROUND = TARGET.numel(), int(TARGET.sum())


def of(loss):
    return {row.change: row.response for row in responses(loss)}


def of_catalogue(name):
    return of(AnalysedLoss.of_catalogue(name))


def test_missing_and_false_object_are_half_of_the_foreground():
    missing, false = predicted("missing"), predicted("false")
    assert int((TARGET & ~missing).sum()) == int((false & ~TARGET).sum()) == FOREGROUND / 2
    assert not (missing & ~TARGET).any()
    assert not (TARGET & ~false).any()
    assert int(predicted("shift").sum()) == FOREGROUND


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_a_mean_over_voxels_counts_the_wrong_ones(name):
    wrong = int((predicted("shift") ^ TARGET).sum())
    assert of_catalogue(name) == pytest.approx({"shift": wrong / FOREGROUND, "missing": 0.5, "false": 0.5})


def test_dice_by_its_sums():
    def dice_loss(mask):
        hit, size = int((mask & TARGET).sum()), int(mask.sum())
        true_positive = SURE * hit + (1 - SURE) * (FOREGROUND - hit)
        return 1 - 2 * true_positive / (SURE * size + (1 - SURE) * (N - size) + FOREGROUND)

    right, empty = dice_loss(TARGET), dice_loss(TARGET & False)
    expected = {
        change: (dice_loss(predicted(change)) - right) / (empty - right) for change in ("shift", "missing", "false")
    }
    assert of_catalogue("dice") == pytest.approx(expected, rel=1e-6)


def test_tversky_would_rather_see_too_much_than_too_little():
    tversky, dice = of_catalogue("tversky"), of_catalogue("dice")
    assert tversky["missing"] > dice["missing"]
    assert tversky["false"] < dice["false"]


def test_a_boundary_loss_fears_what_is_far_away():
    """Per voxel, an object costs its distance: the false one lies farther out than the missing one reaches in."""
    distance_mm = two_balls().distance_mm
    gain = float(-distance_mm[TARGET].sum())
    false = float(distance_mm[predicted("false") & ~TARGET].sum())
    boundary = of_catalogue("boundary")
    assert boundary["missing"] == pytest.approx(0.5, rel=0.02)
    assert boundary["false"] == pytest.approx(false / gain)


def test_no_response_where_the_empty_prediction_is_preferred(evolved):
    assert all(math.isnan(response) for response in of(evolved("foreground_mean(mean(p))")).values())
