"""The Hausdorff losses: slow loops from the paper's formulas, MONAI, geometry, and what public code gets wrong."""

from __future__ import annotations

import itertools
import math
from functools import partial

import monai.losses
import numpy as np
import pytest
import torch
from scipy.ndimage import convolve

from lossevo.errors import LossevoError
from lossevo.losses import create
from lossevo.losses.base import one_hot
from tests.losses.voxel_loops import GEOMETRIES, SPACING_MM, assert_equals_the_loop, classes, mean, oracle_value

DISTANCE = ["hausdorff_dt", "hausdorff_dt_one_sided", "log_hausdorff_dt", "hausdorff_convolution"]
EVERY = [*DISTANCE, "hausdorff_erosion"]


# --- loops over voxels; `spatial` tells where voxel i of a flat list lies ---


def positions(spatial, spacing=None):
    steps = spacing or [1.0] * len(spatial)
    return [[index * step for index, step in zip(voxel, steps, strict=True)] for voxel in np.ndindex(*spatial)]


def boundary_distance(inside, where):
    """Of every voxel, the distance to the nearest voxel on the other side; 0 if there is none."""
    return [
        min((math.dist(x, y) for y, other in zip(where, inside, strict=True) if other != here), default=0.0)
        for x, here in zip(where, inside, strict=True)
    ]


def hausdorff_dt(p, g, phi, spatial, spacing=None, alpha=2.0, background=False, one_sided=False):
    where = positions(spatial, spacing)
    terms = []
    for b, c in itertools.product(range(len(p)), classes(p, background)):
        of_target = boundary_distance([y > 0.5 for y in g[b][c]], where)
        of_prediction = boundary_distance([x.item() >= 0.5 for x in p[b][c]], where)
        for x, y, d_g, d_p in zip(p[b][c], g[b][c], of_target, of_prediction, strict=True):
            terms.append((x - y) ** 2 * (d_g**alpha + (0.0 if one_sided else d_p**alpha)))
    return mean(terms)


def hausdorff_erosion(p, g, phi, spatial, iterations=10, alpha=2.0, background=False):
    voxels = list(np.ndindex(*spatial))
    neighbours = [
        [j for j, y in enumerate(voxels) if sum(abs(a - b) for a, b in zip(x, y, strict=True)) <= 1] for x in voxels
    ]
    taps = 1 + 2 * len(spatial)
    terms = []
    for b, c in itertools.product(range(len(p)), classes(p, background)):
        error = [(x - y) ** 2 for x, y in zip(p[b][c], g[b][c], strict=True)]
        total = 0 * error[0]
        for k in range(1, iterations + 1):
            error = [(2 * sum(error[j] for j in near) / taps - 1).clamp(min=0) for near in neighbours]
            total = total + k**alpha * sum(error)
        terms.append(total / len(voxels))
    return mean(terms)


def hausdorff_convolution(p, g, phi, spatial, radii=(3, 6, 9, 12, 15, 18), spacing=None, alpha=2.0, background=False):
    where = positions(spatial, spacing)
    balls = {r: [[j for j, y in enumerate(where) if math.dist(x, y) <= r + 1e-9] for x in where] for r in radii}
    terms = []
    for b, c in itertools.product(range(len(p)), classes(p, background)):
        x, y = p[b][c], g[b][c]
        for i, r in itertools.product(range(len(where)), radii):
            missed, false = (x[i] - y[i]) ** 2 * y[i], (x[i] - y[i]) ** 2 * x[i]
            share = mean(x[j] for j in balls[r][i])
            share_of_target = mean(y[j] for j in balls[r][i])
            terms.append(
                len(radii)
                * r**alpha
                * (
                    missed * (max(0, 2 * share_of_target - 1) + (2 * (1 - share) - 1).clamp(min=0))
                    + false * (max(0, 2 * (1 - share_of_target) - 1) + (2 * share - 1).clamp(min=0))
                )
            )
    return mean(terms)


