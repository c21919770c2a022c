"""What all adaptive weightings share: the weighted sum, its gradient, parts, state and record."""

from __future__ import annotations

import copy
import io

import pytest
import torch

from lossevo.errors import LossevoError
from lossevo.expression import Expression
from lossevo.losses import create, describe, names, parameters, signed_distance_map
from lossevo.losses.base import one_hot
from lossevo.losses.trajectory import ROWS
from tests.losses.every_loss import assert_same, example, value_and_gradient

SCHEMES = [name for name in names() if describe(name).family == "adaptive" and "parts" in parameters(name)]
PARTS = ("dice", "cross_entropy", "boundary")
every_scheme = pytest.mark.parametrize("name", SCHEMES)


def quick(name, **parameters):
    """The scheme, over three parts; SoftAdapt with updates that come soon."""
    parameters = {"parts": PARTS, **parameters}
    if name == "softadapt":
        parameters = {"window": 2, "period": 1, "beta": 2.0, **parameters}
    return create(name, **parameters)


def run(loss, calls, seed=0):
    """Values of ``calls`` calls in training mode, two to the epoch."""
    values = []
    for call in range(calls):
        values.append(loss(*example(3, (3, 4, 5), seed=seed + call)).item())
        if call % 2 == 1:
            loss.step()
    return values


# --- the weighted sum ---


@every_scheme
def test_at_first_and_in_evaluation_it_is_the_plain_sum(name):
    loss = quick(name)
    for seed in range(4):
        batch = example(3, (3, 4, 5), seed=seed)
        parts = [value_and_gradient(create(part), *batch) for part in PARTS]
        plain = [sum(terms) for terms in zip(*parts, strict=True)]
        before = copy.deepcopy(loss.state_dict())
        assert_same(value_and_gradient(loss.eval(), *batch), plain)
        assert all(torch.equal(loss.state_dict()[key], before[key]) for key in before)
        loss.train()
        if seed == 0:
            assert_same(value_and_gradient(loss, *batch), plain)
        else:
            loss(*batch)
        loss.step()
    assert (loss.weights - 1).abs().max() > 0.01


@every_scheme
def test_weights_move_and_take_no_part_in_the_gradient(name):
    loss = quick(name)
    for seed in range(6):
        batch = example(3, (3, 4, 5), seed=seed)
        weights, constant = loss.weights.clone(), loss.regulariser()
        value, gradient = value_and_gradient(loss, *batch)
        parts = [value_and_gradient(create(part), *batch) for part in PARTS]
        torch.testing.assert_close(gradient, sum(w * part[1] for w, part in zip(weights, parts, strict=True)))
        torch.testing.assert_close(value, sum(w * part[0] for w, part in zip(weights, parts, strict=True)) + constant)
        loss.step()
    assert (weights - 1).abs().max() > 0.01
    assert not list(loss.parameters())
    assert not any(buffer.requires_grad for buffer in loss.buffers())


@every_scheme
def test_second_derivatives_are_those_of_the_call_though_the_weights_have_moved(name):
    loss = quick(name, parts=["dice", "cross_entropy"])
    run(loss, 4)
    logits, target = example(3, (3, 4), seed=9)
    weights = loss.weights.clone()
    (gradient,) = torch.autograd.grad(loss(logits, target), logits, create_graph=True)
    loss.step()
    (found,) = torch.autograd.grad(gradient.square().sum(), logits)

    plain = sum(w * create(part)(logits, target) for w, part in zip(weights, ("dice", "cross_entropy"), strict=True))
    (gradient,) = torch.autograd.grad(plain, logits, create_graph=True)
    torch.testing.assert_close(found, torch.autograd.grad(gradient.square().sum(), logits)[0])


@every_scheme
@pytest.mark.parametrize("scale", [0.0, 50.0, -50.0], ids=["unsure", "right", "wrong"])
def test_extreme_predictions_leave_everything_finite(name, scale):
    loss = quick(name)
    _, target = example(3, (4, 5, 6))
    for labels in (target, torch.zeros_like(target), target.clamp(max=1), torch.zeros_like(target)):
        logits = scale * (2 * one_hot(target, 3).float() - 1)
        value, gradient = value_and_gradient(loss, logits, labels)
        assert value.isfinite()
        assert gradient.isfinite().all()
        loss.step()
    assert loss.weights.isfinite().all()
    assert (loss.weights >= 0).all()


