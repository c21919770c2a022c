"""A loss whose parameters move: at any parameters it is the catalogue's loss, and it keeps them within bounds."""

from __future__ import annotations

import copy
import io

import pytest
import torch

from lossevo.errors import LossevoError
from lossevo.losses import create, signed_distance_map
from lossevo.losses.base import one_hot
from lossevo.losses.learnable import LEARNABLE
from lossevo.losses.trajectory import ROWS
from tests.losses.every_loss import assert_same, example, value_and_gradient

WRAPPED = [*((name, {}) for name in LEARNABLE), ("focal", {"alpha": 0.25}), ("unified_focal", {"asymmetric": False})]
every_wrapped = pytest.mark.parametrize(
    ("name", "parameters"), WRAPPED, ids=["-".join([name, *chosen]) for name, chosen in WRAPPED]
)


def wrapping(name, parameters=None, **more):
    return create("adaptive", loss={"name": name, "parameters": parameters or {}}, **more)


def moved(loss, times=7, seed=0):
    """The loss after updates in random directions."""
    generator = torch.Generator().manual_seed(seed)
    for update in range(times):
        loss.learn(torch.randn(loss.free.shape, generator=generator), 5 * (update + 1))
    return loss


# --- the wrapped loss ---


@every_wrapped
def test_at_first_it_is_the_wrapped_loss_to_the_last_bit(name, parameters):
    loss, wrapped = wrapping(name, parameters), create(name, **parameters)
    batch = example(3, (3, 4, 5))
    for training in (True, False):
        loss.train(training)
        assert_same(value_and_gradient(loss, *batch), value_and_gradient(wrapped, *batch), rtol=0, atol=0)


@every_wrapped
def test_at_any_parameters_it_is_the_loss_with_those_parameters(name, parameters):
    loss, batch = wrapping(name, parameters), example(3, (3, 4, 5))
    before = loss.values()
    expected = create(name, **{**parameters, **moved(loss).values()})
    assert all(abs(value - before[key]) > 1e-3 * abs(value) for key, value in loss.values().items())
    for one, other in ((loss, expected), (loss.eval(), expected.eval())):
        assert_same(value_and_gradient(one, *batch), value_and_gradient(other, *batch), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["tversky", "focal", "dice_ce", "unified_focal"])
def test_its_gradient_is_made_beside_the_value_as_the_wrapped_losss_is(name):
    batch = example(3, (3, 4, 5))
    theirs = create(name)(*batch).grad_fn
    assert type(moved(wrapping(name))(*batch).grad_fn) is type(theirs)
    assert type(theirs).__name__ == "_OwnGradientBackward"


@every_wrapped
def test_the_gradient_by_the_parameters_is_that_of_finite_differences(name, parameters):
    """Of the loss, and of its gradient by the logits, along a direction."""
    loss, (logits, target) = moved(wrapping(name, parameters), times=2), example(3, (3, 4, 5))
    direction = example(3, (3, 4, 5), seed=1)[0].detach()
    free = loss.free.clone().requires_grad_()

    def value_and_slope(x):
        value = loss.at(x, logits, target)
        (gradient,) = torch.autograd.grad(value, logits, create_graph=True)
        return value, (gradient * direction).sum()

    found = [torch.autograd.grad(number, free, retain_graph=True)[0] for number in value_and_slope(free)]
    for index in range(len(free)):
        h = 1e-5 * torch.eye(len(free), dtype=torch.float64)[index]
        ahead, behind = value_and_slope(loss.free + h), value_and_slope(loss.free - h)
        for gradient, a, b in zip(found, ahead, behind, strict=True):
            torch.testing.assert_close(gradient[index], (a - b).detach() / 2e-5, rtol=1e-5, atol=1e-9)


def test_two_losses_are_mixed_by_weights_that_keep_their_sum():
    parts = ["dice", {"name": "tversky", "parameters": {"w_fp": 0.5, "w_fn": 0.5}}]
    loss, batch = create("adaptive", loss=parts, factors=[1, 0.25]), example(3, (3, 4, 5))
    dice, tversky = create("dice")(*batch), create("tversky", w_fp=0.5, w_fn=0.5)(*batch)
    torch.testing.assert_close(loss(*batch), dice + 0.25 * tversky)
    weights = moved(loss).values()
    assert [*weights] == ["w_dice", "w_tversky"]
    assert sum(weights.values()) == pytest.approx(2, rel=1e-15)
    assert weights["w_dice"] != 1
    torch.testing.assert_close(loss(*batch), weights["w_dice"] * dice + weights["w_tversky"] * 0.25 * tversky)