# name, parameters, loop; the value "spacing" stands for the spacing of the geometry.
VARIANTS = [
    ("hausdorff_dt", {}, hausdorff_dt),
    ("hausdorff_dt", {"spacing_mm": "spacing", "alpha": 1, "include_background": True}, hausdorff_dt),
    ("hausdorff_dt_one_sided", {"spacing_mm": "spacing"}, partial(hausdorff_dt, one_sided=True)),
    ("log_hausdorff_dt", {"spacing_mm": "spacing"}, lambda *args, **kw: (1 + hausdorff_dt(*args, **kw)).log()),
    ("hausdorff_erosion", {}, hausdorff_erosion),
    ("hausdorff_erosion", {"iterations": 2, "alpha": 1.5, "include_background": True}, hausdorff_erosion),
    ("hausdorff_convolution", {}, hausdorff_convolution),
    (
        "hausdorff_convolution",
        {"radii": [1, 1.5, 3], "spacing_mm": "spacing", "alpha": 1, "include_background": True},
        hausdorff_convolution,
    ),
]
NAME_IN_THE_LOOP = {"spacing_mm": "spacing", "include_background": "background"}


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: f"B{g[0]}C{g[1]}-{len(g[2])}D")
@pytest.mark.parametrize(("name", "parameters", "loop"), VARIANTS, ids=["-".join([n, *p]) for n, p, _ in VARIANTS])
def test_value_and_gradient_equal_the_loop(name, parameters, loop, geometry):
    chosen = {NAME_IN_THE_LOOP.get(key, key): value for key, value in parameters.items()}
    if "spacing" in chosen:
        chosen["spacing"] = SPACING_MM[len(geometry[2])]
    oracle = partial(loop, spatial=geometry[2], **chosen)
    assert_equals_the_loop(name, parameters, oracle, geometry, saturated=False)
    if loop is hausdorff_dt:
        # The others have kinks where shares of a neighbourhood are exactly 1/2.
        assert_equals_the_loop(name, parameters, oracle, geometry, saturated=True)


@pytest.mark.parametrize("spatial", [(7, 8), (5, 5, 4)], ids=["2D", "3D"])
@pytest.mark.parametrize(
    ("name", "loop"), [("hausdorff_erosion", hausdorff_erosion), ("hausdorff_convolution", hausdorff_convolution)]
)
def test_wide_errors_equal_the_loop(name, loop, spatial):
    # Such that several erosions leave something.
    rng = np.random.default_rng(5)
    target = torch.from_numpy(rng.integers(0, 2, (1, 1, *spatial)))
    logits = torch.from_numpy(8 - 16 * target.numpy() + rng.normal(0, 1.5, target.shape)).requires_grad_()
    parameters = {"iterations": 3} if name == "hausdorff_erosion" else {"radii": (1, 2, 4)}
    value, expected = (
        create(name, **parameters)(logits, target),
        oracle_value(partial(loop, spatial=spatial, **parameters), logits, target, 2),
    )
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)
    gradients = [torch.autograd.grad(result, logits)[0] for result in (value, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10 * gradients[1].abs().max().item())
    if name == "hausdorff_erosion":
        assert create(name, iterations=1)(logits, target) < create(name, iterations=2)(logits, target)


# --- MONAI ---


@pytest.mark.parametrize("kind", ["random", "absent", "one_voxel"])
@pytest.mark.parametrize("spatial", [(9, 11), (6, 7, 8)], ids=["2D", "3D"])
@pytest.mark.parametrize(
    ("name", "theirs"),
    [("hausdorff_dt", monai.losses.HausdorffDTLoss), ("log_hausdorff_dt", monai.losses.LogHausdorffDTLoss)],
)
def test_equals_monai_with_spacing_1(name, theirs, spatial, kind):
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 2 if kind == "absent" else 3, (2, 1, *spatial), generator=generator)
    if kind == "one_voxel":
        target.zero_().view(2, -1)[:, 5] = 2
    logits = 3 * torch.randn(2, 3, *spatial, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    values = [create(name)(logits, target), theirs(softmax=True, to_onehot_y=True)(logits, target)]
    torch.testing.assert_close(*values, rtol=1e-6, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(v, logits)[0] for v in values), rtol=1e-5, atol=1e-9)


# --- geometry ---


def square(spatial=(24, 24), low=8, high=16):
    target = torch.zeros(1, 1, *spatial, dtype=torch.long)
    target[:, :, *[slice(low, high)] * len(spatial)] = 1
    return target


def predicting(mask):
    """Logits of a certain prediction of ``mask`` (1, 1, *spatial)."""
    return 50.0 * (2 * one_hot(mask, 2).double() - 1)


def with_voxels(mask, *voxels, value=1):
    mask = mask.clone()
    for voxel in voxels:
        mask[0, 0, *voxel] = value
    return mask


@pytest.mark.parametrize("spatial", [(24, 24), (16, 16, 16)], ids=["2D", "3D"])
@pytest.mark.parametrize("name", EVERY)
def test_a_perfect_prediction_costs_nothing(name, spatial):
    target = square(spatial, 4, 9)
    assert create(name)(predicting(target), target).item() == pytest.approx(0, abs=1e-30)


