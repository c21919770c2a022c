from __future__ import annotations

import math

import pytest
import torch

from lossevo.errors import LossevoError
from lossevo.expression import Expression
from lossevo.losses import create
from lossevo.losses.base import SegmentationLoss
from lossevo.losses.inputs import LossInputs
from lossevo.losses.neural import log_odds
from lossevo.losses.symbolic import ExpressionLoss
from lossevo.metalearning.gradient_fields import SPACING_MM, STAGES, Teacher, volumes

FORMULAS = (
    "foreground_mean(mean(square(p - y)))",
    "foreground_mean(mean(0.3 * softplus(m) - y * logp))",
    "foreground_mean(mean(-(y * logp) * (f + 0.1)))",
    "foreground_mean(mean(p * d + square(y - p)))",
)


def gradients(loss, classes: int) -> list[list[torch.Tensor]]:
    """Of each volume and stage, by autograd, each state for itself."""
    found = []
    for volume in volumes(classes):
        found.append([])
        for stage in volume.logits:
            logits = stage.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(logits, volume.labels, volume.distance_map), logits)
            found[-1].append(gradient)
    return found


def slow(teacher, formula, classes: int) -> tuple[float, float]:
    """Agreement and factor, number by number; the error's minimum by a search over the factor."""
    ours, theirs = gradients(formula, classes), gradients(teacher, classes)
    g, h = [], []
    for mine, others in zip(ours, theirs, strict=True):
        for a, b in zip(mine, others, strict=True):
            length = math.sqrt(sum(value * value for value in b.flatten().tolist()))
            g += [value / length for value in a.flatten().tolist()]
            h += [value / length for value in b.flatten().tolist()]

    def error(factor: float) -> float:
        return sum((factor * x - y) ** 2 for x, y in zip(g, h, strict=True)) / sum(y * y for y in h)

    low, high = 0.0, 64.0
    for _ in range(60):  # a parabola
        a, b = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, b) if error(a) < error(b) else (a, high)
    return 1 - error(low), low


class TestStates:
    @pytest.mark.parametrize("classes", [2, 3, 5])
    def test_every_stage_is_what_it_is_called(self, classes):
        for volume in volumes(classes):
            accuracy = {
                stage: float((logits.argmax(1, keepdim=True) == volume.labels).double().mean())
                for stage, logits in zip(STAGES, volume.logits, strict=True)
            }
            assert accuracy["initial"] < 1.2 / classes
            assert 1.2 / classes < accuracy["half learned"] < accuracy["nearly right"] - 0.1
            assert all(logits.dtype == torch.float64 for logits in volume.logits)
            wrong = volume.logits[STAGES.index("misplaced")].softmax(1).gather(1, volume.labels) < 0.05
            assert bool(wrong.any())

    @pytest.mark.parametrize("classes", [2, 3, 5])
    def test_a_class_is_rare_and_one_is_absent(self, classes):
        first, second = (volume.labels for volume in volumes(classes))
        assert set(first.unique().tolist()) == set(range(classes))
        last = (second == classes - 1).flatten(1).double().mean(1)
        assert 0 < last[0] < 0.05
        assert last[1] == 0
        assert len(set(SPACING_MM)) > 1

    def test_they_are_always_the_same(self):
        before = torch.get_rng_state()
        once = volumes.__wrapped__(3)
        again = volumes.__wrapped__(3)
        assert all(
            torch.equal(a, b) for x, y in zip(once, again, strict=True) for a, b in zip(x.logits, y.logits, strict=True)
        )
        assert torch.equal(torch.get_rng_state(), before)


