"""Value and gradient over p, against closed forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lossevo.analysis import AnalysedLoss, scenes
from lossevo.analysis.profiles import PROBABILITIES, profile

N = scenes.BOX_SIZE**3
FOREGROUND, BACKGROUND = 0.05 * N, 0.95 * N
SURE = scenes.SURE


def curves(loss, target):
    """p, value, gradient."""
    table = pd.DataFrame(profile(loss if isinstance(loss, AnalysedLoss) else AnalysedLoss.of_catalogue(loss)))
    table = table[table["target"] == target]
    return tuple(table[column].to_numpy() for column in ("p", "value", "gradient"))


def test_p_runs_over_hundredths_but_not_through_a_half():
    p, _, _ = curves("dice", 1)
    assert np.allclose(p, [i / 100 for i in range(1, 100) if i != 50])
    assert tuple(p) == PROBABILITIES


@pytest.mark.parametrize("target", [0, 1])
def test_cross_entropy_is_minus_log_p_with_gradient_p_minus_g(target):
    p, value, gradient = curves("cross_entropy", target)
    true_class = p if target else 1 - p
    assert np.allclose(value, -np.log(true_class) + np.log(SURE), atol=1e-12)
    assert np.allclose(gradient, p - target, atol=1e-12)


@pytest.mark.parametrize("target", [0, 1])
def test_dice_by_its_sums(target):
    """1 - 2 TP/S with S = Σp + Σg; ∂/∂x = (2 TP/S² - 2 g/S) p (1 - p)."""
    p, value, gradient = curves("dice", target)
    predicted = FOREGROUND * (p if target else SURE), BACKGROUND * ((1 - SURE) if target else p)
    true_positive, total = predicted[0], sum(predicted) + FOREGROUND
    best = 1 - 2 * FOREGROUND * SURE / (FOREGROUND * SURE + BACKGROUND * (1 - SURE) + FOREGROUND)
    scale = N / (FOREGROUND if target else BACKGROUND)
    assert np.allclose(value, scale * (1 - 2 * true_positive / total - best), rtol=1e-5, atol=1e-7)
    expected = N * (2 * true_positive / total**2 - 2 * target / total) * p * (1 - p)
    assert np.allclose(gradient, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["focal", "tversky", "boundary", "dice_ce"])
@pytest.mark.parametrize("target", [0, 1])
def test_the_gradient_is_the_slope_of_the_value_over_the_logit(name, target):
    p, value, gradient = curves(name, target)
    x = np.log(p / (1 - p))
    between = np.diff(value) / np.diff(x)
    middle = (gradient[1:] + gradient[:-1]) / 2
    inner = (p[1:] < 0.95) & (p[:-1] > 0.05)
    assert np.allclose(between[inner], middle[inner], rtol=0.02, atol=1e-3 * np.abs(gradient).max())


def test_boundary_pulls_by_the_mean_distance_in_mm():
    scene = scenes.ball(0.05)
    for target, swept in ((1, scene.target), (0, ~scene.target)):
        p, _, gradient = curves("boundary", target)
        assert np.allclose(gradient, float(scene.distance_mm[swept].mean()) * p * (1 - p))


def test_baikals_value_is_lowest_before_certainty():
    p, value, _ = curves("baikal", 1)
    assert p[value.argmin()] == pytest.approx(1 / np.sqrt(2), abs=0.01)


def test_an_evolved_loss_takes_part_like_any_other(evolved):
    ours, theirs = curves(evolved("-class_sum(mean(y * logp))"), 1), curves("cross_entropy", 1)
    assert all(np.allclose(one, other) for one, other in zip(ours, theirs, strict=True))


def test_a_constant_loss_has_no_gradient(evolved):
    _, value, gradient = curves(evolved("foreground_mean(mean(y))"), 1)
    assert not value.any()
    assert not gradient.any()