@pytest.mark.parametrize("name", DISTANCE)
def test_a_far_false_positive_costs_more_than_a_near_one(name):
    # Code that measures inside the object only has distance 0 at both.
    target = square()
    costs = [create(name)(predicting(with_voxels(target, (12, column))), target) for column in (16, 18, 20, 22)]
    assert 0 < costs[0] < costs[1] < costs[2] < costs[3]


@pytest.mark.parametrize("name", DISTANCE)
def test_a_deep_miss_costs_more_than_one_at_the_surface(name):
    target = square()
    costs = [create(name)(predicting(with_voxels(target, (12, column), value=0)), target) for column in (15, 14, 12)]
    assert 0 < costs[0] < costs[1] < costs[2]


@pytest.mark.parametrize("name", EVERY)
def test_a_missing_object_costs_and_descent_brings_it_back(name):
    target = square()
    logits = predicting(torch.zeros_like(target)) / 20
    logits.requires_grad_()
    value = create(name)(logits, target)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value > 0
    assert gradient[0, 1, 12, 12] < 0 < gradient[0, 0, 12, 12]


def test_the_two_sided_loss_sees_how_far_from_a_missed_object_the_prediction_is():
    target = square((40, 40), 4, 10)
    extra = []
    for low in (10, 30):
        logits = predicting(square((40, 40), low, low + 6))
        extra.append(create("hausdorff_dt")(logits, target) - create("hausdorff_dt_one_sided")(logits, target))
    assert extra[1] > 3 * extra[0] > 0


