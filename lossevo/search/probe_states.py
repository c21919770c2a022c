"""Probe states: a network's output at five moments of a training, from untrained to nearly done.

The logits are made from labels: the label smoothed by a Gaussian, times a gain, plus a bias of the foreground, plus
smooth noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

_NOISE_VOXELS = 1.5


@dataclass(frozen=True, slots=True)
class ProbeState:
    """How logits are made from a label, and when in a training, from 0 to 1, they look so.

    Attributes:
        smoothing_voxels: of the label, standard deviation of a Gaussian.
        gain: of the smoothed label.
        bias: of the foreground's logits.
        noise: standard deviation of the smooth noise.
        progress: what a loss is told that changes with the progress of a training.
    """

    smoothing_voxels: float
    gain: float
    bias: float
    noise: float
    progress: float


STATES = (
    ProbeState(3.0, 0.5, 0.0, 0.5, progress=0.0),
    ProbeState(3.0, 0.5, -2.0, 0.5, progress=0.1),
    ProbeState(2.0, 4.0, -0.5, 1.5, progress=0.4),
    ProbeState(1.2, 8.0, 0.0, 2.0, progress=0.7),
    ProbeState(0.7, 14.0, 0.0, 3.0, progress=1.0),
)
"""From an untrained network, over one that sees background everywhere, to a nearly finished one."""


def logits_of(
    state: ProbeState, one_hot: NDArray[np.float64], spacing_mm: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float32]:
    """(B, C, *shape); what is smoothed is smoothed alike in all directions, in millimetres."""
    relative = spacing_mm / np.prod(spacing_mm) ** (1 / 3)
    smoothed = gaussian_filter(one_hot, [0, 0, *state.smoothing_voxels / relative], mode="nearest")
    noise = gaussian_filter(rng.standard_normal(one_hot.shape), [0, 0, *_NOISE_VOXELS / relative], mode="wrap")
    logits = state.gain * smoothed + state.noise * noise / noise.std()
    logits[:, 1:] += state.bias
    made: NDArray[np.float32] = logits.astype(np.float32)
    return made
