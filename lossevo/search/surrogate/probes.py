"""Probes: what a loss does to a network's output in each of the probe states, on crops of the training subjects.

What a loss does there is its gradient. Under Adam its length is no matter, so each gradient becomes a unit vector: a
positive factor and an additive constant change nothing.

A gradient of many components is shortened by a count sketch (Charikar et al., ICALP 2002): each component, with a
random sign, joins a random one of fewer sums. Distances stay the same to about 1 % where 4,096 components picked at
random are off by 10 %: most of a late gradient lies on the few voxels of a boundary. The sketch is scaled to length 1,
not the gradient: what a sketch does to the length would be taken for a difference between losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from lossevo.data.cohort import AnyVolume, Volume
from lossevo.data.patches import Cutting
from lossevo.errors import LossevoError
from lossevo.expression import Expression
from lossevo.losses.symbolic import ExpressionLoss
from lossevo.search.probe_states import STATES, logits_of
from lossevo.search.screening import Sample, logit_gradient
from lossevo.training.threads import one_thread

CROPS = 2
CROP_SHAPE = (32, 32, 16)
"""Voxels of a crop; the shortest side lies along the shortest axis of the volumes."""
COMPONENTS = 4096
_TRIES = 8
"""So many crops of a volume are looked at for the one with the most classes."""
_GRID = 2.0**-11
"""Components of unit vectors are multiples of this. Their products are exact in float32, and so is any sum of them that
a dot product meets on its way: distances depend neither on the order of a sum nor on who adds it up.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Probes:
    """The probe states of a cohort, and the sketch of gradients: which sum each component joins, and its sign."""

    samples: tuple[Sample, ...]
    place: NDArray[np.int64]
    sign: NDArray[np.float32]

    @property
    def components(self) -> int:
        """Of a sketch."""
        return int(self.place.max()) + 1

    @classmethod
    def of(cls, volumes: Sequence[AnyVolume], classes: int, *, seed: int, components: int = COMPONENTS) -> Self:
        """Cut the crops from ``volumes``, those of the training subjects, whatever their order.

        Raises:
            LossevoError: there is no foreground in them.
        """
        rng = np.random.default_rng([seed, 0])
        labels, distances = _crops(volumes, classes, rng)
        spacing_mm = np.array(volumes[0].spacing_mm)
        one_hot = (labels[:, None] == np.arange(classes)[:, None, None, None]).astype(np.float64)
        given = torch.from_numpy(labels.astype(np.int64))[:, None]
        distance_map = torch.from_numpy(distances.astype(np.float32))
        samples = tuple(
            Sample(torch.from_numpy(logits_of(state, one_hot, spacing_mm, rng)), given, distance_map)
            for state in STATES
        )
        size = one_hot.size
        # As many join each sum; where there are no more components than sums, each has its own.
        place = rng.permutation(np.arange(size) % min(components, size))
        return cls(samples, place, rng.choice(np.array([-1, 1], np.float32), size))

    def features(self, expression: Expression) -> NDArray[np.float32] | None:
        """Unit gradients (states, components), zeros where there is none; None if one, or a value, is not finite."""
        loss = ExpressionLoss(expression)
        components = self.components
        found = np.empty((len(STATES), components), np.float32)
        with one_thread():  # it decides the order of sums over voxels
            for row, state, sample in zip(found, STATES, self.samples, strict=True):
                gradient = logit_gradient(loss, sample, progress=state.progress)
                if gradient is None:
                    return None
                signed = self.sign * gradient.flatten().numpy()
                sums = np.bincount(self.place, weights=signed, minlength=components)
                row[:] = unit(sums.astype(np.float64))
        return found


def unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """The vector scaled to length 1, on the grid of components; a zero vector stays one."""
    largest = float(np.abs(vector).max())
    if not largest:
        return np.zeros(len(vector))
    scaled = vector / largest  # else its square may underflow
    # By no BLAS: its order of sums depends on the number of threads.
    length = float(np.sqrt(np.square(scaled).sum()))
    on_grid: NDArray[np.float64] = np.round(scaled / length / _GRID) * _GRID
    return on_grid


def _crops(
    volumes: Sequence[AnyVolume], classes: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Labels (crops, *shape) and distance maps (crops, classes, *shape) of crops that hold as many classes as possible.

    Of two volumes where two have foreground, else of one.
    """
    ordered = sorted(volumes, key=lambda volume: volume.case_id)
    chosen: list[Volume] = []
    for index in rng.permutation(len(ordered)):
        volume = ordered[index].read()
        if volume.label.any():
            chosen.append(volume)
        if len(chosen) == CROPS:
            break
    if not chosen:
        raise LossevoError("no volume to make probe states from has a labelled voxel; give labelled training subjects")
    shape = _crop_shape([volume.label.shape for volume in chosen])
    labels, distances = [], []
    for number in range(CROPS):
        cutting = Cutting(shape, _TRIES, int(rng.integers(2**31)), foreground_share=1.0)
        patches = [patch[1:] for patch in cutting.patches(chosen[number % len(chosen)], classes)]
        label, distance = max(patches, key=lambda patch: len(np.unique(patch[0])))
        labels.append(label)
        distances.append(distance)
    return np.stack(labels), np.stack(distances)


def _crop_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, int, int]:
    """As large as :data:`CROP_SHAPE`, or as the smallest of the volumes."""
    least = np.min(shapes, axis=0)
    side = np.empty(3, int)
    side[np.argsort(-least, kind="stable")] = CROP_SHAPE
    x, y, z = (int(size) for size in np.minimum(side, least))
    return x, y, z