def test_distance_maps_spacing_and_epochs_reach_what_is_wrapped():
    loss = create("adaptive", loss=["generalized_dice_boundary", "hausdorff_dt"])
    assert loss.uses_distance_map
    loss.use_spacing((4.0, 1.0, 2.0))
    batch = example(3, (4, 5, 6))
    given = signed_distance_map(one_hot(batch[1], 3), (4.0, 1.0, 2.0))
    parts = [create(name, spacing_mm=(4.0, 1.0, 2.0)) for name in ("generalized_dice_boundary", "hausdorff_dt")]
    for _ in range(3):
        expected = sum(part(*batch) for part in parts)
        torch.testing.assert_close(loss(*batch), expected)
        torch.testing.assert_close(loss(*batch, given), expected)
        for module in (loss, *parts):
            module.step()


def test_to_try_other_parameters_changes_nothing():
    loss = moved(create("adaptive", loss=["dice_hausdorff", "focal"]))
    batch = example(3, (4, 5, 6))
    loss(*batch)
    before, values = copy.deepcopy(loss.state_dict()), loss.values()
    loss.at(loss.free + 1, *batch)
    with pytest.raises(LossevoError):
        loss.at(loss.free + 1, batch[0], batch[1] + 5)
    torch.testing.assert_close(loss.state_dict(), before, rtol=0, atol=0)
    assert loss.values() == values
    assert all(module.training for module in loss.modules())


# --- learning ---


@every_wrapped
@pytest.mark.parametrize("sign", [-1, 1])
def test_parameters_stay_in_bounds_and_come_back(name, parameters, sign):
    loss = wrapping(name, parameters)
    bounds = {item.name: item for item in LEARNABLE[name]}
    start = loss.values()
    for update in range(300):
        loss.learn(torch.full_like(loss.free, float(sign)), update)
    values = loss.values()
    for item in (bounds[key] for key in values if key in bounds):
        share = values[item.name] / (values[item.name] + values[item.partner] if item.partner else 1)
        assert item.low < share < item.high
        # Within a hundredth of the range from a bound.
        assert min(share - item.low, item.high - share) < 0.01 * (item.high - item.low)
        if item.partner:
            total = values[item.name] + values[item.partner]
            assert total == pytest.approx(start[item.name] + start[item.partner], rel=1e-15)
    assert loss(*example(3, (3, 4))).isfinite()
    for update in range(40):
        loss.learn(torch.full_like(loss.free, float(-sign)), update)
    assert all(abs(value - values[key]) > 1e-6 for key, value in loss.values().items())


def test_a_step_goes_against_the_gradient_whatever_its_scale():
    found = []
    for scale in (1.0, 1e-12, 1e12):
        loss = wrapping("dice_focal", learning_rate=0.1)
        loss.learn(scale * torch.tensor([1.0, -1.0]), 5)
        assert loss.values()["w_dice"] < 1
        assert loss.values()["gamma"] > 2
        torch.testing.assert_close(loss.free.diff() - wrapping("dice_focal").free.diff(), torch.tensor([0.2]).double())
        found.append(loss.free)
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_gradient_that_is_not_finite_counts_for_nothing(value):
    loss = moved(wrapping("tversky"))
    before = copy.deepcopy(loss.state_dict())
    loss.learn(torch.tensor([value]), 99)
    torch.testing.assert_close(loss.state_dict(), before, rtol=0, atol=0)


def test_a_gradient_of_zero_moves_nothing():
    loss = wrapping("dice_focal")
    before = loss.values()
    loss.learn(torch.zeros(2), 5)
    assert loss.values() == pytest.approx(before, rel=1e-15)


def test_an_update_is_due_after_every_few_steps():
    loss = create("adaptive", every=3)
    assert [steps for steps in range(10) if loss.wants_lookahead(steps)] == [3, 6, 9]


