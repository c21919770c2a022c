"""What docs/analysis.md says that the figures show."""

from __future__ import annotations

import math
from functools import cache

import pandas as pd
import pytest

from lossevo.analysis import AnalysedLoss
from lossevo.analysis.distances import gradient_by_distance
from lossevo.analysis.foreground import foreground_shares
from lossevo.analysis.profiles import profile
from lossevo.analysis.responses import responses


@cache
def shares(name):
    return {(row.stage, row.foreground): row.share for row in foreground_shares(AnalysedLoss.of_catalogue(name))}


@cache
def response(name):
    return {row.change: row.response for row in responses(AnalysedLoss.of_catalogue(name))}


@cache
def gradient(name):
    return {(row.target, row.p): row.gradient for row in profile(AnalysedLoss.of_catalogue(name))}


def test_before_training_dice_gives_the_foreground_half_of_the_gradient_and_cross_entropy_next_to_nothing():
    assert shares("cross_entropy")["untrained", 0.01] == pytest.approx(0.01, rel=0.05)
    assert shares("focal")["untrained", 0.01] == pytest.approx(0.01, rel=0.05)
    assert all(0.5 < shares("dice")["untrained", foreground] < 0.61 for foreground in (0.01, 0.05, 0.20))
    for foreground in (0.01, 0.05, 0.20):
        assert abs(shares("dice")["trained", foreground] - shares("cross_entropy")["trained", foreground]) < 0.01


@pytest.mark.parametrize("name", ["dice", "tversky", "jaccard", "generalized_dice", "asymmetric_similarity"])
def test_region_losses_let_go_of_what_is_confidently_missed(name):
    strongest = max(abs(value) for (target, _), value in gradient(name).items() if target == 1)
    assert abs(gradient(name)[1, 0.01]) < 0.1 * strongest
    assert gradient("cross_entropy")[1, 0.01] == min(gradient("cross_entropy").values())


@pytest.mark.parametrize("name", ["boundary", "hausdorff_dt", "hausdorff_dt_one_sided", "log_hausdorff_dt"])
def test_losses_by_distance_transforms_fear_false_objects_far_away(name):
    assert response(name)["false"] > 1


def test_to_hausdorff_dt_finding_one_of_two_is_worse_than_finding_none():
    assert response("hausdorff_dt")["missing"] > 1
    assert response("hausdorff_dt_one_sided")["missing"] == pytest.approx(0.5, abs=0.01)


def test_hausdorff_erosion_erodes_hesitant_and_thin_errors_away():
    assert all(math.isnan(share) for (stage, _), share in shares("hausdorff_erosion").items() if stage == "untrained")
    assert response("hausdorff_erosion")["shift"] < 0.05
    assert response("hausdorff_erosion")["missing"] == pytest.approx(0.5, abs=0.01)


def test_baikal_pushes_back_what_is_right_and_far_from_the_boundary():
    table = pd.DataFrame(gradient_by_distance(AnalysedLoss.of_catalogue("baikal"))).set_index("distance_mm")
    far = table[abs(table.index) > 8]
    assert (far["strength"] > 1).all()
    assert far["helpful"].to_numpy() == pytest.approx(-far["strength"].to_numpy(), rel=0.01)
