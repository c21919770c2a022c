"""The scenes: what they show, in the size they are said to have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import center_of_mass, distance_transform_edt

from lossevo.analysis import responses, scenes
from lossevo.losses import create

ALL = {"ball": scenes.ball(0.05), "vertebra": scenes.vertebra(), "two balls": responses.two_balls()}


def hard_dice(logits, target):
    predicted = logits > 0
    return float(2 * (predicted & target).sum() / (predicted.sum() + target.sum()))


@pytest.mark.parametrize("share", [0.01, 0.05, 0.20])
def test_a_ball_fills_exactly_its_share_of_the_cube(share):
    scene = scenes.ball(share)
    assert scene.foreground_share == share
    assert np.allclose(center_of_mass(scene.target.numpy()), (scenes.BOX_SIZE - 1) / 2, atol=0.7)
    radius_mm = (share * 60**3 * 3 / (4 * np.pi)) ** (1 / 3)
    assert float(-scene.distance_mm.min()) == pytest.approx(radius_mm, abs=2)


@pytest.mark.parametrize("scene", ALL.values(), ids=ALL.keys())
def test_distances_are_signed_and_in_mm(scene):
    target = scene.target.numpy()
    expected = distance_transform_edt(~target, scene.spacing_mm) - distance_transform_edt(target, scene.spacing_mm)
    assert np.allclose(scene.distance_mm.numpy(), expected)
    assert scene.distance_mm.dtype == torch.float64


def test_the_vertebral_body_has_its_size_and_concave_end_plates():
    target = scenes.vertebra().target
    for axis, (extent_mm, spacing_mm) in enumerate(zip((48, 28, 34), (4, 1, 1), strict=True)):
        others = tuple(other for other in range(3) if other != axis)
        assert int(target.any(dim=others).sum()) * spacing_mm == pytest.approx(extent_mm, abs=spacing_mm)
    heights = target.sum(dim=1)
    assert heights[9, 30] < heights[9, 44]  # in the middle and near the rim


@pytest.mark.parametrize(
    ("prediction", "low", "high"),
    [(scenes.displaced, 0.75, 0.9), (scenes.wavy, 0.85, 0.95), (scenes.untrained, 0.08, 0.1)],
    ids=["displaced", "wavy", "untrained"],
)
def test_predictions_are_as_good_as_they_should_be(prediction, low, high):
    scene = scenes.vertebra() if prediction is scenes.wavy else scenes.ball(0.05)
    assert low < hard_dice(prediction(scene), scene.target) < high


def test_predictions_are_the_same_every_time_and_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    for prediction in (scenes.untrained, scenes.wavy, scenes.displaced):
        assert torch.equal(prediction(scenes.vertebra()), prediction(scenes.vertebra()))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_gradient_is_that_of_the_foregrounds_logit():
    """Per voxel of the mean, cross-entropy has p - g."""
    scene = scenes.ball(0.20)
    logits = scenes.wavy(scene)
    value, gradient = scenes.value_and_gradient(create("cross_entropy"), scene, logits)
    assert torch.allclose(gradient * gradient.numel(), logits.sigmoid() - scene.target.double(), atol=1e-12)
    assert value == pytest.approx(scenes.value(create("cross_entropy"), scene, logits), rel=1e-12)
    assert value == pytest.approx(
        float(torch.nn.functional.binary_cross_entropy_with_logits(logits, scene.target.double())), rel=1e-12
    )
