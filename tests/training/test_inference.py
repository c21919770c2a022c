from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from torch import nn

from lossevo.training import TaskSettings
from lossevo.training.inference import bspline_weights, predict
from lossevo.training.network import build_network

CPU = torch.device("cpu")
SETTINGS = TaskSettings(patch_size=(16, 24, 24))


class Threshold(nn.Module):
    """Logits that call every voxel above 0 foreground, and the sizes it was asked for."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, image):
        self.sizes.append(tuple(image.shape[2:]))
        return torch.cat([torch.zeros_like(image), image], dim=1)


@pytest.mark.parametrize("fusion", ["gaussian", "bspline"])
@pytest.mark.parametrize("shape", [(16, 24, 24), (13, 22, 31), (5, 3, 70)])
def test_prediction_returns_to_the_shape_and_place_of_the_image(shape, fusion):
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    network = Threshold()

    np.testing.assert_array_equal(
        predict(network, image, SETTINGS.model_copy(update={"fusion": fusion}), CPU).label, image[0] > 0
    )
    assert set(network.sizes) == {SETTINGS.patch_size}


def test_a_network_predicts_the_same_for_a_volume_alone_and_inside_its_padding():
    network = build_network(SETTINGS, channel_count=1, class_count=2, seed=0, device=CPU)
    image = np.random.default_rng(0).normal(size=(1, 16, 24, 24)).astype(np.float32)

    prediction = predict(network, image, SETTINGS, CPU).label

    with torch.inference_mode():
        expected = network(torch.from_numpy(image)[None])[0].argmax(0)
    np.testing.assert_array_equal(prediction, expected)
    assert network.training


@pytest.mark.parametrize("size", [(1,), (6,), (7,), (4, 5), (6, 3, 8)])
def test_weights_are_scipys_quadratic_spline(size):
    spline = BSpline.basis_element([-1.5, -0.5, 0.5, 1.5])
    expected = np.ones(())
    for voxels in size:
        expected = np.multiply.outer(expected, spline((np.arange(voxels) + 0.5) / voxels * 3 - 1.5))

    np.testing.assert_allclose(bspline_weights(size), expected, rtol=1e-6)
    assert bspline_weights(size).min() > 0


def test_windows_a_third_apart_sum_to_one_everywhere():
    weights = bspline_weights((12,)).double()
    total = torch.zeros(12 + 4 * 8)
    for start in range(0, 33, 4):
        total[start : start + 12] += weights

    np.testing.assert_allclose(total[8:-8], 1, rtol=1e-6)


class Positional(nn.Module):
    """Foreground probability decided by the position within the window alone."""

    def __init__(self, probability):
        super().__init__()
        self.probability = probability

    def forward(self, image):
        p = self.probability.expand(image.shape[0], 1, *image.shape[2:])
        return torch.cat([1 - p, p], dim=1).log()


def test_voting_is_the_weighted_mean_of_probabilities():
    # Windows of 4 with half overlap start at 0, 2 and 4; each voxel belongs to one or two of them.
    probability = torch.tensor([0.1, 0.2, 0.95, 0.55])[:, None, None]
    settings = TaskSettings(patch_size=(4, 4, 4), fusion="bspline", window_overlap=0.5)
    weights = bspline_weights((4,))

    votes, norm = torch.zeros(8), torch.zeros(8)
    for start in (0, 2, 4):
        votes[start : start + 4] += weights * probability.flatten()
        norm[start : start + 4] += weights
    expected = votes / norm > 0.5
    labels = predict(Positional(probability), np.zeros((1, 8, 4, 4), np.float32), settings, CPU).label

    np.testing.assert_array_equal(labels, np.broadcast_to(expected[:, None, None], (8, 4, 4)))
    assert 0 < expected.sum() < 8
