"""Losses with schedules: weights by epoch, state, and that neither leaks into the gradient."""

from __future__ import annotations

import copy
import io

import pytest
import torch

from lossevo.errors import LossevoError
from lossevo.losses import create
from lossevo.losses.schedule import LinearWeight, RatioWeight

HAUSDORFF = ["dt_one_sided", "dt", "erosion", "convolution"]


def example(seed=0, spatial=(6, 7)):
    generator = torch.Generator().manual_seed(seed)
    target = torch.zeros(2, 1, *spatial, dtype=torch.long)
    target[:, :, 1:5, 1:5] = 1
    # Wrong and sure of it in the object, so that an erosion leaves something.
    logits = 6 * torch.cat([target, -target], dim=1) + torch.randn(2, 2, *spatial, generator=generator)
    return logits.double().requires_grad_(), target


def value_and_gradient(loss, logits, target):
    value = loss(logits, target)
    return value.detach(), *torch.autograd.grad(value, logits)


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b)


# --- generalised Dice + boundary ---


def kervadec(schedule, epoch, start=0.01, increment=0.01):
    """Weights of GDL and boundary after ``epoch`` epochs, one addition after the other as in the authors' code."""
    gdl, boundary = 1.0, start
    for _ in range(epoch):
        if schedule == "rebalance":
            gdl = max(0.1, gdl - increment)
        if schedule != "constant":
            boundary += increment
    return gdl, boundary


@pytest.mark.parametrize("schedule", ["rebalance", "increase", "constant"])
def test_weights_follow_the_authors_rule(schedule):
    loss = create("generalized_dice_boundary", schedule=schedule, spacing_mm=(2.0, 1.0))
    logits, target = example()
    region = value_and_gradient(create("generalized_dice"), logits, target)
    surface = value_and_gradient(create("boundary", spacing_mm=(2.0, 1.0)), logits, target)
    for epoch in range(121):
        if epoch % 20 == 0:
            a, b = kervadec(schedule, epoch)
            expected = [a * x + b * y for x, y in zip(region, surface, strict=True)]
            assert_same(value_and_gradient(loss, logits, target), expected)
        loss.step()


def test_start_and_increment_are_parameters():
    loss = create("generalized_dice_boundary", alpha=0.2, increment=0.05)
    like = torch.zeros((), dtype=torch.float64)
    for epoch in range(30):
        weights = [schedule.weight(like).item() for schedule in (loss.w_gdl, loss.w_boundary)]
        assert weights == pytest.approx(kervadec("rebalance", epoch, 0.2, 0.05))
        loss.step()


# --- Dice + Hausdorff ---


@pytest.mark.parametrize("hausdorff", HAUSDORFF)
def test_the_ratio_makes_both_losses_contribute_alike(hausdorff):
    options = {} if hausdorff == "erosion" else {"spacing_mm": (2.0, 1.0)}
    far = create(f"hausdorff_{hausdorff}", **options)
    dice = create("dice")
    loss = create("dice_hausdorff", hausdorff=hausdorff, initial_ratio=3.0, **options)
    assert loss.uses_distance_map == far.uses_distance_map
    batches = [example(seed) for seed in range(3)]
    parts = [(value_and_gradient(far, *batch), value_and_gradient(dice, *batch)) for batch in batches]
    for batch, (first, second) in zip(batches, parts, strict=True):
        assert_same(value_and_gradient(loss, *batch), [x + 3 * y for x, y in zip(first, second, strict=True)])
    loss.step()
    ratio = sum(first[0] for first, _ in parts) / sum(second[0] for _, second in parts)
    assert ratio != pytest.approx(3)
    for batch, (first, second) in zip(batches, parts, strict=True):
        # The gradient too: the ratio is a constant in it.
        assert_same(value_and_gradient(loss, *batch), [x + ratio * y for x, y in zip(first, second, strict=True)])
    assert sum(first[0] for first, _ in parts) == pytest.approx(ratio * sum(second[0] for _, second in parts))


def test_an_epoch_forgets_the_one_before():
    loss = create("dice_hausdorff")
    loss(*example(0))
    loss.step()
    first = loss.ratio.ratio.item()
    loss(*example(1))
    loss.step()
    alone = create("dice_hausdorff")
    alone(*example(1))
    alone.step()
    assert loss.ratio.ratio.item() == alone.ratio.ratio.item() != first


