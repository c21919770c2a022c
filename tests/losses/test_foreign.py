"""Losses that are not lossevo's: made, fitted to the call convention, and checked before any training."""

from __future__ import annotations

import monai
import pytest
import torch
from torch import nn

from lossevo.errors import LossevoError
from lossevo.losses import SegmentationLoss, create
from lossevo.losses.foreign import ForeignLoss, check, made_by, require_factory

LOGITS = torch.randn(2, 3, 4, 6, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(3, (2, 1, 4, 6, 6), generator=torch.Generator().manual_seed(1))


class Own(nn.Module):
    def __init__(self, power: float = 2.0) -> None:
        super().__init__()
        self.power = power

    def forward(self, logits, labels):
        return (logits.softmax(1) - nn.functional.one_hot(labels[:, 0], 3).movedim(-1, 1)).abs().pow(self.power).mean()


class Ours(SegmentationLoss):
    def compute(self, inputs):
        return (inputs.probability - inputs.target).square().mean()


def returns(value):
    """A loss that computes ``value`` of its logits and labels."""

    class Returns(nn.Module):
        def forward(self, logits, labels):
            return value(logits, labels)

    return Returns


class TestMade:
    def test_a_module_is_called_with_logits_and_labels_of_one_channel(self):
        seen = []
        loss = made_by(returns(lambda *given: seen.append(given) or given[0].sum()), "mine")
        loss(LOGITS.half(), LABELS.to(torch.uint8))
        ((logits, labels),) = seen
        assert (logits.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert labels.shape == LABELS.shape

    def test_monai(self):
        loss = made_by(lambda: monai.losses.DiceCELoss(to_onehot_y=True, softmax=True), "mine")
        assert loss(LOGITS, LABELS) == monai.losses.DiceCELoss(to_onehot_y=True, softmax=True)(LOGITS, LABELS)

    def test_a_loss_of_lossevos_kind_is_taken_as_it_is(self):
        assert type(made_by(Ours, "mine")) is Ours
        assert made_by(Ours, "mine")(LOGITS, LABELS) == pytest.approx(float(made_by(Own, "mine")(LOGITS, LABELS)))

    def test_parameters_are_chosen_by_name(self):
        loss = made_by(Own, "mine", {"power": 1.0})
        assert isinstance(loss, ForeignLoss)
        assert loss.module.power == 1.0
        with pytest.raises(
            LossevoError, match=r"mine has no parameter 'powr' \(did you mean 'power'\?\); it takes power"
        ):
            made_by(Own, "mine", {"powr": 1.0})

    @pytest.mark.parametrize(
        ("factory", "message"),
        [
            (lambda weight: Own(), r"mine takes arguments \(weight\), expected .* called without any"),
            (lambda: 3, r"mine makes 3, expected a subclass of torch.nn.Module"),
            (lambda: 1 / 0, r"mine cannot be made: ZeroDivisionError: division by zero \(test_foreign.py:\d+\)"),
            (lambda: exit(3), r"mine cannot be made: SystemExit: 3"),
        ],
    )
    def test_what_makes_no_loss(self, factory, message):
        with pytest.raises(LossevoError, match=message):
            made_by(factory, "mine")

    @pytest.mark.parametrize(
        ("factory", "message"),
        [
            (Own(), r"mine is a loss that is made already; expected .*: def loss\(\): return Own\(\.\.\.\)"),
            (dict, "mine is <class 'dict'>, expected a subclass of torch.nn.Module"),
            (2.5, "mine is 2.5, expected a subclass"),
        ],
    )
    def test_what_is_no_factory(self, factory, message):
        with pytest.raises(LossevoError, match=message):
            require_factory(factory, "mine")


class TestCheck:
    @pytest.mark.parametrize("loss", [Own, Ours, lambda: create("boundary"), lambda: create("cldice")])
    def test_losses_pass(self, loss):
        check(made_by(loss, "mine"), "mine", classes=3, patch=(8, 16, 16))

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (lambda x, y: x.mean().item(), r"mine returns -?0\.\d+ on logits \(2, 3, 8, 16, 32\) .* a scalar tensor"),
            (
                lambda x, y: x.mean(dim=1),
                r"mine returns a tensor \(2, 8, 16, 32\) .*, expected a scalar; return its mean",
            ),
            (lambda x, y: (x.mean() - x.mean()) / 0, r"mine is nan on logits .* expected a finite number"),
            (lambda x, y: x.exp().exp().exp().sum(), "mine is inf on logits"),
            (lambda x, y: x.argmax(1).float().mean(), "mine sends no gradient back to the logits"),
            (lambda x, y: x.detach().mean().requires_grad_(), "mine sends no gradient back to the logits"),
            (lambda x, y: (0 * x).sum(), "mine sends no gradient back to the logits"),
            (lambda x, y: (x - x.detach()).abs().sqrt().sum(), "mine has a gradient that is not finite everywhere"),
            (lambda x, y: nn.functional.cross_entropy(x, y), "mine fails on logits .*: RuntimeError: "),
            (lambda x, y: x[:, 7].mean(), r"mine fails on logits .* IndexError: .*test_foreign.py:\d+"),
        ],
    )
    def test_what_no_training_could_use(self, value, message):
        with pytest.raises(LossevoError, match=message):
            check(made_by(returns(value), "mine"), "mine", classes=3, patch=(8, 16, 96))
