"""Jaccard, F-measure, sensitivity-specificity: against slow loops; and what becomes of absent classes."""

from __future__ import annotations

import monai.losses
import pytest
import torch

from lossevo.losses import create
from lossevo.losses.base import one_hot
from tests.losses.voxel_loops import GEOMETRIES, SMOOTH, assert_equals_the_loop, classes, mean, regions


def region_mean(losses, p, g, absent, **which):
    """Mean of ``losses`` over the regions, without those that the target lacks if they are skipped."""
    kept = [
        loss
        for loss, region in zip(losses, regions(p, g, **which), strict=True)
        if absent == "count" or any(y for _, y in region)
    ]
    return mean(kept) if kept else 0 * p[0][0][0]


def jaccard(p, g, phi, absent="count", **which):
    def index(region):
        overlap = sum(x * y for x, y in region)
        return overlap / (sum(x + y - x * y for x, y in region) + SMOOTH)

    return region_mean([1 - index(region) for region in regions(p, g, **which)], p, g, absent, **which)


def f_measure(p, g, phi, beta=1.5, absent="count", **which):
    def index(region):
        tp = sum(x * y for x, y in region)
        fp = sum(x * (1 - y) for x, y in region)
        fn = sum((1 - x) * y for x, y in region)
        return (1 + beta**2) * tp / ((1 + beta**2) * tp + beta**2 * fn + fp + SMOOTH)

    return region_mean([1 - index(region) for region in regions(p, g, **which)], p, g, absent, **which)


def sensitivity_specificity(p, g, phi, w=0.05, absent="count", **which):
    def loss(region):
        missed = sum((y - x) ** 2 * y for x, y in region) / (sum(y for _, y in region) + SMOOTH)
        invented = sum((y - x) ** 2 * (1 - y) for x, y in region) / (sum(1 - y for _, y in region) + SMOOTH)
        return w * missed + (1 - w) * invented

    return region_mean([loss(region) for region in regions(p, g, **which)], p, g, absent, **which)


def dice(p, g, phi, absent="count", **which):
    losses = [
        1 - 2 * sum(x * y for x, y in region) / (sum(x + y for x, y in region) + SMOOTH)
        for region in regions(p, g, **which)
    ]
    return region_mean(losses, p, g, absent, **which)


def generalized_dice_of_present_classes(p, g, phi, background=True):
    losses = []
    for image_p, image_g in zip(p, g, strict=True):
        volume = {c: sum(image_g[c]) for c in classes(p, background) if sum(image_g[c])}
        if not volume:
            continue
        weight = {c: (min(volume.values()) / v) ** 2 for c, v in volume.items()}
        voxels = [(weight[c], x, y) for c in volume for x, y in zip(image_p[c], image_g[c], strict=True)]
        total = sum(w * (x + y) for w, x, y in voxels)
        losses.append(1 - 2 * sum(w * x * y for w, x, y in voxels) / (total + SMOOTH))
    return mean(losses) if losses else 0 * p[0][0][0]


VARIANTS = [
    ("jaccard", {}, jaccard),
    (
        "jaccard",
        {"batch": True, "include_background": True},
        lambda p, g, d: jaccard(p, g, d, batch=True, background=True),
    ),
    ("asymmetric_similarity", {}, f_measure),
    ("asymmetric_similarity", {"beta": 0.5, "absent": "skip"}, lambda p, g, d: f_measure(p, g, d, 0.5, "skip")),
    ("sensitivity_specificity", {}, sensitivity_specificity),
    (
        "sensitivity_specificity",
        {"w_sensitivity": 0.4, "batch": True, "absent": "skip"},
        lambda p, g, d: sensitivity_specificity(p, g, d, 0.4, "skip", batch=True),
    ),
    ("dice", {"absent": "skip"}, lambda p, g, d: dice(p, g, d, "skip")),
    ("dice", {"absent": "skip", "batch": True}, lambda p, g, d: dice(p, g, d, "skip", batch=True)),
    ("generalized_dice", {"absent": "skip"}, generalized_dice_of_present_classes),
    (
        "generalized_dice",
        {"absent": "skip", "include_background": False},
        lambda p, g, d: generalized_dice_of_present_classes(p, g, d, background=False),
    ),
]
IDS = ["-".join([name, *map(str, parameters)]) for name, parameters, _ in VARIANTS]


