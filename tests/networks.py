"""Loss networks that several tests need."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from lossevo.losses.neural import INPUTS, LossNetwork

_CLAMP = 20.0
CROSS_ENTROPY = LossNetwork(
    ("margin", "target"),
    (((1.0, -_CLAMP), (-1.0, _CLAMP), (1.0, _CLAMP), (-1.0, -_CLAMP)), ((0.5, 0.5, -0.5, -0.5),)),
    "relu",
)
"""Of two classes: (|m - 20 g| - |m + 20 g|) / 2 is -m g for |m| < 20, whose softplus is -log p of the true class."""


def random_network(
    inputs: Sequence[str] = tuple(INPUTS), hidden: Sequence[int] = (4, 3), activation: str = "elu", seed: int = 0
) -> LossNetwork:
    """Normally distributed weights."""
    rng = np.random.default_rng(seed)
    sizes = itertools.pairwise([len(inputs), *hidden, 1])
    layers = (rng.normal(0, 1, (after, before)).tolist() for before, after in sizes)
    return LossNetwork(tuple(inputs), tuple(tuple(map(tuple, layer)) for layer in layers), activation)