@every_scheme
@pytest.mark.parametrize("calls", [0, 4])
def test_a_value_that_is_not_finite_counts_for_nothing(name, calls):
    """In the first call, too: 0 is no value that was ever seen."""
    loss = quick(name)
    run(loss, calls)
    other = copy.deepcopy(loss)
    logits, target = example(3, (3, 4, 5))
    assert loss((torch.nan * logits).requires_grad_(), target).isnan()
    assert run(loss, 5) == run(other, 5)
    torch.testing.assert_close(loss.state_dict(), other.state_dict(), rtol=0, atol=0)


@every_scheme
def test_a_call_without_gradient_is_no_step(name):
    loss = quick(name)
    run(loss, 3)
    other = copy.deepcopy(loss)
    logits, target = example(3, (3, 4, 5))
    with torch.no_grad():
        value = loss(logits, target)
    torch.testing.assert_close(value, other.eval()(logits, target))
    torch.testing.assert_close(loss.state_dict(), other.state_dict(), rtol=0, atol=0)


@every_scheme
def test_it_trains(name):
    loss = quick(name)
    logits, target = example(3, (6, 6))
    logits = logits.detach().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        loss(logits, target).backward()
        optimizer.step()
        loss.step()
    assert torch.equal(logits.argmax(dim=1, keepdim=True), target)


@pytest.mark.parametrize("name", ["cov_weighting"])
def test_a_call_in_training_compiles_into_one_graph(name):
    torch.compiler.reset()
    loss = create(name, parts=["dice", "cross_entropy"])
    compiled = torch.compile(copy.deepcopy(loss), backend="aot_eager", fullgraph=True)
    for seed in range(4):
        batch = example(3, (3, 4), seed=seed)
        assert_same(value_and_gradient(compiled, *batch), value_and_gradient(loss, *batch))


# --- parts ---


@every_scheme
def test_by_default_the_parts_are_those_of_dice_ce(name):
    batch = example(3, (3, 4, 5))
    assert_same(value_and_gradient(create(name), *batch), value_and_gradient(create("dice_ce"), *batch))


@every_scheme
def test_factors_come_before_all_else(name):
    scaled, plain = quick(name, factors=[1, 0.5, 0.01]), quick(name)
    batch = example(3, (3, 4, 5))
    parts = [factor * create(part)(*batch) for factor, part in zip((1, 0.5, 0.01), PARTS, strict=True)]
    torch.testing.assert_close(scaled(*batch), sum(parts))
    torch.testing.assert_close(scaled.latest, torch.stack(parts).detach())
    torch.testing.assert_close(scaled.eval()(*batch), sum(parts))
    assert scaled.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize(
    ("factors", "message"),
    [([1, 2, 3], "factors has 3 numbers for 2 parts"), ([1, 0], "factors is .*numbers > 0"), (2.0, "factors is 2.0")],
)
def test_factors_that_are_none_are_refused(factors, message):
    with pytest.raises(LossevoError, match=message):
        create("softadapt", factors=factors)


def test_parts_are_names_or_specifications_of_any_loss():
    written = Expression.parse("1 - foreground_mean(2 * sum(p * y) / sum(p + y))")
    loss = create(
        "cov_weighting",
        parts=[
            "tversky",
            {"name": "tversky", "parameters": {"w_fp": 0.7, "w_fn": 0.3}},
            {"expression": written.to_json()},
        ],
    ).eval()
    assert list(loss.parts) == ["tversky", "tversky_2", "expression"]
    assert not loss.uses_distance_map
    batch = example(3, (3, 4, 5))
    expected = create("tversky")(*batch) + create("tversky", w_fp=0.7, w_fn=0.3)(*batch) + create("dice")(*batch)
    torch.testing.assert_close(loss(*batch), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ("dice", "parts is 'dice', expected a list of two or more losses"),
        (["dice"], "two or more"),
        (None, "parts is None"),
        (["dice", "cross_entrpy"], "unknown loss 'cross_entrpy' .did you mean 'cross_entropy'"),
        (["dice", {"name": "focal", "parameters": {"gama": 1}}], "has no parameter 'gama'"),
        (["dice", 3], "loss specification 3"),
        (["dice", "adaptive"], "parts has 'adaptive', whose parameters nobody would learn"),
        (
            [
                {"name": "boundary", "parameters": {"spacing_mm": [4, 1]}},
                {"name": "boundary", "parameters": {"spacing_mm": [1, 1]}},
            ],
            r"different spacings, .*\(1.0, 1.0\).*: give spacing_mm once",
        ),
    ],
)
def test_parts_that_are_none_are_refused(parts, message):
    with pytest.raises(LossevoError, match=message):
        create("uncertainty_weighting", parts=parts)


