"""Each hand-crafted loss that is written as an expression equals its module, in value and gradient."""

from __future__ import annotations

import itertools

import pytest
import torch

from lossevo.errors import LossevoError
from lossevo.expression import Expression
from lossevo.losses import (
    create,
    expressible_names,
    expression_of,
    expression_parameters,
    inexpressible_names,
    names,
)
from lossevo.losses.symbolic import ExpressionLoss
from lossevo.losses.tunable import expression_dimensions, expression_flags, placed

SPACING_MM = (4.0, 1.0, 1.0)


def _case(kind: str, classes: int, spatial: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, classes, *spatial, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (2, 1, *spatial), generator=generator)
    if kind == "saturated":
        logits = 50 * logits.sign()
    if kind == "absent":
        labels[labels == classes - 1] = 0
    if kind == "empty":
        labels.zero_()
    return logits, labels


def _value_and_gradient(
    loss: torch.nn.Module, logits: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = logits.clone().requires_grad_()
    value = loss(logits, labels)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


@pytest.mark.parametrize("spatial", [(6, 5), (4, 5, 6)])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", expressible_names())
def test_expression_equals_module_on_random_input(name: str, classes: int, spatial: tuple[int, ...]) -> None:
    logits, labels = _case("random", classes, spatial)
    module = create(name, **expression_parameters(name))
    value, gradient = _value_and_gradient(module, logits, labels)
    found, found_gradient = _value_and_gradient(ExpressionLoss(expression_of(name)), logits, labels)
    # The modules add 1e-5 to denominators of tens of voxels, the language adds nothing.
    torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found_gradient, gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", ["saturated", "absent", "empty"])
@pytest.mark.parametrize("name", [name for name in expressible_names() if not name.startswith("generalized_dice")])
def test_expression_equals_module_at_the_edges(name: str, kind: str) -> None:
    logits, labels = _case(kind, 3, (4, 5, 6))
    value, gradient = _value_and_gradient(create(name, **expression_parameters(name)), logits, labels)
    found, found_gradient = _value_and_gradient(ExpressionLoss(expression_of(name)), logits, labels)
    torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found_gradient, gradient, rtol=1e-3, atol=1e-6)


def test_anisotropic_distance_map_is_used_as_given() -> None:
    logits, labels = _case("random", 2, (4, 6, 6))
    distance = torch.linspace(-15, 15, logits.numel(), dtype=torch.float64).reshape(logits.shape)
    module, expression = create("boundary"), ExpressionLoss(expression_of("boundary"))
    torch.testing.assert_close(expression(logits, labels, distance), module(logits, labels, distance))


def test_expression_loss_of_one_logit_equals_two_classes() -> None:
    logits, labels = _case("random", 2, (4, 5, 6))
    logits[:, 0] = 0
    for name in expressible_names():
        loss = ExpressionLoss(expression_of(name))
        torch.testing.assert_close(loss(logits[:, 1:], labels), loss(logits, labels))


def test_expression_loss_survives_pickle_and_state_dict(tmp_path: object) -> None:
    import copy
    import pickle

    logits, labels = _case("random", 2, (4, 5, 6))
    loss = ExpressionLoss(expression_of("tversky"))
    assert torch.equal(pickle.loads(pickle.dumps(loss))(logits, labels), loss(logits, labels))
    other = ExpressionLoss(expression_of("tversky").with_coefficients([0.5, 0.5]))
    other.load_state_dict(copy.deepcopy(loss.state_dict()))
    assert torch.equal(other(logits, labels), loss(logits, labels))


def test_unknown_expression_names_the_nearest() -> None:
    with pytest.raises(LossevoError, match="did you mean 'tversky'"):
        expression_of("tverski")


def test_every_loss_of_the_catalogue_is_an_expression_or_says_why_not() -> None:
    assert sorted([*expressible_names(), *inexpressible_names()]) == sorted(names())
    with pytest.raises(LossevoError, match=r"'lovasz' cannot be written as an expression: .* no sorting"):
        expression_of("lovasz")


def test_a_loss_may_change_while_a_training_goes_on() -> None:
    logits, labels = _case("random", 3, (4, 5, 6))
    loss = ExpressionLoss(Expression.parse("(1 - t) * class_mean(mean(p)) + t * class_mean(mean(square(p - y)))"))
    first, last = (
        ExpressionLoss(Expression.parse(formula))
        for formula in ("class_mean(mean(p))", "class_mean(mean(square(p - y)))")
    )
    for done in range(130):
        t = min(done / 100, 1.0)
        assert float(loss.progress) == t
        if done % 25 == 0:
            value, gradient = _value_and_gradient(loss, logits, labels)
            parts = [_value_and_gradient(part, logits, labels) for part in (first, last)]
            torch.testing.assert_close(value, (1 - t) * parts[0][0] + t * parts[1][0])
            torch.testing.assert_close(gradient, (1 - t) * parts[0][1] + t * parts[1][1])
        loss.step()
    resumed = ExpressionLoss(loss.expression)
    resumed.load_state_dict(loss.state_dict())
    assert float(resumed.progress) == 1
    assert "progress" not in first.state_dict()


