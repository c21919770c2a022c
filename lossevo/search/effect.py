"""Whether two expressions train alike: whether their gradients point the same way, to half a degree, wherever a
training may come.

A gradient's length is no matter under Adam, so its direction alone is compared. Unlike a fingerprint this lets go what
is far below the noise of a training, such as the 0.0006 that the protection of a power leaves of a term that is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import torch
from torch import Tensor

from lossevo.expression import Expression
from lossevo.losses.symbolic import ExpressionLoss
from lossevo.search.probe_states import STATES, ProbeState, logits_of
from lossevo.search.screening import Sample, balls, gradients, logit_gradient, noise_samples, sample_of

DEGREES = 0.5
"""By so much may a gradient turn."""
_SIDE = 24
"""Of the volumes of the probe states: in a sum over voxels a term weighs more the more there are."""
_LACKING = (STATES[3], ProbeState(0.7, 14.0, 0.0, 0.5, progress=1.0))
"""States in which one of the images lacks the foreground, in the second without a voxel that is taken for it."""
_SPACING_MM = np.full(3, 4.0)


def same_effect(expression: Expression, classes: int) -> Callable[[Expression], bool]:
    """Tells whether another expression trains like this one, with so many classes.

    It does if no gradient turns by more than :data:`DEGREES`: on noise, on saturated noise, in each probe state, and
    where an image lacks the foreground.
    """
    wanted = [*_directions(expression, classes)]

    def same(other: Expression) -> bool:
        return all(
            _angle(mine, theirs) <= DEGREES for mine, theirs in zip(wanted, _directions(other, classes), strict=True)
        )

    return same


def turns(expression: Expression, other: Expression, classes: int) -> list[float]:
    """By how many degrees the gradient turns in each place; infinite where only one has a gradient."""
    pairs = zip(_directions(expression, classes), _directions(other, classes), strict=True)
    return [_angle(mine, theirs) for mine, theirs in pairs]


def _directions(expression: Expression, classes: int) -> Iterator[Tensor | None]:
    """A unit gradient in each place, zero where there is none, None where it or the value is not finite; the next is
    only computed if it is asked for.
    """
    loss = ExpressionLoss(expression)
    for sample in noise_samples(classes):
        yield from _unit(gradients(loss, sample), apart=loss.progress is not None)
    for state, sample in _states(classes):
        yield from _unit(logit_gradient(loss, sample, progress=state.progress))


def _unit(gradient: Tensor | None, *, apart: bool = False) -> Iterator[Tensor | None]:
    """The gradient, or the gradients that stand ``apart``, with length 1."""
    if gradient is None:
        yield None
        return
    for one in gradient if apart else (gradient,):
        scaled = one.flatten() / one.abs().max().clamp(min=1e-300)  # else its square may underflow
        yield torch.nn.functional.normalize(scaled, dim=0)


def _angle(a: Tensor | None, b: Tensor | None) -> float:
    """Between unit vectors, in degrees; 0 between two that are zero, or not finite, alike."""
    if a is None or b is None:
        return 0.0 if a is b else math.inf
    if bool(a.any()) != bool(b.any()):
        return math.inf
    return math.degrees(2 * math.asin(min(1.0, float((a - b).norm()) / 2)))


@cache
def _states(classes: int) -> tuple[tuple[ProbeState, Sample], ...]:
    """The probe states on balls."""
    rng = np.random.default_rng(20200611)
    labels = balls(classes, _SIDE)
    lacking = labels.clone()
    lacking[1] = 0
    places = [*((state, labels) for state in STATES), *((state, lacking) for state in _LACKING)]
    return tuple((state, _in_state(state, labels, classes, rng)) for state, labels in places)


def _in_state(state: ProbeState, labels: Tensor, classes: int, rng: np.random.Generator) -> Sample:
    one_hot = torch.cat([labels == label for label in range(classes)], dim=1).double().numpy()
    return sample_of(labels, torch.from_numpy(logits_of(state, one_hot, _SPACING_MM, rng)).double())