def test_distance_map_and_spacing_reach_the_parts():
    loss = create("softadapt", parts=["dice", "boundary", "hausdorff_dt"]).eval()
    assert loss.uses_distance_map
    batch = example(3, (4, 5, 6))
    given = signed_distance_map(one_hot(batch[1], 3), (4.0, 1.0, 2.0))
    loss.use_spacing((4.0, 1.0, 2.0))
    measuring = [create(part, spacing_mm=(4.0, 1.0, 2.0)) for part in ("boundary", "hausdorff_dt")]
    expected = create("dice")(*batch) + sum(part(*batch, given) for part in measuring)
    torch.testing.assert_close(loss(*batch, given), expected)
    torch.testing.assert_close(loss(*batch), expected)


def test_the_spacing_of_one_part_is_that_of_all():
    loss = create("softadapt", parts=["hausdorff_dt", {"name": "boundary", "parameters": {"spacing_mm": (4, 1, 1)}}])
    loss.use_spacing((1.0, 1.0, 1.0))
    assert {part.spacing_mm for part in (loss, *loss.parts.values())} == {(4.0, 1.0, 1.0)}


def test_an_epoch_ends_for_the_parts_too():
    loss = create("cov_weighting", parts=["generalized_dice_boundary", "cross_entropy"])
    for _ in range(3):
        loss.step()
    assert loss.parts["generalized_dice_boundary"].w_boundary.epoch == 3


# --- state ---


@every_scheme
def test_a_training_that_is_resumed_goes_on_exactly(name):
    parts = [*PARTS, "dice_hausdorff"]
    loss = quick(name, parts=parts)
    run(loss, 7)  # ends in the middle of an epoch
    file = io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    resumed = quick(name, parts=parts)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    loss.step()
    resumed.step()
    assert run(resumed, 7, seed=20) == run(loss, 7, seed=20)
    assert resumed.trajectory() == loss.trajectory()


@every_scheme
def test_the_same_calls_give_the_same_and_a_copy_is_on_its_own(name):
    loss = quick(name)
    first = run(loss, 4)
    twin = copy.deepcopy(loss)
    run(twin, 3)
    assert len(loss.trajectory()) == 4
    assert run(quick(name), 4) == first


@every_scheme
def test_half_precision_of_a_network_leaves_the_numbers_as_they_are(name):
    loss = quick(name).half()
    run(loss, 4)
    assert {buffer.dtype for buffer in loss.buffers()} == {torch.float64, torch.int64}


# --- the record ---


@every_scheme
def test_the_record_tells_the_weights_of_every_call(name):
    loss = quick(name)
    assert loss.trajectory() == []
    expected = []
    for call in range(5):
        weights = dict(zip(PARTS, loss.weights.tolist(), strict=True))
        expected.append({"step": call, **{f"w_{part}": weight for part, weight in weights.items()}})
        loss(*example(3, (3, 4), seed=call))
        loss.step()
    loss.eval()(*example(3, (3, 4)))
    assert loss.trajectory() == expected
    assert expected[4] != {**expected[0], "step": 4}


def test_the_record_stays_small_and_spans_the_training():
    loss = create("uncertainty_weighting", parts=["dice", "cross_entropy"])
    logits, target = example(2, (1, 2), batch=1)
    size = {key: value.shape for key, value in loss.state_dict().items()}
    used = []
    for call in range(2 * ROWS + 3):
        used.append(loss.weights[0].item())
        loss((1 + call % 7) * logits, target)
        if call + 1 in (ROWS, ROWS + 1, 2 * ROWS, 2 * ROWS + 1):
            record = loss.trajectory()
            stride = 1 if call < ROWS else 2 if call < 2 * ROWS else 4
            assert [row["step"] for row in record] == list(range(0, call + 1, stride))
            assert [row["w_dice"] for row in record] == used[::stride]
    assert {key: value.shape for key, value in loss.state_dict().items()} == size