def test_only_what_is_named_is_learned_and_a_partner_names_its_pair():
    loss = wrapping("dice_focal", learn=["w_focal"])
    assert [*moved(loss).values()] == ["w_dice", "w_focal"]
    assert loss.loss.focal.gamma == 2
    assert [*wrapping("focal").values()] == ["gamma"]
    assert [*wrapping("focal", {"alpha": 0.25}).values()] == ["gamma", "alpha"]


# --- state ---


def test_a_loss_that_is_restored_goes_on_exactly():
    loss = moved(wrapping("dice_focal"))
    file = io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    restored = wrapping("dice_focal")
    restored.load_state_dict(torch.load(file, weights_only=True))
    for one in (restored, copy.deepcopy(loss)):
        assert one.values() == loss.values()
        assert moved(one, seed=3).values() == moved(copy.deepcopy(loss), seed=3).values()
        assert one.trajectory()[:8] == loss.trajectory()
    loss.load_state_dict(wrapping("dice_focal").state_dict())
    assert loss.values() == {"w_dice": 1.0, "w_focal": 1.0, "gamma": 2.0}


def test_half_precision_of_a_network_leaves_the_numbers_as_they_are():
    loss = moved(wrapping("exp_log").half())
    assert {buffer.dtype for buffer in loss.buffers()} == {torch.float64, torch.int64}
    assert loss.values() == moved(wrapping("exp_log")).values()


def test_the_trajectory_tells_the_parameters_from_each_update_on():
    loss = wrapping("tversky")
    expected = [{"step": 0, "w_fp": 0.3, "w_fn": 0.7}]
    assert loss.trajectory() == expected
    for update in range(1, 4):
        loss.learn(torch.tensor([1.0]), 10 * update)
        expected.append({"step": 10 * update, **loss.values()})
    assert loss.trajectory() == expected
    for update in range(4, ROWS + 9):
        loss.learn(torch.tensor([1.0]), 10 * update)
    assert [row["step"] for row in loss.trajectory()] == list(range(0, 10 * (ROWS + 9), 20))


def test_a_loss_in_which_nothing_moves_has_no_trajectory():
    assert create("dice").trajectory() == []


# --- mistakes ---


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"loss": "dice"}, "dice has no parameter that can be learned; focal, tversky"),
        ({"loss": "tverski"}, "did you mean 'tversky'"),
        ({"loss": ["dice"]}, "expected one loss, or a list of two"),
        ({"loss": ["dice", "focal", "boundary"]}, "a list of two"),
        ({"loss": "softadapt"}, "a loss that adapts cannot be part of 'adaptive'"),
        ({"loss": ["dice", "adaptive"]}, "a loss that adapts cannot be part"),
        ({"loss": 3}, "loss specification 3"),
        ({"loss": "focal", "learn": ["gama"]}, "'gama' of focal cannot be learned .did you mean 'gamma'"),
        ({"loss": "focal", "learn": ["alpha"]}, "alpha of focal is not one number; give it one"),
        ({"loss": "focal", "learn": "gamma"}, "learn is 'gamma', expected a list of some of gamma, alpha"),
        ({"loss": "focal", "learn": []}, "learn is .., expected a list"),
        (
            {"loss": {"name": "focal", "parameters": {"gamma": 0}}},
            "gamma is 0, expected 0.01236 to 4.988 where it is to be learned; start it there",
        ),
        ({"loss": {"name": "dice_ce", "parameters": {"w_ce": 0}}}, "w_dice is 1, expected 0.01242 to 0.9876"),
        ({"every": 0}, "every is 0"),
        ({"learning_rate": -1}, "learning_rate is -1"),
        ({"factors": [1, 1]}, "factors is .1, 1., expected none"),
        ({"loss": ["dice", "boundary"], "factors": [1]}, "factors has 1 numbers for 2"),
        (
            {"loss": ["boundary", "hausdorff_dt"], "spacing_mm": [1, 0, 1]},
            "spacing_mm is",
        ),
    ],
)
def test_what_cannot_be_is_refused(chosen, message):
    with pytest.raises(LossevoError, match=message):
        create("adaptive", **chosen)