def test_validation_is_not_counted():
    loss = create("dice_hausdorff")
    loss(*example(0))
    seen = loss.ratio.sums.clone()
    loss.eval()
    loss(*example(1))
    assert torch.equal(loss.ratio.sums, seen)
    loss.train()
    loss(*example(1))
    assert (loss.ratio.sums > seen).all()
    assert not loss.ratio.sums.requires_grad


@pytest.mark.parametrize("values", [(), (0.0, 1.0), (1.0, 0.0), (float("nan"), 1.0)])
def test_the_ratio_stays_where_it_is_without_two_positive_means(values):
    # A ratio of 0 would switch Dice off while the Hausdorff loss has no gradient.
    ratio = RatioWeight(2.0)
    if values:
        ratio.observe(*map(torch.tensor, values))
    ratio.step()
    assert ratio.weight(torch.zeros(())) == 2
    assert not ratio.sums.any()


# --- what schedules share ---

SCHEDULED = [("generalized_dice_boundary", {}), *(("dice_hausdorff", {"hausdorff": name}) for name in HAUSDORFF)]
every_schedule = pytest.mark.parametrize(
    ("name", "parameters"), SCHEDULED, ids=["-".join([n, *p.values()]) for n, p in SCHEDULED]
)


def run(loss, epochs, seed=0):
    values = []
    for epoch in range(epochs):
        values += [loss(*example(seed + 2 * epoch + batch)).item() for batch in range(2)]
        loss.step()
    return values


@every_schedule
def test_a_loaded_state_goes_on_exactly(name, parameters):
    loss = create(name, **parameters)
    run(loss, 3)
    loss(*example(50))  # in the middle of an epoch
    file = io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    resumed = create(name, **parameters)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    loss.step()
    resumed.step()
    assert run(resumed, 3, seed=9) == run(loss, 3, seed=9)
    assert resumed(*example()) != create(name, **parameters)(*example())


@every_schedule
def test_a_copy_has_a_schedule_of_its_own(name, parameters):
    loss = create(name, **parameters)
    run(loss, 2)
    before = loss(*example()).item()
    run(copy.deepcopy(loss), 5)
    assert loss(*example()).item() == before


@every_schedule
def test_a_schedule_has_no_gradient(name, parameters):
    loss = create(name, **parameters)
    run(loss, 2)
    assert not list(loss.parameters())
    assert not any(buffer.requires_grad for buffer in loss.buffers())


@every_schedule
def test_function_transforms_work_in_eval_mode(name, parameters):
    loss = create(name, **parameters).eval()
    logits, target = example()
    expected = torch.autograd.grad(loss(logits, target), logits)[0]
    state = dict(loss.named_buffers())
    gradient = torch.func.grad(lambda x: torch.func.functional_call(loss, state, (x, target)))(logits.detach())
    torch.testing.assert_close(gradient, expected)


def test_a_linear_weight_is_exact_after_any_number_of_epochs():
    weight = LinearWeight(0.01, 0.01)
    for _ in range(99):
        weight.step()
    assert weight.weight(torch.zeros((), dtype=torch.float64)).item() == 0.01 + 0.01 * 99


@pytest.mark.parametrize(
    ("name", "chosen", "message"),
    [
        ("generalized_dice_boundary", {"schedule": "steal"}, "schedule is 'steal', expected .*increase"),
        ("generalized_dice_boundary", {"alpha": -0.1}, "alpha is -0.1"),
        ("generalized_dice_boundary", {"increment": None}, "increment is None"),
        ("dice_hausdorff", {"hausdorff": "hausdorff_dt"}, "hausdorff is 'hausdorff_dt', expected .*dt_one_sided"),
        ("dice_hausdorff", {"initial_ratio": float("inf")}, "initial_ratio is inf"),
        ("dice_hausdorff", {"hausdorff": "erosion", "spacing_mm": [1]}, "spacing_mm is"),
    ],
)
def test_a_value_that_a_parameter_cannot_have_is_refused(name, chosen, message):
    with pytest.raises(LossevoError, match=message):
        create(name, **chosen)