@pytest.mark.parametrize("name", DISTANCE[:2] + DISTANCE[3:])
def test_the_loss_is_in_mm_to_the_alpha(name):
    target = square((10, 12), 3, 7)
    logits = torch.randn(1, 2, 10, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fine = {"radii": [1, 2, 4]} if "convolution" in name else {}
    coarse = {"radii": [3, 6, 12]} if "convolution" in name else {}
    small = create(name, alpha=1.5, spacing_mm=(1.0, 2.0), **fine)(logits, target)
    large = create(name, alpha=1.5, spacing_mm=(3.0, 6.0), **coarse)(logits, target)
    torch.testing.assert_close(large, 3**1.5 * small)


@pytest.mark.parametrize("spacing_mm", [(0.1, 0.1), (0.3, 0.1)])
def test_a_ball_holds_the_voxels_at_exactly_its_radius(spacing_mm):
    # 3 · 0.1 is larger than 0.3 in floating point. The corner: no ball may reach around the image.
    target = with_voxels(torch.zeros(1, 1, 9, 9, dtype=torch.long), (4, 4), (0, 0))
    logits = torch.zeros(1, 2, 9, 9, dtype=torch.float64)
    exactly, above = (
        create("hausdorff_convolution", radii=[radius], alpha=0, spacing_mm=spacing_mm) for radius in (0.3, 0.3001)
    )
    assert exactly(logits, target).item() == above(logits, target).item()


def test_the_border_of_the_image_is_no_boundary():
    # A ball that is cut by the border finds background only, as one in the middle does.
    target = torch.zeros(1, 1, 40, 40, dtype=torch.long)
    costs = [
        create("hausdorff_convolution")(predicting(with_voxels(target, voxel)), target).item()
        for voxel in ((20, 20), (0, 20), (0, 0), (39, 1))
    ]
    assert costs == pytest.approx([costs[0]] * 4, rel=1e-12)
    assert costs[0] == pytest.approx(sum(r**2 for r in range(3, 19, 3)) / 1600, rel=1e-12)


def test_convolution_has_a_gradient_through_the_predicted_boundary():
    # p - g is 0 at a voxel of soft target 1/2, so there only B∗p can have a gradient: p brings the prediction nearer to
    # the missed object.
    hot = one_hot(square(), 2).double()
    hot[0, :, 12, 18] = 0.5
    logits = predicting(torch.zeros_like(square()))
    logits[0, :, 12, 18] = 0
    logits.requires_grad_()
    convolution, dt = (
        torch.autograd.grad(create(name)(logits, hot), logits)[0] for name in ("hausdorff_convolution", "hausdorff_dt")
    )
    assert convolution[0, 1, 12, 18] < 0
    assert dt[0, 1, 12, 18] == 0


# --- erosion ---


def public_erosion(error, iterations, alpha):
    """The widely copied form, on one image: stretched to [0, 1] by its own minimum and maximum after every erosion."""
    cross = np.zeros([3] * error.ndim)
    for axis in range(error.ndim):
        cross[tuple(slice(None) if other == axis else 1 for other in range(error.ndim))] = 1
    total = np.zeros_like(error)
    for k in range(iterations):
        error = np.maximum(convolve(error, cross / cross.sum(), mode="constant", cval=0.0) - 0.5, 0)
        if np.ptp(error) > 0:
            error = (error - error.min()) / np.ptp(error)
        total += error * (k + 1) ** alpha
    return total.mean()


@pytest.mark.parametrize("spatial", [(24, 24), (14, 14, 14)], ids=["2D", "3D"])
def test_erosion_equals_the_public_form_while_some_neighbourhood_is_wholly_wrong(spatial):
    # A square of 9 voxels is wholly wrong at its centre for four erosions.
    target = torch.zeros(1, 1, *spatial, dtype=torch.long)
    wrong = square(spatial, 2, 11)
    loss = create("hausdorff_erosion", iterations=4)(predicting(wrong), target)
    assert loss.item() == pytest.approx(public_erosion(wrong[0, 0].numpy().astype(float), 4, 2.0), rel=1e-12)


def test_erosion_is_continuous_where_the_public_form_jumps():
    target = square()
    below, above = (math.sqrt(0.5) - 1e-6, math.sqrt(0.5) + 1e-6)
    errors = [np.pad(np.full((8, 8), x**2), 8) for x in (below, above)]
    public = [public_erosion(error, 10, 2.0) for error in errors]
    assert public[0] == 0
    assert public[1] > 1
    logits = [torch.logit(torch.full((1, 1, 24, 24), 1 - x, dtype=torch.float64)) for x in (below, above)]
    # Right (p = 0) outside of the square, wrong by x inside.
    ours = [create("hausdorff_erosion")(torch.where(target == 1, x, -50.0), target).item() for x in logits]
    assert ours[0] == 0
    assert 0 < ours[1] < 1e-4


def test_a_thick_error_costs_more_than_a_thin_one_of_the_same_size():
    target = torch.zeros(1, 1, 24, 24, dtype=torch.long)
    thick, thin = target.clone(), target.clone()
    thick[..., 2:10, 2:10] = 1
    thin[..., 2:6, 2:18] = 1
    costs = [create("hausdorff_erosion")(predicting(mask), target) for mask in (thick, thin)]
    assert costs[0] > costs[1] > 0


def test_erosion_has_a_gradient_in_the_region_of_error_and_beside_it():
    # The widely copied implementation computes in NumPy and has none.
    target = square()
    logits = torch.where(target == 1, -3.0, -8.0).double().requires_grad_()
    create("hausdorff_erosion")(logits, target).backward()
    assert (logits.grad[target == 1] < 0).all()
    assert not logits.grad[..., :7, :].any()


# --- arguments, transforms ---


@pytest.mark.parametrize(
    ("name", "chosen", "message"),
    [
        ("hausdorff_dt", {"alpha": -1}, "alpha is -1"),
        ("hausdorff_dt", {"spacing_mm": [0, 1]}, "spacing_mm is"),
        ("hausdorff_erosion", {"iterations": 0}, "iterations is 0, expected a whole number >= 1"),
        ("hausdorff_erosion", {"iterations": 2.5}, "iterations is 2.5"),
        ("hausdorff_convolution", {"radii": []}, r"radii is \[\], expected a list of numbers > 0"),
        ("hausdorff_convolution", {"radii": [3, -1]}, "radii is"),
        ("hausdorff_convolution", {"radii": 3}, "radii is 3"),
    ],
)
def test_a_value_that_a_parameter_cannot_have_is_refused(name, chosen, message):
    with pytest.raises(LossevoError, match=message):
        create(name, **chosen)


@pytest.mark.parametrize("name", DISTANCE)
def test_a_spacing_needs_one_value_per_axis(name):
    with pytest.raises(LossevoError, match="one distance > 0 per axis"):
        create(name, spacing_mm=(1.0, 1.0, 4.0))(predicting(square()), square())


@pytest.mark.parametrize("name", EVERY)
def test_functional_and_second_derivatives(name):
    generator = torch.Generator().manual_seed(3)
    target = square((6, 6), 1, 5)
    logits = torch.randn(1, 2, 6, 6, generator=generator, dtype=torch.float64) - 6 * one_hot(target, 2).double() + 3
    loss = create(name)
    expected = torch.autograd.grad(loss(logits.requires_grad_(), target), logits)[0]
    torch.testing.assert_close(torch.func.grad(lambda x: loss(x, target))(logits.detach()), expected)
    assert torch.autograd.gradgradcheck(lambda x: loss(x, target), logits)
