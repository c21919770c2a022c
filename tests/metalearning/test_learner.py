"""The loss network's training: its tasks, its steps, and that it can be stopped anywhere."""

from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor

from lossevo.losses.neural import LossNetwork
from lossevo.metalearning.learner import Learner
from lossevo.metalearning.networks import random_network, tensors, without
from lossevo.metalearning.settings import MetaSettings
from lossevo.metalearning.tasks import MetaOutcome, packed

SUBJECTS = tuple("abcdefg")
SETTINGS = MetaSettings(hidden=(3,), tasks=3, inner_steps=4, shaping=("distance",), learning_rate=0.01)


def learner(seed: int = 0, settings: MetaSettings = SETTINGS) -> Learner:
    return Learner(settings, SUBJECTS, length=10, seed=seed)


def outcome(gradients: list[Tensor], state: str = "AAAA") -> MetaOutcome:
    return MetaOutcome(1.0, 0.9, packed(gradients), state, 0.1)


def outcomes(learner: Learner) -> list[MetaOutcome | None]:
    """Gradients that depend on the weights and the task."""
    return [
        outcome([0.1 * weight + 0.01 * task.first for weight in tensors(learner.network)]) for task in learner.tasks()
    ]


def test_tasks_train_on_some_subjects_and_are_judged_on_the_others() -> None:
    for task in learner().tasks():
        assert sorted((*task.inner, *task.outer)) == sorted(SUBJECTS)
        assert not {*task.inner} & {*task.outer}
        assert task.network == learner().network.to_json()
    assert len({task.inner for task in learner().tasks()}) > 1


def test_other_unets_have_other_seeds_and_other_subjects() -> None:
    course = learner()
    met = set()
    for _ in range(12):
        met |= {(task.seed, task.inner) for task in course.tasks()}
        course.learn(outcomes(course))
    seeds = [seed for seed, _ in met]
    assert len(seeds) == len(set(seeds)) > 6
    assert len({inner for _, inner in met}) > 4
    assert not {*seeds} & {task.seed for task in learner(seed=1).tasks()}


def test_unets_are_met_at_all_stages_and_end_after_their_length() -> None:
    course = learner()
    firsts = []
    for _ in range(9):
        tasks = course.tasks()
        firsts.append([task.first for task in tasks])
        assert all(task.first + task.steps <= 10 for task in tasks)
        assert all(bool(task.state) == (task.first > 0) for task in tasks)
        course.learn(outcomes(course))
    # The first ones end after a third, two thirds and the whole of the length.
    assert firsts[:4] == [[0, 0, 0], [0, 4, 4], [4, 0, 8], [8, 4, 0]]
    assert {first for step in firsts for first in step} == {0, 4, 8}


def test_shaping_is_masked_in_every_other_task_and_not_part_of_the_result() -> None:
    course = learner()
    assert course.network.inputs == ("margin", "target", "distance")
    assert [task.masked for task in course.tasks()] == [("distance",), (), ("distance",)]
    assert course.learned.inputs == ("margin", "target")
    assert course.learned.layers[1:] == course.network.layers[1:]
    assert [row[:2] for row in course.network.layers[0]] == [*course.learned.layers[0]]


def test_a_single_task_is_shaped_every_other_time() -> None:
    course = learner(settings=SETTINGS.model_copy(update={"tasks": 1}))
    masked = []
    for _ in range(7):
        masked += [task.masked for task in course.tasks() if task.first == 0]
        course.learn(outcomes(course))
    assert masked == [("distance",), (), ("distance",)]


def test_without_drops_the_columns_wherever_they_stand() -> None:
    network = LossNetwork(("distance", "margin", "target"), (((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)), ((7.0, 8.0),)))
    assert without(network, ["distance"]) == LossNetwork(
        ("margin", "target"), (((2.0, 3.0), (5.0, 6.0)), ((7.0, 8.0),))
    )


def test_its_steps_are_adams_along_the_mean_gradient() -> None:
    course = learner()
    expected = [weight.clone().requires_grad_() for weight in tensors(course.network)]
    optimiser = torch.optim.Adam(expected, 0.01)
    generator = torch.Generator().manual_seed(3)
    for _ in range(5):
        made = [[0.01 * torch.randn(w.shape, generator=generator) for w in expected] for _ in range(3)]
        course.learn([outcome(gradients) for gradients in made])
        for weight, *parts in zip(expected, *made, strict=True):
            weight.grad = torch.stack(parts).mean(dim=0)
        optimiser.step()
    for ours, theirs in zip(tensors(course.network), expected, strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-7)


def test_one_task_cannot_outweigh_the_others() -> None:
    """A long gradient is shortened to 1 before the mean is taken, and keeps its direction."""
    course, twin = learner(), learner()
    weights = tensors(course.network)
    one = [torch.ones_like(weight) for weight in weights]
    norm = sum(weight.numel() for weight in weights) ** 0.5
    small = [torch.full_like(weight, 1e-3) for weight in weights]
    course.learn([outcome([1e6 * part for part in one]), outcome(small), outcome(small)])
    twin.learn([outcome([part / norm for part in one]), outcome(small), outcome(small)])
    for ours, theirs in zip(tensors(course.network), tensors(twin.network), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_failed_task_counts_for_nothing_and_its_unet_is_given_up() -> None:
    course, twin = learner(), learner()
    for one in (course, twin):
        one.learn(outcomes(one))
    gradients = [torch.full_like(weight, 0.01) for weight in tensors(course.network)]
    course.learn([outcome(gradients), None, outcome(gradients)])
    twin.learn([outcome(gradients)] * 3)
    assert course.network == twin.network
    assert (course.trajectories[1].episode, course.trajectories[1].first) == (1, 0)
    before = course.network
    course.learn([None] * 3)
    assert course.network == before
    assert course.step == 3


def test_the_course_depends_on_the_seed_alone_and_goes_on_exactly_after_a_checkpoint() -> None:
    undisturbed, stopped = learner(seed=5), learner(seed=5)
    for _ in range(7):
        undisturbed.learn(outcomes(undisturbed))
    for _ in range(3):
        stopped.learn(outcomes(stopped))
    file = io.BytesIO()
    torch.save(stopped.checkpoint(), file)
    file.seek(0)
    resumed = learner(seed=5)
    resumed.restore(torch.load(file, weights_only=True))
    for _ in range(4):
        resumed.learn(outcomes(resumed))
    assert resumed.network == undisturbed.network
    assert resumed.tasks() == undisturbed.tasks()
    assert learner(seed=6).network != learner(seed=5).network


def test_a_random_network_spreads_like_he_et_al() -> None:
    generator = torch.Generator().manual_seed(0)
    network = random_network(("margin", "target"), (64, 64), "relu", generator)
    assert network.sizes == (2, 64, 64, 1)
    first, second, _ = tensors(network)
    assert float(first.std()) == pytest.approx(1.0, rel=0.15)
    assert float(second.std()) == pytest.approx((2 / 64) ** 0.5, rel=0.05)
