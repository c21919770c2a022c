"""Optimiser steps as differentiable functions: PyTorch's own steps, and gradients as finite differences give them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lossevo.training.batches import Batch
from lossevo.training.differentiable import (
    UPDATES,
    DifferentiableTraining,
    MetaGradient,
    State,
    Tensors,
    meta_gradient,
)
from lossevo.training.schedule import Rates

STEPS = 4


def network(seed: int = 0) -> nn.Module:
    """Two convolutions with a norm between, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Sequential(
            nn.Conv3d(1, 3, 3, padding=1), nn.InstanceNorm3d(3), nn.PReLU(), nn.Conv3d(3, 2, 1)
        ).double()


def batches(count: int, seed: int = 1) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 2, 1, 4, 3, 5, generator=generator, dtype=torch.float64)
    labels = (torch.rand(count, 2, 1, 4, 3, 5, generator=generator) < 0.3).long()
    return [Batch(image, label, None) for image, label in zip(images, labels, strict=True)]


def inner_loss(logits: Tensor, batch: Batch, parameters: Tensors) -> Tensor:
    """Cross-entropy of classes weighted by φ_0, of logits scaled by φ_1."""
    weight, scale = parameters
    each = nn.functional.cross_entropy(scale * logits, batch.label[:, 0], reduction="none")
    return (each * torch.where(batch.label[:, 0] == 1, weight, 1.0)).mean()


PARAMETERS = (torch.tensor(1.5, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64))
RATES = [Rates(0.03, 0.8 + 0.03 * step, weight_decay=0.01) for step in range(STEPS)]


def trained(optimiser: str, parameters: Tensors, state: State | None = None) -> tuple[DifferentiableTraining, State]:
    training = DifferentiableTraining(network(), inner_loss, optimiser=optimiser)
    state = state or training.initial()
    for batch, rates in zip(batches(STEPS), RATES, strict=True):
        state = training.advance(state, batch, parameters, rates)
    return training, state


@pytest.mark.parametrize("optimiser", UPDATES)
def test_steps_are_those_of_pytorch(optimiser: str) -> None:
    _, state = trained(optimiser, PARAMETERS)
    theirs = network()
    make = {"adam": torch.optim.AdamW, "sgd": torch.optim.SGD}[optimiser]
    torch_optimiser = make(theirs.parameters(), lr=0.03)
    for batch, rates in zip(batches(STEPS), RATES, strict=True):
        # SGD of PyTorch adds the decay to the gradient, and its momentum gathers it: decoupled, it is a factor.
        group = torch_optimiser.param_groups[0]
        group["weight_decay"] = rates.weight_decay if optimiser == "adam" else 0.0
        group.update({"betas": (rates.beta1, rates.beta2)} if optimiser == "adam" else {"momentum": rates.beta1})
        torch_optimiser.zero_grad()
        inner_loss(theirs(batch.image), batch, PARAMETERS).backward()
        if optimiser == "sgd":
            with torch.no_grad():
                for parameter in theirs.parameters():
                    parameter.mul_(1 - rates.learning_rate * rates.weight_decay)
        torch_optimiser.step()
    for ours, their in zip(state.weights, theirs.parameters(), strict=True):
        torch.testing.assert_close(ours, their.detach(), rtol=1e-9, atol=1e-12)