@pytest.mark.parametrize("epochs", [0, 40, 100])
def test_a_schedule_is_an_expression_of_the_progress(epochs: int) -> None:
    name = "generalized_dice_boundary"
    logits, labels = _case("random", 3, (4, 5, 6))
    module, expression = create(name, **expression_parameters(name)), ExpressionLoss(expression_of(name))
    for _ in range(epochs):
        module.step()
        expression.step()
    value, gradient = _value_and_gradient(module, logits, labels)
    found, found_gradient = _value_and_gradient(expression, logits, labels)
    torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found_gradient, gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_progress_of_a_loss_is_that_of_its_call(dtype: torch.dtype) -> None:
    """A step between forward and backward pass, or before a second derivative, changes nothing."""
    logits, labels = _case("random", 3, (4, 5))
    logits = logits.to(dtype).requires_grad_()
    for own in (True, False):
        gradients = []
        for steps in (0, 7):
            loss = ExpressionLoss(Expression.parse("(0.5 + t) * class_mean(mean(square(p - y)))"))
            loss.has_own_gradient = own
            value = loss(logits, labels)
            for _ in range(steps):
                loss.step()
            (gradient,) = torch.autograd.grad(value, logits, create_graph=True)
            gradients.append(gradient.detach())
        torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


def test_a_gradient_that_is_changed_in_place_was_the_caller_s_own() -> None:
    logits, labels = _case("random", 3, (4, 5))
    logits.requires_grad_()
    for loss in (ExpressionLoss(expression_of("dice")), create("dice")):
        value = loss(logits, labels)
        (first,) = torch.autograd.grad(value, logits, retain_graph=True)
        kept = first.clone()
        first.mul_(2)
        (second,) = torch.autograd.grad(value, logits, retain_graph=True)
        torch.testing.assert_close(second, kept)


def test_a_functional_call_uses_its_own_coefficients_in_derivatives_of_derivatives() -> None:
    loss = ExpressionLoss(expression_of("focal"))
    logits = torch.randn(1, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = logits.argmax(dim=1, keepdim=True)
    others = 2 * loss.coefficients
    gradients = []
    for call in (
        lambda x: torch.func.functional_call(loss, {"coefficients": others}, (x, target)),
        ExpressionLoss(loss.expression.with_coefficients(others.tolist())),
    ):
        leaf = logits.clone().requires_grad_()
        value = call(leaf) if not isinstance(call, ExpressionLoss) else call(leaf, target)
        gradients.append(torch.autograd.grad(value, leaf, create_graph=True)[0])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", [name for name in expressible_names() if expression_flags(name)])
def test_an_expression_with_other_flags_equals_the_module_with_them(name: str) -> None:
    logits, labels = _case("random", 3, (5, 6))
    published, hashes = expression_flags(name), set()
    for values in itertools.product((False, True), repeat=len(published)):
        chosen = dict(zip(published, values, strict=True))
        value, gradient = _value_and_gradient(create(name, **chosen), logits, labels)
        expression = expression_of(name, **chosen)
        hashes.add(expression.hash)
        found, found_gradient = _value_and_gradient(ExpressionLoss(expression), logits, labels)
        torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found_gradient, gradient, rtol=1e-3, atol=1e-6)
    assert len(hashes) == 2 ** len(published)


@pytest.mark.parametrize("name", [name for name in expressible_names() if expression_dimensions(name)])
def test_an_expression_with_other_parameters_equals_the_module_with_them(name: str) -> None:
    logits, labels = _case("random", 3, (5, 6))
    tuned = expression_dimensions(name)
    assert tuned
    for share in (0.0, 0.35, 1.0):
        chosen = placed(
            tuned, {found.name: found.rounded(found.low + share * (found.high - found.low)) for found in tuned}
        )
        value, gradient = _value_and_gradient(create(name, **expression_parameters(name), **chosen), logits, labels)
        expression = expression_of(name, **chosen)
        assert expression.hash != expression_of(name).hash
        found, found_gradient = _value_and_gradient(ExpressionLoss(expression), logits, labels)
        torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found_gradient, gradient, rtol=1e-3, atol=1e-6)


def test_the_tuned_parameters_are_those_that_an_expression_can_have() -> None:
    assert {
        name: [found.name for found in expression_dimensions(name)]
        for name in expressible_names()
        if expression_dimensions(name)
    } == {
        "focal": ["gamma"],  # not alpha: the language has no value that is the background's alone
        "tversky": ["w_fp"],
        "asymmetric_similarity": ["beta"],
        "sensitivity_specificity": ["w_sensitivity"],
        "dice_ce": ["w_dice"],
        "dice_focal": ["w_dice", "gamma"],
        "focal_tversky": ["w_fp", "gamma"],
        "exp_log": ["w_dice", "gamma"],
    }


def test_a_parameter_that_the_expression_cannot_have_is_refused() -> None:
    with pytest.raises(LossevoError, match=r"'tversky' cannot be written .* another w_fb \(did you mean 'w_fp'\?\)"):
        expression_of("tversky", w_fb=0.5)
    with pytest.raises(LossevoError, match="it has no parameter"):
        expression_of("boundary", gamma=2)
