"""The exponential logarithmic loss: against a slow loop, closed forms, and its gradient near the optimum."""

from __future__ import annotations

import math

import pytest
import torch

from lossevo.losses import create
from lossevo.losses.base import one_hot
from tests.losses.voxel_loops import FLOOR, GEOMETRIES, assert_equals_the_loop, classes, mean, regions, voxels


def exp_log(p, g, phi, gamma=0.3, w_dice=0.8, w_ce=0.2, frequencies=None, smooth=1.0, skip=False, **which):
    def power(log):
        return (-log).clamp(min=FLOOR) ** gamma

    terms = []
    for region in regions(p, g, **which):
        size = sum(y for _, y in region)
        if size or not skip:
            overlap, total = sum(x * y for x, y in region), sum(x for x, _ in region) + size
            terms.append(power(((2 * overlap + smooth) / (total + smooth)).log()))
    f = frequencies or [sum(sum(image[c]) for image in g) for c in classes(p)]
    cross_entropy = mean(
        sum(g[b][c][i] * math.sqrt(sum(f) / f[c]) * power(p[b][c][i].log()) for c in classes(p) if g[b][c][i])
        for b, i in voxels(p)
    )
    return w_dice * (mean(terms) if terms else 0) + w_ce * cross_entropy


VARIANTS = [
    ("exp_log", {}, exp_log),
    ("exp_log", {"absent": "skip"}, lambda p, g, d: exp_log(p, g, d, skip=True)),
    (
        "exp_log",
        {"w_dice": 0.5, "w_ce": 0.7, "gamma": 1.5, "smooth": 0.1, "batch": True, "include_background": True},
        lambda p, g, d: exp_log(p, g, d, 1.5, 0.5, 0.7, smooth=0.1, batch=True, background=True),
    ),
]


@pytest.mark.parametrize("saturated", [False, True], ids=["", "saturated"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: f"B{g[0]}C{g[1]}-{len(g[2])}D")
@pytest.mark.parametrize(("name", "parameters", "oracle"), VARIANTS, ids=["paper", "skip", "other"])
def test_value_and_gradient_equal_the_loop(name, parameters, oracle, geometry, saturated):
    assert_equals_the_loop(name, parameters, oracle, geometry, saturated)


def test_frequencies_of_the_training_set():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 4, 3, 3, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 4, (1, 1, 3, 3), generator=generator)
    shares = [0.7, 0.2, 0.06, 0.04]
    found = create("exp_log", frequencies=shares, w_dice=0)(logits, target)
    log_p = logits.log_softmax(1).gather(1, target).flatten()
    weight = torch.tensor(shares, dtype=torch.float64).rsqrt()[target.flatten()]
    torch.testing.assert_close(found, 0.2 * (weight * (-log_p) ** 0.3).mean())
    # Only their ratios matter.
    doubled = create("exp_log", frequencies=[2 * share for share in shares], w_dice=0)(logits, target)
    torch.testing.assert_close(found, doubled)


def test_indifferent_prediction():
    # p = 1/2 everywhere, 4 of 10 voxels foreground: TP = 2, Σp = 5, Σg = 4.
    target = torch.tensor([[[[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]]]])
    logits = torch.zeros(1, 2, 2, 5, dtype=torch.float64)
    dice = math.log(10 / 5) ** 0.3
    cross_entropy = (0.4 * math.sqrt(10 / 4) + 0.6 * math.sqrt(10 / 6)) * math.log(2) ** 0.3
    assert create("exp_log")(logits, target).item() == pytest.approx(0.8 * dice + 0.2 * cross_entropy)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_is_finite_up_to_the_optimum(dtype):
    target = torch.randint(0, 3, (1, 1, 8, 8, 8), generator=torch.Generator().manual_seed(0))
    for scale in (1, 4, 8, 12, 20, 50, 100):
        logits = (scale * one_hot(target, 3).to(dtype)).requires_grad_()
        value = create("exp_log")(logits, target)
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.isfinite()
        assert gradient.isfinite().all()


def test_false_positives_of_an_absent_class_cost_unless_it_is_skipped():
    logits = torch.zeros(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    target = torch.zeros(1, 1, 4, 4, dtype=torch.long)
    target[..., :2] = 1
    losses = (create("exp_log", absent=absent, w_ce=0)(logits, target) for absent in ("count", "skip"))
    counted, skipped = (torch.autograd.grad(loss, logits)[0] for loss in losses)
    # Counted, the loss is the mean of class 1 and class 2; skipped, it is class 1 alone.
    assert ((2 * counted - skipped)[:, 2] > 0).all()
