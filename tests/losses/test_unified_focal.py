"""Unified focal loss: a loop from the public code's formula, MONAI where it computes the same, and finite gradients."""

from __future__ import annotations

import math

import monai.losses
import pytest
import torch

from lossevo.losses import create
from lossevo.losses.base import one_hot
from tests.losses.voxel_loops import FLOOR, GEOMETRIES, SMOOTH, assert_equals_the_loop, classes, mean, voxels


def unified_focal(
    p, g, phi, asymmetric=True, w_tversky=0.5, delta=0.6, gamma=0.5, batch=False, background=True, skip=False
):
    images = [range(len(p))] if batch else [[b] for b in range(len(p))]
    costs = []
    for group in images:
        for c in classes(p, background):
            region = [xy for b in group for xy in zip(p[b][c], g[b][c], strict=True)]
            tp = sum(x * y for x, y in region)
            fn = sum((1 - x) * y for x, y in region)
            fp = sum(x * (1 - y) for x, y in region)
            error = 1 - tp / (tp + delta * fn + (1 - delta) * fp + SMOOTH)
            if gamma > 0 and not (asymmetric and c == 0):
                error = error.clamp(min=FLOOR) ** (1 - gamma)
            if not skip or any(y for _, y in region):
                costs.append(error)
    focal = []
    for b, i in voxels(p):
        (true,) = (c for c in classes(p) if g[b][c][i])
        x = p[b][true][i]
        damped = true == 0 or not asymmetric
        easy = (1 - x).clamp(min=FLOOR) ** gamma if damped else 1
        focal.append(-(delta if true else 1 - delta) * easy * x.log())
    return w_tversky * (mean(costs) if costs else 0) + (1 - w_tversky) * mean(focal)


VARIANTS = [
    ({}, {}),
    ({"asymmetric": False}, {"asymmetric": False}),
    ({"gamma": 0.0}, {"gamma": 0.0}),
    ({"w_tversky": 0.9, "delta": 0.3, "gamma": 0.25}, {"w_tversky": 0.9, "delta": 0.3, "gamma": 0.25}),
    (
        {"asymmetric": False, "w_tversky": 0.2, "batch": True, "include_background": False},
        {"asymmetric": False, "w_tversky": 0.2, "batch": True, "background": False},
    ),
    ({"include_background": False, "absent": "skip"}, {"background": False, "skip": True}),
]


@pytest.mark.parametrize("saturated", [False, True], ids=["", "saturated"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: f"B{g[0]}C{g[1]}-{len(g[2])}D")
@pytest.mark.parametrize(("parameters", "options"), VARIANTS, ids=lambda x: "-".join(x))
def test_value_and_gradient_equal_the_loop(parameters, options, geometry, saturated):
    assert_equals_the_loop(
        "unified_focal", parameters, lambda p, g, d: unified_focal(p, g, d, **options), geometry, saturated
    )


@pytest.mark.parametrize("spatial", [(5, 6), (3, 4, 5)], ids=["2D", "3D"])
def test_monai(spatial):
    # Theirs takes probabilities of two classes (no softmax), has delta 0.7 by default, averages the focal term over
    # the two channels where the public code sums (half of ours), weighs it by `weight` where the code weighs the
    # Tversky term, and holds no base of a power away from 0: with p near 1 its gradient is large, ours is bounded.
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, *spatial, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 2, (2, 1, *spatial), generator=generator)
    focal_share = 0.4
    theirs = monai.losses.AsymmetricUnifiedFocalLoss(to_onehot_y=True, weight=focal_share / 0.7, gamma=0.5, delta=0.6)
    # 0.4/0.7 of half the focal term and 0.3/0.7 of the Tversky term: the same as 0.4 and 0.6, up to a factor.
    ours = create("unified_focal", w_tversky=0.6, delta=0.6, gamma=0.5)
    values = [ours(logits, target), 1.4 * theirs(logits.softmax(1), target)]
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(*(torch.autograd.grad(v, logits)[0] for v in values), rtol=1e-4, atol=1e-7)


def test_monai_takes_two_classes_only():
    logits = torch.zeros(1, 3, 4, 4)
    target = torch.full((1, 1, 4, 4), 2)
    with pytest.raises(ValueError, match="Invalid class index"):
        monai.losses.AsymmetricUnifiedFocalLoss(to_onehot_y=False)(logits.softmax(1), one_hot(target, 3).float() * 2)
    assert create("unified_focal")(logits, target).isfinite()


def test_indifferent_prediction():
    # p = 1/2 on ten voxels, 4 of them foreground: TP = 2, FN = 2, FP = 3; of the background TP = 3, FN = 3, FP = 2.
    target = torch.zeros(1, 1, 2, 5, dtype=torch.long)
    target.view(-1)[:4] = 1
    logits = torch.zeros(1, 2, 2, 5, dtype=torch.float64)
    foreground = 1 - 2 / (2 + 0.6 * 2 + 0.4 * 3)
    background = 1 - 3 / (3 + 0.6 * 3 + 0.4 * 2)
    tversky = (background + math.sqrt(foreground)) / 2
    focal = math.log(2) * (0.6 * 0.4 * math.sqrt(0.5) + 0.4 * 0.6)
    assert create("unified_focal")(logits, target).item() == pytest.approx((tversky + focal) / 2, rel=1e-5)
    tversky = (math.sqrt(background) + math.sqrt(foreground)) / 2
    focal = math.log(2) * (0.6 * 0.4 + 0.4 * 0.6) * math.sqrt(0.5)
    symmetric = create("unified_focal", asymmetric=False)
    assert symmetric(logits, target).item() == pytest.approx((tversky + focal) / 2, rel=1e-5)


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("gamma", [0.5, 0.99, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_stays_finite_and_small_as_the_prediction_becomes_right(asymmetric, gamma, dtype):
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (1, 1, 6, 6, 6), generator=generator)
    loss = create("unified_focal", asymmetric=asymmetric, gamma=gamma)
    for certainty in (2, 5, 8, 12, 17, 40, 100):
        logits = (certainty * one_hot(target, 3).to(dtype)).requires_grad_()
        gradient = torch.autograd.grad(loss(logits, target), logits)[0]
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 0.1