class TestAgreement:
    @pytest.mark.parametrize("formula", FORMULAS)
    def test_it_is_that_of_a_slow_loop(self, formula):
        expression, teacher = Expression.parse(formula), create("focal")
        made = Teacher(teacher, 2)
        field = made.field_of(expression)
        agreement, factor = slow(teacher, ExpressionLoss(expression), 2)
        assert made.agreement(field) == pytest.approx(agreement, abs=1e-9)
        assert made.scale(field) == pytest.approx(factor, rel=1e-6)

    @pytest.mark.parametrize(
        ("classes", "formula", "factor"),
        [
            (2, "foreground_mean(mean(3 + 0.5 * (softplus(m) - y * m)))", 2),
            (4, "class_mean(mean(3 - 0.5 * (y * logp)))", 8),
        ],
    )
    def test_a_loss_agrees_with_itself_at_every_stage(self, classes, formula, factor):
        teacher = Teacher(create("cross_entropy"), classes)
        field = teacher.field_of(Expression.parse(formula))
        assert teacher.agreement(field) == pytest.approx(1, abs=1e-12)
        assert teacher.scale(field) == pytest.approx(factor)
        assert teacher.cosines(field) == pytest.approx(dict.fromkeys(STAGES, 1.0), abs=1e-12)

    def test_its_negative_does_not(self):
        teacher = Teacher(create("cross_entropy"), 2)
        field = teacher.field_of(Expression.parse("foreground_mean(mean(y * m - softplus(m)))"))
        assert teacher.agreement(field) == 0
        assert teacher.signed_agreement(field) == pytest.approx(-1)

    def test_what_has_no_gradient_or_no_number_does_not(self):
        teacher = Teacher(create("cross_entropy"), 2)
        assert teacher.agreement(teacher.field_of(Expression.parse("foreground_mean(mean(y))"))) == 0
        assert teacher.field_of(Expression.parse("foreground_mean(mean(square(1e12 * m) ^ 1e3))")) is None
        assert teacher.agreement(None) == 0

    def test_the_teacher_is_left_as_it_is(self):
        loss = create("softadapt", parts=["dice", "cross_entropy"])
        before = {name: value.clone() for name, value in loss.state_dict().items() if torch.is_tensor(value)}
        Teacher(loss, 2)
        assert loss.training
        assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items() if name in before)

    def test_a_loss_without_gradient_is_refused(self):
        with pytest.raises(LossevoError, match="zero everywhere"):
            Teacher(ExpressionLoss(Expression.parse("foreground_mean(mean(y))")), 2)

    def test_one_class_is_refused(self):
        with pytest.raises(LossevoError, match="at least two classes"):
            Teacher(create("dice"), 1)


class AgainstTheRest(SegmentationLoss):
    """The cross-entropy of each foreground class against all others, by the log-odds that a loss network is given."""

    def compute(self, inputs: LossInputs) -> torch.Tensor:
        log_odds_of = log_odds(inputs.logits)[:, 1:]
        return (torch.nn.functional.softplus(log_odds_of) - inputs.target[:, 1:] * log_odds_of).mean()


@pytest.mark.parametrize(("classes", "by_margin"), [(2, 1.0), (3, 0.865), (4, 0.655), (6, 0.322)])
def test_with_more_than_two_classes_the_margin_is_not_the_log_odds(classes, by_margin):
    """p and log p express what a loss network is given, m only with two classes: numbers of docs/metalearning.md."""
    teacher = Teacher(AgainstTheRest(), classes)

    def agreement(formula: str) -> float:
        return teacher.agreement(teacher.field_of(Expression.parse(f"foreground_mean(mean({formula}))")))

    assert agreement("softplus(m) - y * m") == pytest.approx(by_margin, abs=5e-4)
    # With two classes a few voxels are surer than p = 0.9999, where log(1 - p) stops.
    exact = {"abs": 1e-4} if classes > 2 else {"abs": 3e-3}
    assert agreement("-y * logp - (1 - y) * log(1 - p)") == pytest.approx(1, **exact)
    assert agreement("softplus(logp - log(1 - p)) - y * (logp - log(1 - p))") == pytest.approx(1, **exact)
