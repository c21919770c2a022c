"""The gradient over the distance to the boundary, against the voxels of the scene."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from lossevo.analysis import AnalysedLoss, scenes
from lossevo.analysis.distances import gradient_by_distance

SCENE = scenes.vertebra()
P = scenes.wavy(SCENE).sigmoid()


def table_of(name):
    return pd.DataFrame(gradient_by_distance(AnalysedLoss.of_catalogue(name)))


def expected(gradient, middle_mm):
    """Mean |gradient| where the distance lies within 1 mm of ``middle_mm``, over the mean of all voxels."""
    low, high = abs(middle_mm) - 1, abs(middle_mm) + 1
    side = SCENE.target if middle_mm < 0 else ~SCENE.target
    here = side & (SCENE.distance_mm.abs() > low) & (SCENE.distance_mm.abs() <= high)
    return int(here.sum()), float(gradient[here].abs().mean() / gradient.abs().mean())


@pytest.mark.parametrize(
    ("name", "gradient"),
    [
        ("cross_entropy", P - SCENE.target.double()),
        ("boundary", SCENE.distance_mm * P * (1 - P)),
    ],
)
def test_strength_is_the_mean_over_an_interval(name, gradient):
    table = table_of(name)
    for row in table.itertuples():
        voxels, strength = expected(gradient, row.distance_mm)
        assert (row.voxels, row.strength) == (voxels, pytest.approx(strength, rel=1e-9))


def test_intervals_are_2_mm_wide_from_minus_12_to_24_mm():
    assert table_of("dice")["distance_mm"].tolist() == [-11, -9, -7, -5, -3, -1, *range(1, 24, 2)]


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "boundary"])
def test_a_loss_that_pulls_every_voxel_to_its_target_only_helps(name):
    table = table_of(name)
    assert torch.allclose(torch.tensor(table["helpful"].to_numpy()), torch.tensor(table["strength"].to_numpy()))


def test_baikal_pushes_voxels_away_that_are_surer_than_its_optimum():
    table = table_of("baikal").set_index("distance_mm")
    assert table.loc[23, "helpful"] == pytest.approx(-table.loc[23, "strength"])
