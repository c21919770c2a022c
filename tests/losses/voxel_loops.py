"""What the oracle tests share: slow loops over voxels on float64 scalars, inputs of every kind, and the comparison.

A loop knows nothing of the package: it works on lists ``p[b][c][i]``, ``g[b][c][i]`` and ``phi[b][c][i]`` with image
b, class c and voxel i (signed distance φ in mm), and p is built from the logits by its definition (a sigmoid where
there is one logit).
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from lossevo.losses import create

SMOOTH = 1e-5
FLOOR = 1e-4
SPACING_MM = {2: (1.5, 0.5), 3: (4.0, 1.0, 2.0)}


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def voxels(p):
    return [(b, i) for b in range(len(p)) for i in range(len(p[0][0]))]


def classes(p, background=True):
    return range(0 if background else 1, len(p[0]))


def regions(p, g, batch=False, background=False):
    """Lists of (p, g) over the voxels of each region."""
    for c in classes(p, background):
        per_image = [list(zip(p[b][c], g[b][c], strict=True)) for b in range(len(p))]
        yield from [[voxel for image in per_image for voxel in image]] if batch else per_image


GEOMETRIES = [(1, 1, (3, 4)), (2, 1, (2, 2, 3)), (1, 2, (2, 2, 3)), (2, 2, (4, 3)), (1, 4, (3, 4)), (2, 4, (2, 3, 2))]
KINDS = ["random", "empty", "full", "absent", "one_voxel"]


def weights(count):
    return [0.5, 2.0, 0.0, 1.25][:count]


def labels(kind, batch, count, spatial, rng):
    """Integer labels (B, 1, *spatial) with the trait that ``kind`` names."""
    shape = (batch, 1, *spatial)
    target = np.zeros(shape, np.int64)
    if kind == "random":
        target = rng.integers(0, count, shape)
    elif kind == "full":
        target[:] = count - 1
    elif kind == "absent":
        target = rng.integers(0, max(1, count - 1), shape)
    elif kind == "one_voxel":
        target.reshape(batch, -1)[:, 1] = count - 1
    return torch.from_numpy(target)


def signed_distance(one_hot, spacing):
    distance = np.zeros(one_hot.shape)
    for index in np.ndindex(one_hot.shape[:2]):
        mask = one_hot[index] > 0
        if mask.any() and not mask.all():
            distance[index] = distance_transform_edt(~mask, spacing) - distance_transform_edt(mask, spacing)
    return distance


def oracle_value(oracle, logits, target, count):
    """The oracle on logits (B, C or 1, *spatial) and labels."""
    batch, channels = logits.shape[:2]
    x = [[list(channel.flatten()) for channel in image] for image in logits]
    if channels == 1:
        p = [[[1 / (1 + v.exp()) for v in image[0]], [1 / (1 + (-v).exp()) for v in image[0]]] for image in x]
    else:
        exps = [[[v.exp() for v in channel] for channel in image] for image in x]
        p = [
            [[e / sum(other[i] for other in image) for i, e in enumerate(channel)] for channel in image]
            for image in exps
        ]
    one_hot = np.stack([target[:, 0].numpy() == c for c in range(count)], axis=1).astype(float)
    phi = signed_distance(one_hot, SPACING_MM[logits.ndim - 2])
    flat = (batch, count, -1)
    return oracle(p, one_hot.reshape(flat).tolist(), phi.reshape(flat).tolist())


def assert_equals_the_loop(name, parameters, oracle, geometry, saturated):
    """``create(name, **parameters)`` equals ``oracle(p, g, phi)`` in value and gradient on every kind of target.

    The parameter values "weights" and "spacing" stand for one weight per class and for the spacing of the geometry.
    """
    batch, channels, spatial = geometry
    count = max(2, channels)
    stand_ins = {"weights": weights(count), "spacing": SPACING_MM[len(spatial)]}
    parameters = {k: stand_ins.get(v, v) if isinstance(v, str) else v for k, v in parameters.items()}
    loss = create(name, **parameters)
    rng = np.random.default_rng(7)
    for kind in KINDS:
        target = labels(kind, batch, count, spatial, rng)
        shape = (batch, channels, *spatial)
        values = rng.choice([-50.0, 50.0], shape) if saturated else rng.normal(0, 2, shape)
        logits = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        expected = oracle_value(oracle, logits, target, count)
        (expected_gradient,) = torch.autograd.grad(expected, logits)
        value = loss(logits, target)
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.shape == ()
        assert value.dtype == torch.float64
        torch.testing.assert_close(
            value, expected, rtol=1e-10, atol=1e-12, msg=lambda text, kind=kind: f"{kind}: {text}"
        )
        torch.testing.assert_close(
            gradient, expected_gradient, rtol=1e-9, atol=1e-12, msg=lambda text, kind=kind: f"{kind}: {text}"
        )
