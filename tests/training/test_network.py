from __future__ import annotations

import pytest
import torch

from lossevo.training import TaskSettings
from lossevo.training.network import build_network
from lossevo.training.seeds import (
    MAX_RUN_SEED,
    comparison_seed,
    confirmation_seed,
    selection_seed,
    task_seed,
)

CPU = torch.device("cpu")


def build(settings: TaskSettings, seed: int = 0) -> torch.nn.Module:
    return build_network(settings, channel_count=2, class_count=3, seed=seed, device=CPU)


@pytest.mark.parametrize(
    "settings",
    [
        TaskSettings(),
        TaskSettings(residual_units=1, norm="batch", channels_last=False),
        TaskSettings(channels=(4, 8, 16), strides=(1, 2)),
        TaskSettings(network="se_norm_unet"),
    ],
)
def test_logits_have_the_size_of_the_image(settings: TaskSettings):
    size = [settings.total_stride * factor for factor in (1, 2, 3)]
    size = [max(axis, 8) for axis in size]  # instance norm needs more than one voxel at the bottom

    assert build(settings)(torch.zeros(2, 2, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize("network", ["unet", "se_norm_unet"])
def test_weights_depend_on_the_seed_alone(network):
    settings = TaskSettings(network=network)
    torch.manual_seed(1)
    first = build(settings, seed=5).state_dict()
    torch.manual_seed(2)
    second = build(settings, seed=5).state_dict()
    other = build(settings, seed=6).state_dict()

    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_runs_with_other_seeds_start_from_other_weights():
    """Fifty runs, two trainings of each kind."""
    settings = TaskSettings(channels=(2, 2), strides=(2,))
    seeds = [
        seed(run, number)
        for run in (*range(48), 2**20, MAX_RUN_SEED)
        for seed in (selection_seed, confirmation_seed, comparison_seed, task_seed)
        for number in range(2)
    ]
    starts = {tuple(next(build(settings, seed).parameters()).flatten().tolist()) for seed in seeds}
    assert len(starts) == len(seeds)


def test_global_generator_is_left_as_it_was():
    before = torch.get_rng_state()
    build(TaskSettings(), seed=5)

    assert torch.equal(torch.get_rng_state(), before)