@pytest.mark.parametrize("saturated", [False, True], ids=["", "saturated"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: f"B{g[0]}C{g[1]}-{len(g[2])}D")
@pytest.mark.parametrize(("name", "parameters", "oracle"), VARIANTS, ids=IDS)
def test_value_and_gradient_equal_the_loop(name, parameters, oracle, geometry, saturated):
    assert_equals_the_loop(name, parameters, oracle, geometry, saturated)


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        # p = 1/2 everywhere, 4 of 10 voxels foreground: TP = 2, FP = 3, FN = 2.
        ("jaccard", {}, 1 - 2 / 7),
        ("asymmetric_similarity", {}, 1 - 3.25 * 2 / (3.25 * 2 + 2.25 * 2 + 3)),
        ("sensitivity_specificity", {}, 0.05 * (4 / 4) / 4 + 0.95 * (6 / 4) / 6),
    ],
)
def test_indifferent_prediction(name, parameters, expected):
    target = torch.tensor([[[[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]]]])
    logits = torch.zeros(1, 2, 2, 5, dtype=torch.float64)
    assert create(name, **parameters)(logits, target).item() == pytest.approx(expected, rel=1e-5)


def example(classes=4):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, classes, 4, 5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    return logits, torch.randint(0, classes, (2, 1, 4, 5, 3), generator=generator)


@pytest.mark.parametrize("batch", [False, True])
def test_jaccard_is_monais(batch):
    logits, target = example()
    theirs = monai.losses.DiceLoss(
        softmax=True,
        to_onehot_y=True,
        include_background=False,
        jaccard=True,
        batch=batch,
        smooth_nr=0,
        smooth_dr=1e-5,
    )
    # Theirs is 2 TP / (2 (Σp + Σg - TP)), with the smoothing beside the doubled denominator.
    ours = create("jaccard", batch=batch, smooth=0.5e-5)
    values = [loss(logits, target) for loss in (ours, theirs)]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in values))


def test_sensitivity_specificity_is_not_blind_to_an_absent_class():
    logits, target = example(3)
    nothing = torch.zeros_like(target)
    (gradient,) = torch.autograd.grad(create("sensitivity_specificity")(logits, nothing), logits)
    assert (gradient[:, 1:].sum(dim=1) > 0).all()


RATIOS = ["dice", "jaccard", "tversky", "asymmetric_similarity", "focal_tversky"]
COMPOUND = [("dice_ce", "w_ce"), ("dice_focal", "w_focal"), ("dice_topk", "w_topk")]


@pytest.mark.parametrize("name", RATIOS)
def test_a_skipped_class_leaves_the_mean(name):
    logits, target = example()
    target = target.clamp(max=2)
    counted, skipped = (create(name, absent=absent)(logits, target) for absent in ("count", "skip"))
    # Of the classes 1, 2, 3 the last is absent from both images: it counts 1.
    torch.testing.assert_close(counted, (2 * skipped + 1) / 3)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (3 * counted, 2 * skipped)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", [*RATIOS, "sensitivity_specificity"])
def test_skipping_changes_nothing_where_every_class_is(name):
    logits, target = example(2)
    torch.testing.assert_close(create(name, absent="skip")(logits, target), create(name)(logits, target))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        *((name, {}) for name in [*RATIOS, "sensitivity_specificity"]),
        ("generalized_dice", {"include_background": False}),
        *((name, {other: 0}) for name, other in COMPOUND),
        ("exp_log", {"w_ce": 0}),
    ],
)
@pytest.mark.parametrize("soft", [False, True])
def test_where_every_class_is_absent_skipping_leaves_no_loss(name, parameters, soft):
    logits, target = example()
    nothing = torch.zeros_like(target)
    loss = create(name, absent="skip", **parameters)(logits, one_hot(nothing, 4).double() if soft else nothing)
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, logits)[0].any()
