"""Every loss, in value and gradient, against a slow loop over voxels written from the paper's formula."""

from __future__ import annotations

import math

import pytest

from tests.losses.voxel_loops import (
    FLOOR,
    GEOMETRIES,
    SMOOTH,
    assert_equals_the_loop,
    classes,
    mean,
    regions,
    voxels,
    weights,
)


def cross_entropy(p, g, phi, weight=None, smoothing=0.0):
    count = len(p[0])
    weight = weight or [1.0] * count
    total, norm = 0.0, 0.0
    for b, i in voxels(p):
        for c in classes(p):
            smoothed = (1 - smoothing) * g[b][c][i] + smoothing / count
            if smoothed:
                total = total - weight[c] * smoothed * p[b][c][i].log()
            norm = norm + weight[c] * g[b][c][i]
    return total / norm if norm else 0 * p[0][0][0]


def focal(p, g, phi, gamma=2.0, alpha=None, floor=0.0):
    alpha = alpha or [1.0] * len(p[0])
    return mean(
        sum(-alpha[c] * (1 - p[b][c][i]).clamp(min=floor) ** gamma * p[b][c][i].log() for c in classes(p) if g[b][c][i])
        for b, i in voxels(p)
    )


def dice(p, g, phi, squared=False, **which):
    power = 2 if squared else 1
    return mean(
        1 - 2 * sum(x * y for x, y in region) / (sum(x**power + y**power for x, y in region) + SMOOTH)
        for region in regions(p, g, **which)
    )


def tversky_indices(p, g, w_fp, w_fn, **which):
    for region in regions(p, g, **which):
        tp = sum(x * y for x, y in region)
        fp = sum(x * (1 - y) for x, y in region)
        fn = sum((1 - x) * y for x, y in region)
        yield tp / (tp + w_fp * fp + w_fn * fn + SMOOTH)


def tversky(p, g, phi, w_fp=0.3, w_fn=0.7, **which):
    return mean(1 - index for index in tversky_indices(p, g, w_fp, w_fn, **which))


def focal_tversky(p, g, phi, gamma=4 / 3, w_fp=0.3, w_fn=0.7, **which):
    return mean((1 - index).clamp(min=FLOOR) ** (1 / gamma) for index in tversky_indices(p, g, w_fp, w_fn, **which))


def generalized_dice(p, g, phi, batch=False, background=True):
    def ratio(images):
        counted = list(classes(p, background))
        volume = {c: sum(sum(g[b][c]) for b in images) for c in counted}
        smallest = min((v for v in volume.values() if v), default=None)
        overlap, total = 0.0, 0.0
        for c in counted:
            weight = (smallest / volume[c]) ** 2 if volume[c] else 1.0
            for b in images:
                for x, y in zip(p[b][c], g[b][c], strict=True):
                    overlap, total = overlap + weight * x * y, total + weight * (x + y)
        return 1 - 2 * overlap / (total + SMOOTH)

    images = range(len(p))
    return ratio(images) if batch else mean(ratio([b]) for b in images)


def boundary(p, g, phi, background=False):
    return mean(phi[b][c][i] * p[b][c][i] for b, i in voxels(p) for c in classes(p, background))


def baikal(p, g, phi, coefficients=(1, 1, 1, 1, 1, 1)):
    c0, c1, c2, c3, c4, c5 = coefficients
    return mean(
        c0 * (c3 * (c4 * g[b][c][i]) / (c5 * p[b][c][i].clamp(min=FLOOR)) - c1 * (math.log(c2) + p[b][c][i].log()))
        for b, i in voxels(p)
        for c in classes(p)
    )


CMA = (2.7279, 0.9863, 1.5352, 1.1135, 1.3716, 0.8411)

# name, parameters, oracle; `weights` stands for one weight per class.
VARIANTS = [
    ("cross_entropy", {}, cross_entropy),
    ("cross_entropy", {"label_smoothing": 0.1}, lambda p, g, d: cross_entropy(p, g, d, smoothing=0.1)),
    (
        "cross_entropy",
        {"weight": "weights", "label_smoothing": 0.2},
        lambda p, g, d: cross_entropy(p, g, d, weights(len(p[0])), 0.2),
    ),
    ("focal", {}, focal),
    ("focal", {"gamma": 0.5}, lambda p, g, d: focal(p, g, d, gamma=0.5, floor=FLOOR)),
    (
        "focal",
        {"gamma": 1.5, "alpha": 0.3},
        lambda p, g, d: focal(p, g, d, gamma=1.5, alpha=[0.7] + [0.3] * (len(p[0]) - 1)),
    ),
    ("focal", {"alpha": "weights"}, lambda p, g, d: focal(p, g, d, alpha=weights(len(p[0])))),
    ("dice", {}, dice),
    (
        "dice",
        {"squared_denominator": True, "batch": True, "include_background": True},
        lambda p, g, d: dice(p, g, d, squared=True, batch=True, background=True),
    ),
    ("generalized_dice", {}, generalized_dice),
    (
        "generalized_dice",
        {"batch": True, "include_background": False},
        lambda p, g, d: generalized_dice(p, g, d, batch=True, background=False),
    ),
    ("tversky", {}, tversky),
    ("tversky", {"w_fp": 1.0, "w_fn": 0.5, "batch": True}, lambda p, g, d: tversky(p, g, d, 1.0, 0.5, batch=True)),
    ("boundary", {"spacing_mm": "spacing"}, boundary),
    (
        "boundary",
        {"spacing_mm": "spacing", "include_background": True},
        lambda p, g, d: boundary(p, g, d, background=True),
    ),
    (
        "dice_ce",
        {"w_dice": 0.3, "w_ce": 2.0, "batch": True},
        lambda p, g, d: 0.3 * dice(p, g, d, batch=True) + 2 * cross_entropy(p, g, d),
    ),
    ("dice_ce", {}, lambda p, g, d: dice(p, g, d) + cross_entropy(p, g, d)),
    ("dice_focal", {}, lambda p, g, d: dice(p, g, d, squared=True) + focal(p, g, d)),
    ("focal_tversky", {}, focal_tversky),
    (
        "focal_tversky",
        {"gamma": 2, "w_fp": 0.5, "w_fn": 0.5, "batch": True},
        lambda p, g, d: focal_tversky(p, g, d, 2, 0.5, 0.5, batch=True),
    ),
    ("baikal", {}, baikal),
    ("baikal_cma", {}, lambda p, g, d: baikal(p, g, d, CMA)),
]
IDS = ["-".join([name, *parameters]) for name, parameters, _ in VARIANTS]


@pytest.mark.parametrize("saturated", [False, True], ids=["", "saturated"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: f"B{g[0]}C{g[1]}-{len(g[2])}D")
@pytest.mark.parametrize(("name", "parameters", "oracle"), VARIANTS, ids=IDS)
def test_value_and_gradient_equal_the_loop(name, parameters, oracle, geometry, saturated):
    assert_equals_the_loop(name, parameters, oracle, geometry, saturated)
