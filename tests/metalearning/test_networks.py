"""Loss networks at the beginning of a meta-training."""

from __future__ import annotations

import pytest
import torch

from lossevo.losses import create
from lossevo.losses.neural import ACTIVATIONS, LearnedLoss
from lossevo.metalearning.networks import STARTS, cross_entropy_network, tensors, with_weights


# Not tanh: it is odd, and so is a network of it without biases, but cross-entropy is even in (margin, target).
@pytest.mark.parametrize("activation", ["elu", "softplus"])
@pytest.mark.parametrize("inputs", [("margin", "target"), ("target", "probability", "margin", "distance", "frequency")])
def test_one_fitted_to_cross_entropy_has_its_gradient(inputs: tuple[str, ...], activation: str) -> None:
    generator = torch.Generator().manual_seed(0)
    loss = LearnedLoss(cross_entropy_network(inputs, (16, 16), activation, generator))
    logits = 3 * torch.randn(2, 2, 5, 6, 7, generator=generator)
    target = (torch.rand(2, 1, 5, 6, 7, generator=generator) < 0.3).long()
    fields = []
    for each in (loss, create("cross_entropy")):
        leaf = logits.clone().requires_grad_()
        each(leaf, target).backward()
        fields.append(leaf.grad.flatten())
    assert torch.cosine_similarity(*fields, dim=0) > 0.99
    assert float(fields[0].norm() / fields[1].norm()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_same_generator_gives_the_same_network(start: str, activation: str) -> None:
    drawn = [
        STARTS[start](("margin", "target"), (3,), activation, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert with_weights(drawn[0], tensors(drawn[0])) == drawn[0]
