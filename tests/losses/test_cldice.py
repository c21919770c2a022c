"""clDice: a loop over voxels and their neighbours, MONAI on its own terms, and skeletons that can be drawn."""

from __future__ import annotations

from itertools import product

import monai.losses
import pytest
import torch

from lossevo.errors import LossevoError
from lossevo.losses import create
from lossevo.losses.base import one_hot
from lossevo.losses.cldice import soft_skeleton
from tests.losses.voxel_loops import GEOMETRIES, SMOOTH, assert_equals_the_loop, classes, mean


def skeleton(image, iterations):
    """Algorithm 1 of the paper on an image {position: value}."""

    def near(position, move):
        other = tuple(x + step for x, step in zip(position, move, strict=True))
        return [other] if other in image else []

    moves = list(product([-1, 0, 1], repeat=len(next(iter(image)))))
    cross = [move for move in moves if sum(map(abs, move)) <= 1]

    def erode(x):
        # amin shares the gradient among equal values.
        return {i: torch.stack([x[j] for move in cross for j in near(i, move)]).amin() for i in image}

    def dilate(x):
        return {i: max(x[j] for move in moves for j in near(i, move)) for i in image}

    def removed_by_opening(x):
        opened = dilate(erode(x))
        return {i: (x[i] - opened[i]).relu() for i in image}

    total = removed_by_opening(image)
    for _ in range(iterations):
        image = erode(image)
        removed = removed_by_opening(image)
        total = {i: total[i] + (removed[i] - total[i] * removed[i]).relu() for i in image}
    return total


def cldice(p, g, spatial, alpha=0.5, iterations=10, batch=False, background=False, skip=False):
    positions = list(product(*(range(size) for size in spatial)))

    def thinned(values):
        image = {i: torch.as_tensor(v, dtype=torch.float64) for i, v in zip(positions, values, strict=True)}
        return list(skeleton(image, iterations).values())

    images = [range(len(p))] if batch else [[b] for b in range(len(p))]
    costs = []
    for c in classes(p, background):
        for group in images:
            x, y = ([v for b in group for v in values[b][c]] for values in (p, g))
            thin_x, thin_y = ([v for b in group for v in thinned(values[b][c])] for values in (p, g))
            precision = sum(s * v for s, v in zip(thin_x, y, strict=True)) / (sum(thin_x) + SMOOTH)
            sensitivity = sum(s * v for s, v in zip(thin_y, x, strict=True)) / (sum(thin_y) + SMOOTH)
            centreline = 1 - 2 * precision * sensitivity / (precision + sensitivity + SMOOTH)
            overlap = sum(a * b for a, b in zip(x, y, strict=True))
            if skip and not any(y):
                continue
            costs.append((1 - alpha) * (1 - 2 * overlap / (sum(x) + sum(y) + SMOOTH)) + alpha * centreline)
    return mean(costs) if costs else 0 * p[0][0][0]


VARIANTS = [
    ({"iterations": 2}, {"iterations": 2}),
    ({"alpha": 1.0, "iterations": 0, "absent": "skip"}, {"alpha": 1.0, "iterations": 0, "skip": True}),
    (
        {"alpha": 0.3, "iterations": 1, "batch": True, "include_background": True},
        {"alpha": 0.3, "iterations": 1, "batch": True, "background": True},
    ),
]


@pytest.mark.parametrize("saturated", [False, True], ids=["", "saturated"])
@pytest.mark.parametrize(
    "geometry", [*GEOMETRIES, (1, 1, (5, 4, 3))], ids=lambda g: f"B{g[0]}C{g[1]}-{'x'.join(map(str, g[2]))}"
)
@pytest.mark.parametrize(("parameters", "options"), VARIANTS, ids=lambda x: "-".join(x))
def test_value_and_gradient_equal_the_loop(parameters, options, geometry, saturated):
    assert_equals_the_loop(
        "cldice", parameters, lambda p, g, d: cldice(p, g, geometry[2], **options), geometry, saturated
    )


@pytest.mark.parametrize("spatial", [(9, 8), (7, 6, 5)], ids=["2D", "3D"])
@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_monai(spatial, alpha):
    # Theirs has one ratio over all classes, 3 iterations, the background by default, and 1 in numerators and
    # denominators; with one class, no smoothing in numerators and little in denominators both are the same.
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, *spatial, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 2, (2, 1, *spatial), generator=generator)
    theirs = monai.losses.SoftDiceclDiceLoss(
        iter_=3, alpha=alpha, smooth_nr=0, smooth_dr=SMOOTH, smooth=SMOOTH, softmax=True, include_background=False
    )
    ours = create("cldice", iterations=3, alpha=alpha)
    values = [ours(logits, target), theirs(logits, one_hot(target, 2).double())]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in values))


def test_with_monais_smoothing_an_absent_class_costs_less_the_less_is_predicted():
    logits = torch.full((1, 2, 8, 8), -9.0)
    logits[0, 1, 4, 4] = 20.0
    target = torch.zeros(1, 1, 8, 8)
    theirs = monai.losses.SoftclDiceLoss(softmax=True, include_background=False)
    assert 0.2 < theirs(logits, one_hot(target, 2).float()).item() < 0.8
    assert create("cldice", alpha=1.0)(logits, target).item() == 1


def picture(text):
    return torch.tensor([[float(mark == "#") for mark in row] for row in text.split()])[None, None]


def test_the_skeleton_of_a_bar_is_its_middle_line():
    bar = picture("........ .######. .######. .######. ........")
    assert torch.equal(soft_skeleton(bar, 3), picture("........ ........ ..####.. ........ ........"))


def test_a_line_is_its_own_skeleton_whatever_the_iterations():
    line = torch.zeros(1, 1, 7, 7, 7)
    line[0, 0, 3, 3, 1:6] = 1
    for iterations in (0, 1, 10):
        assert torch.equal(soft_skeleton(line, iterations), line)


def test_a_structure_thicker_than_the_iterations_has_no_skeleton():
    disc = torch.zeros(1, 1, 11, 11)
    disc[0, 0, 2:9, 2:9] = 1
    assert not soft_skeleton(disc, 2).any()
    assert soft_skeleton(disc, 3).sum() == 1


def test_a_gap_costs_more_than_the_same_voxels_at_the_surface():
    tube = torch.zeros(1, 1, 7, 7, 16, dtype=torch.long)
    tube[..., 2:5, 2:5, :] = 1
    gap, thinner = tube.clone(), tube.clone()
    gap[..., 8] = 0
    thinner[..., 2, 2, 2:11] = 0
    assert gap.sum() == thinner.sum()

    def cost(name, prediction, **parameters):
        return create(name, **parameters)(40.0 * one_hot(prediction, 2).float(), tube).item()

    assert cost("dice", gap) == pytest.approx(cost("dice", thinner))
    assert cost("cldice", gap, alpha=1.0) > cost("cldice", thinner, alpha=1.0) + 0.01


@pytest.mark.parametrize("labels", ["absent", "fills the image"])
def test_without_a_skeleton_the_centreline_part_is_one_and_has_no_gradient(labels):
    logits = torch.randn(1, 2, 6, 6, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    target = torch.full((1, 1, 6, 6, 6), int(labels != "absent"))
    value = create("cldice", alpha=1.0)(logits, target)
    assert value.item() == 1
    assert not torch.autograd.grad(value, logits)[0].any()


@pytest.mark.parametrize("iterations", [-1, 2.5, True, "3"])
def test_iterations_are_counted(iterations):
    with pytest.raises(LossevoError, match=r"iterations is .*, expected a whole number >= 0"):
        create("cldice", iterations=iterations)
