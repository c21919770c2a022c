"""Loss networks as meta-training handles them: drawn at random, as tensors and back, with and without shaping."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from lossevo.losses.neural import ACTIVATIONS, LossNetwork


def random_network(
    inputs: Sequence[str], hidden: Sequence[int], activation: str, generator: torch.Generator
) -> LossNetwork:
    """Weights from a normal distribution of variance 2/n for n inputs of a layer (He et al., ICCV 2015)."""
    sizes = [len(inputs), *hidden, 1]
    weights = [
        torch.randn(after, before, generator=generator) * math.sqrt(2 / before)
        for before, after in itertools.pairwise(sizes)
    ]
    return LossNetwork(tuple(inputs), rows(weights), activation)


_FIT_STEPS, _FIT_RATE = 1000, 0.02
_LARGEST_MARGIN = 12.0


def cross_entropy_network(
    inputs: Sequence[str], hidden: Sequence[int], activation: str, generator: torch.Generator
) -> LossNetwork:
    """A random network, fitted to the cross-entropy of each class against all others, log(1 + exp(±margin)).

    For two classes, of which the background does not count, that is cross-entropy. The fit is one of least squares on
    margins from -12 to 12 with targets 0 and 1.
    """
    network = random_network(inputs, hidden, activation, generator)
    margins = torch.linspace(-_LARGEST_MARGIN, _LARGEST_MARGIN, 193).repeat(2)
    sign = torch.tensor([1.0, -1.0]).repeat_interleave(193)
    drawn = torch.rand(2, len(margins), generator=generator)
    components = {
        "margin": margins,
        "probability": margins.sigmoid(),
        "target": sign,
        "distance": 2 * drawn[0] - 1,
        "frequency": drawn[1],
    }
    values = torch.stack([components[name] for name in inputs])
    weights = [weight.requires_grad_() for weight in tensors(network)]
    optimiser = torch.optim.Adam(weights, _FIT_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, _FIT_STEPS)
    for _ in range(_FIT_STEPS):
        found, wanted = _before_softplus(values, weights, activation), -sign * margins
        # The second term leads out of where softplus is flat.
        error = (functional.softplus(found) - functional.softplus(wanted)).square().mean()
        error = error + 0.1 * (found - wanted).square().mean()
        optimiser.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return with_weights(network, [weight.detach() for weight in weights])


def _before_softplus(values: Tensor, weights: Sequence[Tensor], activation: str) -> Tensor:
    """W_n a(… a(W_1 u)) of the columns u of ``values``."""
    *hidden, last = weights
    for weight in hidden:
        values = ACTIVATIONS[activation](weight @ values)
    return (last @ values)[0]


STARTS = {"random": random_network, "cross_entropy": cross_entropy_network}
"""Where a meta-training begins."""


def rows(weights: Sequence[Tensor]) -> tuple[tuple[tuple[float, ...], ...], ...]:
    """Matrices as plain data."""
    return tuple(tuple(tuple(row) for row in weight.tolist()) for weight in weights)


def tensors(network: LossNetwork) -> tuple[Tensor, ...]:
    """The matrices of a network, float32."""
    return tuple(torch.tensor(layer) for layer in network.layers)


def with_weights(network: LossNetwork, weights: Sequence[Tensor]) -> LossNetwork:
    """The same network with other weights."""
    return LossNetwork(network.inputs, rows(weights), network.activation)


def without(network: LossNetwork, shaping: Sequence[str]) -> LossNetwork:
    """The network as it is when some of its inputs are 0: without them, and what the first layer multiplies them by."""
    kept = [index for index, name in enumerate(network.inputs) if name not in shaping]
    first, *others = network.layers
    return LossNetwork(
        tuple(network.inputs[index] for index in kept),
        (tuple(tuple(row[index] for index in kept) for row in first), *others),
        network.activation,
    )