def outer_loss(training: DifferentiableTraining, weights: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    (batch,) = batches(1, seed=9)
    return nn.functional.cross_entropy(training.logits(weights, batch.image), batch.label[:, 0])


@pytest.mark.parametrize("optimiser", UPDATES)
@pytest.mark.parametrize("warm", [False, True], ids=["from the start", "amid a training"])
def test_the_meta_gradient_is_that_of_finite_differences(optimiser: str, warm: bool) -> None:
    start = trained(optimiser, PARAMETERS)[1] if warm else None
    training = DifferentiableTraining(network(), inner_loss, optimiser=optimiser)
    start = start or training.initial()

    def after(parameters: Tensors) -> float:
        _, state = trained(optimiser, parameters, start)
        return float(outer_loss(training, state.weights))

    found = meta_gradient(
        training, start, batches(STEPS), RATES, PARAMETERS, [lambda weights: outer_loss(training, weights)]
    )
    assert found.value == pytest.approx(after(PARAMETERS), rel=1e-12)
    for index, gradient in enumerate(found.gradient):
        h = 1e-5
        ahead, behind = (
            after(tuple(p + sign * h * (i == index) for i, p in enumerate(PARAMETERS))) for sign in (1, -1)
        )
        assert float(gradient) == pytest.approx((ahead - behind) / (2 * h), rel=2e-4, abs=1e-9)


def test_it_is_the_gradient_of_the_whole_graph() -> None:
    training = DifferentiableTraining(network(), inner_loss)
    start = training.initial()
    found = meta_gradient(
        training, start, batches(STEPS), RATES, PARAMETERS, [lambda weights: outer_loss(training, weights)]
    )
    leaves = tuple(parameter.clone().requires_grad_() for parameter in PARAMETERS)
    state = State(tuple(w.clone().requires_grad_() for w in start.weights), start.first, start.second)
    for batch, rates in zip(batches(STEPS), RATES, strict=True):
        state = training.advance(state, batch, leaves, rates, differentiable=True)
    expected = torch.autograd.grad(outer_loss(training, state.weights), leaves)
    torch.testing.assert_close(found.gradient, expected, rtol=1e-10, atol=0)
    for ours, theirs in zip(found.state.tensors, state.tensors, strict=True):
        torch.testing.assert_close(ours, theirs.detach())


def test_several_outer_losses_count_by_their_mean() -> None:
    training = DifferentiableTraining(network(), inner_loss)
    arguments = (training, training.initial(), batches(2), RATES[:2], PARAMETERS)

    def weighed(factor: float) -> MetaGradient:
        return meta_gradient(*arguments, [lambda weights: factor * outer_loss(training, weights)])

    both = meta_gradient(*arguments, [lambda w: outer_loss(training, w), lambda w: 3 * outer_loss(training, w)])
    assert both.value == pytest.approx(weighed(2.0).value)
    torch.testing.assert_close(both.gradient, weighed(2.0).gradient)


def test_nothing_is_left_behind() -> None:
    """Neither weights nor gradients of the network change, nor does the state it began with."""
    module = network()
    before = [parameter.detach().clone() for parameter in module.parameters()]
    training = DifferentiableTraining(module, inner_loss)
    start = training.initial()
    kept = [tensor.clone() for tensor in start.tensors]
    found = meta_gradient(
        training, start, batches(STEPS), RATES, PARAMETERS, [lambda weights: outer_loss(training, weights)]
    )
    assert not any(tensor.requires_grad for tensor in (*found.state.tensors, *found.gradient))
    assert all(parameter.grad is None for parameter in module.parameters())
    torch.testing.assert_close([parameter.detach() for parameter in module.parameters()], before, rtol=0, atol=0)
    torch.testing.assert_close([*start.tensors], kept, rtol=0, atol=0)


class TestFixedLength:
    """Of the loss's gradient by the logits only the direction counts in derivatives."""

    @staticmethod
    def training(fixed_length: bool = True) -> DifferentiableTraining:
        def scaled(logits: Tensor, batch: Batch, parameters: Tensors) -> Tensor:
            weight, factor = parameters
            return factor * inner_loss(logits, batch, (weight, torch.ones_like(weight)))

        return DifferentiableTraining(network(), scaled, optimiser="sgd", fixed_length=fixed_length)

    def gradient(self, fixed_length: bool, steps: int = STEPS) -> MetaGradient:
        training = self.training(fixed_length)
        look = [lambda weights: outer_loss(training, weights)]
        return meta_gradient(training, training.initial(), batches(steps), RATES[:steps], PARAMETERS, look)

    def test_a_factor_of_the_loss_is_worth_nothing(self) -> None:
        free, fixed = self.gradient(False), self.gradient(True)
        assert abs(float(free.gradient[1])) > 1e-4
        assert abs(float(fixed.gradient[1])) < 1e-12
        assert abs(float(fixed.gradient[0])) > 1e-6

    def test_the_steps_are_the_same(self) -> None:
        free, fixed = self.gradient(False), self.gradient(True)
        assert free.value == fixed.value
        for one, other in zip(free.state.tensors, fixed.state.tensors, strict=True):
            assert torch.equal(one, other)

    def test_it_is_the_derivative_of_a_step_of_one_length(self) -> None:
        """Finite differences of a step whose field is brought to the length that it has at the parameters."""
        training = self.training()
        start, (batch,) = training.initial(), batches(1)

        def field(weight: Tensor) -> Tensor:
            logits = training.logits(start.weights, batch.image).detach().requires_grad_()
            value = inner_loss(logits, batch, (weight, torch.ones_like(weight)))
            return torch.autograd.grad(PARAMETERS[1] * value, logits)[0]

        length = field(PARAMETERS[0]).norm()

        def after(weight: Tensor) -> float:
            leaves = [w.clone().requires_grad_() for w in start.weights]
            direction = field(weight)
            gradients = torch.autograd.grad(
                training.logits(leaves, batch.image), leaves, direction * (length / direction.norm())
            )
            state = UPDATES["sgd"](start, gradients, RATES[0])
            return float(outer_loss(training, state.weights))

        h = 1e-5
        slope = (after(PARAMETERS[0] + h) - after(PARAMETERS[0] - h)) / (2 * h)
        assert float(self.gradient(True, steps=1).gradient[0]) == pytest.approx(slope, rel=1e-5)
