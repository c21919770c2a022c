"""Gradients made beside the value: those of autograd, and nothing else kept."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lossevo.analysis.cost import saved_bytes
from lossevo.losses import expression_of
from lossevo.losses.base import one_hot
from lossevo.losses.distribution import Focal
from lossevo.losses.inputs import LossInputs
from lossevo.losses.neural import LearnedLoss
from lossevo.losses.one_pass import one_pass
from lossevo.losses.region import Dice, Tversky
from lossevo.losses.symbolic import ExpressionLoss
from tests.losses.every_loss import assert_same, create, every_loss, example, value_and_gradient
from tests.networks import CROSS_ENTROPY

OWN = [
    *("focal", "topk", "dice", "generalized_dice", "jaccard", "tversky", "asymmetric_similarity"),
    *("dice_ce", "dice_focal", "dice_topk", "focal_tversky", "unified_focal", "exp_log"),
]


def has_own_gradient(value):
    return type(value.grad_fn).__name__ == "_OwnGradientBackward"


@every_loss
@pytest.mark.parametrize("soft", [False, True], ids=["labels", "one-hot"])
def test_value_and_gradient_are_those_of_autograd(name, parameters, soft):
    loss = create(name, **parameters)
    logits, target = example(3, (3, 4, 2))
    target = one_hot(target, 3).to(logits.dtype) if soft else target
    by_autograd = copy.deepcopy(loss)
    by_autograd.has_own_gradient = False
    assert_same(value_and_gradient(loss, logits, target), value_and_gradient(by_autograd, logits, target))


@pytest.mark.parametrize("name", OWN)
def test_only_the_gradient_is_kept(name):
    logits = torch.randn(2, 3, 8, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    target = torch.ones(2, 1, 8, 8, 8, dtype=torch.long)
    loss = create(name)

    assert has_own_gradient(loss(logits, target))
    assert saved_bytes(lambda: loss(logits, target), given=(logits, target)) == logits.untyped_storage().nbytes()


def test_the_arguments_are_left_as_they_were():
    logits, target = example(3, (4, 4))
    soft = one_hot(target, 3).to(logits.dtype)
    before = logits.detach().clone(), soft.clone()
    for name in OWN:
        create(name)(logits, soft).backward()
        create(name)(logits, target).backward()
    assert torch.equal(logits.detach(), before[0])
    assert torch.equal(soft, before[1])


def test_twice_backward_and_a_weight_are_ordinary():
    logits, target = example(3, (4, 4))
    loss = create("dice_ce")
    (once,) = torch.autograd.grad(loss(logits, target), logits)
    value = 0.5 * loss(logits, target) + loss(logits, target)
    for _ in range(2):
        (gradient,) = torch.autograd.grad(value, logits, retain_graph=True)
        torch.testing.assert_close(gradient, 1.5 * once)
    value = loss(logits, target)
    value.backward(retain_graph=True)
    value.backward()
    torch.testing.assert_close(logits.grad, 2 * once)


def test_without_a_gradient_there_is_only_the_value():
    logits, target = example(3, (4, 4))
    loss = create("dice_ce")
    with torch.no_grad():
        value = loss(logits, target)
    assert not value.requires_grad
    assert not loss(logits.detach(), target).requires_grad
    torch.testing.assert_close(value, loss(logits, target).detach())


class LearnableTversky(Tversky):
    """Its weight of false positives is a parameter."""

    def __init__(self):
        super().__init__()
        self.w_fp = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))


def test_a_parameter_of_the_loss_gets_its_gradient_too():
    logits, target = example(3, (4, 4))
    loss = LearnableTversky()
    value = loss(logits, target)
    assert not has_own_gradient(value)
    by_logits, by_weight = torch.autograd.grad(value, [logits, loss.w_fp])
    assert by_weight != 0
    torch.testing.assert_close(by_logits, torch.autograd.grad(create("tversky")(logits, target), logits)[0])


class Peeping(Dice):
    """Dice plus something of the logits themselves."""

    def compute(self, inputs: LossInputs):
        """See the class."""
        return super().compute(inputs) + inputs.logits.square().mean()


def test_a_loss_of_more_than_sums_goes_through_autograd():
    logits, target = example(3, (4, 4))
    value = Peeping()(logits, target)
    assert not has_own_gradient(value)
    (gradient,) = torch.autograd.grad(value, logits)
    (dice,) = torch.autograd.grad(create("dice")(logits, target), logits)
    torch.testing.assert_close(gradient, dice + 2 * logits.detach() / logits.numel())


class Both(Focal):
    """Focal loss, Dice with and without squares: all that sums can be asked for."""

    def compute(self, inputs: LossInputs):
        """See the class."""
        plain, squared = inputs.region_sums(), inputs.region_sums(squared=True)
        ratio = plain.overlap / (plain.predicted + plain.actual + squared.predicted + squared.actual)
        return super().compute(inputs) - ratio.mean()


def test_all_sums_together():
    logits, target = example(3, (3, 4, 2))
    inputs = Both().prepare(logits, target)
    values = one_pass(Both().compute, inputs), Both().compute(inputs)
    assert has_own_gradient(values[0])
    gradients = [torch.autograd.grad(value, logits)[0] for value in values]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)


def test_memory_layout_of_the_logits_is_kept():
    logits = torch.randn(2, 3, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    logits = logits.to(memory_format=torch.channels_last_3d).requires_grad_()
    target = torch.ones(2, 1, 4, 6, 8, dtype=torch.long)
    (gradient,) = torch.autograd.grad(create("dice")(logits, target), logits)
    assert gradient.is_contiguous(memory_format=torch.channels_last_3d)


def test_what_hooks_keep_of_a_backward_pass_is_left_as_it_is() -> None:
    kept = []

    def pack(saved: torch.Tensor) -> torch.Tensor:
        kept.append(saved)
        return saved

    logits = torch.randn(1, 2, 4, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        value = create("dice")(logits, (logits[:, :1] > 0).long())
    before = [saved.clone() for saved in kept]
    (5 * value).backward()
    assert all(torch.equal(one, other) for one, other in zip(kept, before, strict=True))


@pytest.mark.parametrize("name", ["dice", "expression", "learned"])
@pytest.mark.parametrize("changed", ["logits", "target"])
def test_second_derivatives_at_what_was_changed_in_place_are_an_error(name: str, changed: str) -> None:
    """Not silently those at the new values."""
    loss = {
        "dice": lambda: create("dice"),
        "expression": lambda: ExpressionLoss(expression_of("tversky")),
        "learned": lambda: LearnedLoss(CROSS_ENTROPY),
    }[name]()
    logits = torch.randn(1, 2, 4, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    target = (logits[:, :1] > 0).long()
    value = loss(logits, target)
    with torch.no_grad():
        (logits if changed == "logits" else target).zero_()
    with pytest.raises(RuntimeError, match="changed in place"):
        torch.autograd.grad(value, logits, create_graph=True)
