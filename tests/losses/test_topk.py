"""Top-k and Dice + top-k: against slow loops, ties, and how many voxels the fraction is."""

from __future__ import annotations

import math

import pytest
import torch

from lossevo.losses import create
from tests.losses.test_oracles import dice
from tests.losses.voxel_loops import GEOMETRIES, assert_equals_the_loop, classes, mean


def topk(p, g, phi, fraction=0.1, batch=False):
    def loss(b, i):
        return -sum(p[b][c][i].log() for c in classes(p) if g[b][c][i])

    images = [[loss(b, i) for i in range(len(p[b][0]))] for b in range(len(p))]
    if batch:
        images = [[loss for image in images for loss in image]]
    return mean(hardest(image, fraction) for image in images)


def hardest(losses, fraction):
    """Mean of the largest; the last of them by equal shares from all that tie for their places."""
    count = math.ceil(round(fraction * len(losses), 9))
    last = sorted(losses)[-count]
    above = [x for x in losses if x > last]
    tied = [x for x in losses if x == last]
    return (sum(above) + (count - len(above)) * sum(tied) / len(tied)) / count


VARIANTS = [
    ("topk", {}, topk),
    ("topk", {"fraction": 0.4, "batch": True}, lambda p, g, d: topk(p, g, d, 0.4, True)),
    ("dice_topk", {}, lambda p, g, d: dice(p, g, d) + topk(p, g, d)),
    (
        "dice_topk",
        {"w_dice": 0.5, "w_topk": 2, "fraction": 0.25, "batch": True, "squared_denominator": True},
        lambda p, g, d: 0.5 * dice(p, g, d, squared=True, batch=True) + 2 * topk(p, g, d, 0.25, True),
    ),
]


# Saturated logits tie only where sums round alike: that is for the tests below.
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: f"B{g[0]}C{g[1]}-{len(g[2])}D")
@pytest.mark.parametrize(("name", "parameters", "oracle"), VARIANTS, ids=[f"{v[0]}-{len(v[1])}" for v in VARIANTS])
def test_value_and_gradient_equal_the_loop(name, parameters, oracle, geometry):
    assert_equals_the_loop(name, parameters, oracle, geometry, saturated=False)


def example():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    return logits, torch.randint(0, 3, (2, 1, 4, 5), generator=generator)


@pytest.mark.parametrize("batch", [False, True])
def test_the_whole_is_cross_entropy(batch):
    logits, target = example()
    values = [loss(logits, target) for loss in (create("topk", fraction=1, batch=batch), create("cross_entropy"))]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in values))


def test_the_batch_has_its_hardest_voxels_in_one_image():
    logits, target = example()
    easy = logits.detach().clone()
    easy[0] = 30 * torch.nn.functional.one_hot(target[0, 0], 3).movedim(-1, 0)
    easy.requires_grad_()
    for batch in (False, True):
        (gradient,) = torch.autograd.grad(create("topk", batch=batch)(easy, target), easy)
        easy_voxels, hard_voxels = (int(image.any(dim=0).sum()) for image in gradient)
        assert (easy_voxels > 0) is not batch
        assert hard_voxels == (4 if batch else 2)


@pytest.mark.parametrize(
    ("fraction", "voxels", "count"), [(0.1, 10, 1), (0.1, 30, 3), (0.1, 31, 4), (1e-4, 12, 1), (0.7, 10, 7), (1, 9, 9)]
)
def test_the_fraction_is_rounded_up_and_exact(fraction, voxels, count):
    logits = torch.zeros(1, 2, 1, voxels, dtype=torch.float64)
    logits[0, 1, 0] = torch.arange(voxels)
    logits.requires_grad_()
    target = torch.zeros(1, 1, 1, voxels, dtype=torch.uint8)
    (gradient,) = torch.autograd.grad(create("topk", fraction=fraction)(logits, target), logits)
    hard = gradient[0, 1, 0] > 0
    assert hard.sum() == count
    assert hard[-count:].all()


def test_ties_share_the_last_places():
    """Indifferent logits: every voxel is as hard as every other, and the gradient is cross-entropy's."""
    _, target = example()
    logits = torch.zeros(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    gradients = [torch.autograd.grad(create(name)(logits, target), logits)[0] for name in ("topk", "cross_entropy")]
    torch.testing.assert_close(*gradients)
