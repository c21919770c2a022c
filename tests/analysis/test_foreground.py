"""The foreground's share of the gradient, against formulas."""

from __future__ import annotations

import math

import pytest

from lossevo.analysis import AnalysedLoss, scenes
from lossevo.analysis.foreground import SHARES, foreground_shares

PREDICTIONS = {"untrained": scenes.untrained, "trained": scenes.displaced}


def shares(loss):
    return {(row.stage, row.foreground): row.share for row in foreground_shares(loss)}


def share_of(gradient, scene):
    return float(gradient[scene.target].abs().sum() / gradient.abs().sum())


def test_every_stage_at_every_foreground():
    assert list(shares(AnalysedLoss.of_catalogue("dice"))) == [(s, f) for f in SHARES for s in PREDICTIONS]


@pytest.mark.parametrize("foreground", SHARES)
@pytest.mark.parametrize("stage", PREDICTIONS)
def test_by_formula(stage, foreground):
    scene = scenes.ball(foreground)
    p, g = PREDICTIONS[stage](scene).sigmoid(), scene.target.double()
    total = p.sum() + g.sum()
    dice = (2 * (p * g).sum() / total**2 - 2 * g / total) * p * (1 - p)
    for name, gradient in (("cross_entropy", p - g), ("dice", dice), ("boundary", scene.distance_mm * p * (1 - p))):
        found = shares(AnalysedLoss.of_catalogue(name))[stage, foreground]
        assert found == pytest.approx(share_of(gradient, scene), rel=1e-5)


def test_before_training_cross_entropy_leaves_the_foreground_its_share_of_the_voxels_and_dice_half():
    cross_entropy, dice = (shares(AnalysedLoss.of_catalogue(name)) for name in ("cross_entropy", "dice"))
    for foreground in SHARES:
        assert cross_entropy["untrained", foreground] == pytest.approx(foreground, rel=0.05)
        assert dice["untrained", foreground] == pytest.approx(0.5 / (1 - foreground / (1 + foreground)), rel=0.05)


def test_without_a_gradient_there_is_no_share(evolved):
    assert all(math.isnan(share) for share in shares(evolved("foreground_mean(mean(y))")).values())
