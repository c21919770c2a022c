"""Closed forms on small cases, and which loss is a special case of which.

The table for readers is ``lossevo.losses.relations``, which has its own test. Here are also the identities with a
function, a limit, an inequality or a smoothing between two losses, and each for regions per image and per batch.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from lossevo.losses import create, names, parameters
from lossevo.losses.base import one_hot


def example(classes=3, spatial=(4, 5, 6), seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, *spatial, generator=generator, dtype=torch.float64, requires_grad=True)
    return logits, torch.randint(0, classes, (2, 1, *spatial), generator=generator)


def assert_same_loss(first, second, logits, target):
    values = [loss(logits, target) for loss in (first, second)]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in values))


def ten_voxels(foreground):
    """Indifferent logits of two classes on ten voxels, the first ``foreground`` of which are foreground."""
    target = torch.zeros(1, 1, 2, 5, dtype=torch.long)
    target.view(-1)[:foreground] = 1
    return torch.zeros(1, 2, 2, 5, dtype=torch.float64), target


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        # p = 1/2 everywhere, 4 of 10 voxels foreground: TP = 2, FP = 3, FN = 2.
        ("cross_entropy", {}, math.log(2)),
        ("cross_entropy", {"weight": [1, 3]}, math.log(2)),
        ("cross_entropy", {"label_smoothing": 0.3}, math.log(2)),
        ("focal", {}, math.log(2) / 4),
        ("focal", {"gamma": 0.5, "alpha": [1, 2]}, (0.6 * 1 + 0.4 * 2) * math.log(2) / math.sqrt(2)),
        ("focal", {"gamma": 1, "alpha": 0.25}, (0.6 * 0.75 + 0.4 * 0.25) * math.log(2) / 2),
        ("dice", {}, 1 - 4 / 9),
        ("dice", {"include_background": True}, 1 - (4 / 9 + 6 / 11) / 2),
        ("dice", {"squared_denominator": True}, 1 - 4 / (2.5 + 4)),
        ("jaccard", {}, 1 - 2 / 7),
        ("tversky", {}, 1 - 2 / (2 + 0.3 * 3 + 0.7 * 2)),
        ("asymmetric_similarity", {"beta": 2}, 1 - 5 * 2 / (4 * 4 + 5)),
        ("sensitivity_specificity", {"w_sensitivity": 0.3}, 0.25),
        ("lovasz", {}, 0.5),
        ("topk", {}, math.log(2)),
        ("focal_tversky", {}, (1 - 2 / (2 + 0.3 * 3 + 0.7 * 2)) ** 0.75),
        ("generalized_dice", {}, 1 - 2 * (2 + 4 / 9 * 3) / (9 + 4 / 9 * 11)),
        (
            "exp_log",
            {"smooth": 0, "gamma": 1, "frequencies": [1, 3]},
            0.8 * math.log(9 / 4) + 0.2 * (0.6 * 2 + 0.4 * math.sqrt(4 / 3)) * math.log(2),
        ),
        ("cldice", {"alpha": 0}, 1 - 4 / 9),
        ("dice_ce", {}, 1 - 4 / 9 + math.log(2)),
        ("dice_topk", {"w_topk": 0.5}, 1 - 4 / 9 + math.log(2) / 2),
        ("dice_focal", {}, 1 - 4 / 6.5 + math.log(2) / 4),
        ("baikal", {}, 1 + math.log(2)),
        ("baikal_cma", {}, 2.7279 * (1.1135 * 1.3716 / 0.8411 - 0.9863 * math.log(1.5352 / 2))),
    ],
)
def test_indifferent_prediction(name, parameters, expected):
    logits, target = ten_voxels(4)
    assert create(name, **parameters)(logits, target).item() == pytest.approx(expected, rel=1e-5)


def test_boundary_of_a_row_by_hand():
    logits = torch.tensor([[[[0.0, 0.0, 0.0, math.log(3)]]]], dtype=torch.float64)
    target = torch.tensor([[[[1, 1, 0, 0]]]])
    distance = [-4.0, -2.0, 2.0, 4.0]
    expected = (0.5 * sum(distance[:3]) + 0.75 * distance[3]) / 4
    assert create("boundary", spacing_mm=(1.0, 2.0))(logits, target).item() == pytest.approx(expected)


@pytest.mark.parametrize("weight", [None, [0.2, 1.0, 3.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_labels_is_pytorchs(weight, smoothing):
    logits, target = example()
    tensor = None if weight is None else torch.tensor(weight, dtype=torch.float64)
    assert_same_loss(
        create("cross_entropy", weight=weight, label_smoothing=smoothing),
        lambda x, y: F.cross_entropy(x, y[:, 0], weight=tensor, label_smoothing=smoothing),
        logits,
        target,
    )


def test_binary_cross_entropy_and_focal_loss_are_the_sigmoid_forms():
    logits, target = example(1)[0], example(2)[1]
    share = target.double()
    assert_same_loss(create("cross_entropy"), lambda x, y: F.binary_cross_entropy_with_logits(x, share), logits, target)

    def lin(x, y):
        p = x.sigmoid()
        true = torch.where(y == 1, p, 1 - p)
        alpha = torch.where(y == 1, 0.25, 0.75)
        return (-alpha * (1 - true) ** 2 * true.log()).mean()

    assert_same_loss(create("focal", alpha=0.25), lin, logits, target)


@pytest.mark.parametrize("hot", [False, True], ids=["labels", "one-hot"])
@pytest.mark.parametrize("gamma", [0, 1e-9])
def test_focal_loss_becomes_cross_entropy(gamma, hot):
    logits, target = example()
    assert_same_loss(
        create("focal", gamma=gamma), create("cross_entropy"), logits, one_hot(target, 3) if hot else target
    )


def foreground_mse(logits, target):
    error = logits.softmax(1) - one_hot(target, logits.shape[1]).double()
    return error[:, 1:].square().mean()


BETA = 1.7
F_BETA = {"w_fp": 1 / (1 + BETA**2), "w_fn": BETA**2 / (1 + BETA**2)}

# Two losses each: a name and parameters, or any function.
REGION_IDENTITIES = {
    # Dice has 2 TP where Tversky has TP, so `smooth` counts half; likewise for the F-measure's 1 + β².
    "Dice is Tversky(½, ½)": [("dice", {"smooth": 0.5}), ("tversky", {"w_fp": 0.5, "w_fn": 0.5, "smooth": 0.25})],
    "Jaccard is Tversky(1, 1)": [("jaccard", {}), ("tversky", {"w_fp": 1, "w_fn": 1})],
    "F-beta is Tversky": [
        ("asymmetric_similarity", {"beta": BETA, "smooth": 0.5}),
        ("tversky", {**F_BETA, "smooth": 0.5 / (1 + BETA**2)}),
    ],
    "F-1 is Dice": [("asymmetric_similarity", {"beta": 1, "smooth": 0.5}), ("dice", {"smooth": 0.5})],
    "precision": [("asymmetric_similarity", {"beta": 0}), ("tversky", {"w_fp": 1, "w_fn": 0})],
    "recall": [("asymmetric_similarity", {"beta": 1e6, "smooth": 0}), ("tversky", {"w_fp": 0, "w_fn": 1, "smooth": 0})],
    "focal Tversky with γ = 1": [("focal_tversky", {"gamma": 1}), ("tversky", {})],
    "unified focal, Tversky term": [
        ("unified_focal", {"w_tversky": 1, "gamma": 0, "delta": 0.8, "include_background": False}),
        ("tversky", {"w_fp": 0.2, "w_fn": 0.8}),
    ],
    "unified focal, focal Tversky term": [
        ("unified_focal", {"w_tversky": 1, "gamma": 0.25, "include_background": False}),
        ("focal_tversky", {"gamma": 4 / 3, "w_fp": 0.4, "w_fn": 0.6}),
    ],
    "clDice with α = 0": [("cldice", {"alpha": 0}), ("dice", {})],
    "generalised Dice + boundary": [
        ("generalized_dice_boundary", {"alpha": 0, "increment": 0}),
        ("generalized_dice", {}),
    ],
}
DISTRIBUTION_IDENTITIES = {
    "top-k of all": [("topk", {"fraction": 1}), ("cross_entropy", {})],
    "equal weights": [("cross_entropy", {"weight": [3, 3, 3]}), ("cross_entropy", {})],
    "equal α": [("focal", {"alpha": [2, 2, 2]}), lambda *a: 2 * create("focal")(*a)],
    "α = ½": [("focal", {"alpha": 0.5}), lambda *a: create("focal")(*a) / 2],
    "unified focal, focal term": [
        ("unified_focal", {"asymmetric": False, "w_tversky": 0, "gamma": 0.7, "delta": 0.8}),
        ("focal", {"gamma": 0.7, "alpha": 0.8}),
    ],
    "unified focal, cross-entropy term": [
        ("unified_focal", {"w_tversky": 0, "gamma": 0, "delta": 0.8}),
        ("focal", {"gamma": 0, "alpha": 0.8}),
    ],
    "unified focal without focus": [
        ("unified_focal", {"w_tversky": 0.3, "gamma": 0, "delta": 0.5, "smooth": 0.25}),
        ("dice_ce", {"w_dice": 0.3, "w_ce": 0.35, "include_background": True, "smooth": 0.5}),
    ],
    "exponential logarithmic, cross-entropy term": [
        ("exp_log", {"w_dice": 0, "w_ce": 1, "gamma": 1, "frequencies": [1, 1, 1]}),
        lambda *a: math.sqrt(3) * create("cross_entropy")(*a),
    ],
    "Dice + CE without Dice": [("dice_ce", {"w_dice": 0}), ("cross_entropy", {})],
    "Dice + focal without focus": [("dice_focal", {"gamma": 0, "squared_denominator": False}), ("dice_ce", {})],
    "Dice + top-k of all": [("dice_topk", {"fraction": 1}), ("dice_ce", {})],
    "log-Hausdorff": [("log_hausdorff_dt", {}), lambda *a: create("hausdorff_dt")(*a).log1p()],
    "one-sided Hausdorff with α = 0": [("hausdorff_dt_one_sided", {"alpha": 0}), foreground_mse],
    "Hausdorff with α = 0": [("hausdorff_dt", {"alpha": 0}), lambda *a: 2 * foreground_mse(*a)],
}


def build(loss, **parameters):
    return loss if callable(loss) else create(loss[0], **loss[1], **parameters)


@pytest.mark.parametrize("batch", [False, True], ids=["per image", "batch"])
@pytest.mark.parametrize(("first", "second"), REGION_IDENTITIES.values(), ids=REGION_IDENTITIES.keys())
def test_identity_of_region_losses(first, second, batch):
    assert_same_loss(build(first, batch=batch), build(second, batch=batch), *example())


@pytest.mark.parametrize(("first", "second"), DISTRIBUTION_IDENTITIES.values(), ids=DISTRIBUTION_IDENTITIES.keys())
def test_identity(first, second):
    assert_same_loss(build(first), build(second), *example())


def test_of_one_region_jaccard_and_logarithms_are_functions_of_dice():
    logits, target = (x[:1] for x in example(2))
    logits = logits.detach().requires_grad_()
    dice = create("dice", smooth=0)
    # J = D / (2 - D), so 1 - J = 2 L / (1 + L) with L = 1 - D.
    assert_same_loss(create("jaccard", smooth=0), lambda *a: 2 * dice(*a) / (1 + dice(*a)), logits, target)
    exp_log = create("exp_log", w_dice=1, w_ce=0, gamma=2, smooth=0)
    assert_same_loss(exp_log, lambda *a: (1 - dice(*a)).log() ** 2, logits, target)


def test_of_a_hard_prediction_many_region_losses_are_one():
    _, target = example()
    other = example(seed=1)[1]
    logits = 200.0 * one_hot(other, 3).double()
    jaccard = create("jaccard", smooth=0)(logits, target)
    torch.testing.assert_close(create("lovasz", include_background=False)(logits, target), jaccard)
    dice = create("dice", smooth=0)(logits, target)
    torch.testing.assert_close(create("dice", squared_denominator=True, smooth=0)(logits, target), dice)


def test_sensitivity_and_specificity_are_the_two_ends():
    logits, target = example()
    ends = [create("sensitivity_specificity", w_sensitivity=w, smooth=0) for w in (1, 0)]
    assert_same_loss(
        create("sensitivity_specificity", w_sensitivity=0.2, smooth=0),
        lambda *a: 0.2 * ends[0](*a) + 0.8 * ends[1](*a),
        logits,
        target,
    )
    # Of two classes the specificity of one is the sensitivity of the other.
    logits, target = example(2)
    torch.testing.assert_close(ends[1](logits, target), ends[0](logits.flip(1), 1 - target))


def test_label_smoothing_is_cross_entropy_of_a_soft_target():
    logits, target = example()
    soft = 0.9 * one_hot(target, 3).double() + 0.1 / 3
    cross_entropy = create("cross_entropy")
    assert_same_loss(create("cross_entropy", label_smoothing=0.1), lambda x, y: cross_entropy(x, soft), logits, target)


def test_two_classes_have_one_boundary():
    # φ_0 = -φ_1 and p_0 = 1 - p_1: with the background the loss differs by a constant.
    logits, target = example(2)
    losses = [create("boundary", include_background=background) for background in (False, True)]
    torch.testing.assert_close(*(torch.autograd.grad(loss(logits, target), logits)[0] for loss in losses))


def test_the_two_sides_of_the_hausdorff_loss():
    logits, target = example(2)
    one_sided, two_sided = create("hausdorff_dt_one_sided"), create("hausdorff_dt")
    assert two_sided(logits, target) > one_sided(logits, target)
    # A prediction without a voxel above 1/2 has no boundary, and so no second side.
    timid = torch.stack([logits[:, 0].abs(), -logits[:, 1].abs()], dim=1)
    assert_same_loss(two_sided, one_sided, timid.detach().requires_grad_(), target)


@pytest.mark.parametrize("kind", ["dt_one_sided", "dt", "erosion", "convolution"])
def test_dice_and_hausdorff_start_as_their_weighted_sum(kind):
    hausdorff, dice = create(f"hausdorff_{kind}"), create("dice")
    both = create("dice_hausdorff", hausdorff=kind, initial_ratio=0.3)
    assert_same_loss(both, lambda *a: hausdorff(*a) + 0.3 * dice(*a), *example())


@pytest.mark.parametrize(
    ("schedule", "w_dice", "w_boundary"),
    [("constant", 1.0, 0.02), ("increase", 1.0, 0.02 + 5 * 0.01), ("rebalance", 1 - 5 * 0.01, 0.02 + 5 * 0.01)],
)
def test_a_scheduled_loss_is_the_weighted_sum_of_its_parts(schedule, w_dice, w_boundary):
    loss = create("generalized_dice_boundary", schedule=schedule, alpha=0.02, increment=0.01)
    for _ in range(5):
        loss.step()
    dice, boundary = create("generalized_dice"), create("boundary")
    assert_same_loss(loss, lambda *a: w_dice * dice(*a) + w_boundary * boundary(*a), *example())


def test_generalized_dice_of_one_class_is_dice():
    assert_same_loss(create("generalized_dice", include_background=False), create("dice"), *example(2))


def test_compound_losses_are_the_sums_of_their_parts():
    logits, target = example()
    dice, cross_entropy = create("dice", batch=True), create("cross_entropy", weight=[1, 2, 3])
    assert_same_loss(
        create("dice_ce", w_dice=0.25, w_ce=3, batch=True, weight=[1, 2, 3]),
        lambda *a: 0.25 * dice(*a) + 3 * cross_entropy(*a),
        logits,
        target,
    )
    dice, focal = create("dice", squared_denominator=True), create("focal", gamma=1.5, alpha=0.4)
    assert_same_loss(
        create("dice_focal", w_dice=2, w_focal=0.5, gamma=1.5, alpha=0.4),
        lambda *a: 2 * dice(*a) + 0.5 * focal(*a),
        logits,
        target,
    )


# Losses that look at neighbours or distances see the seam at which the images are joined.
BLIND_TO_PLACE = [
    name for name in names() if "batch" in parameters(name) and name != "cldice" and not create(name).uses_distance_map
]


@pytest.mark.parametrize("name", BLIND_TO_PLACE)
def test_batch_takes_the_images_as_one(name):
    logits, target = example()
    joined = [torch.cat(list(x), dim=1)[None] for x in (logits, target)]
    torch.testing.assert_close(create(name, batch=True)(logits, target), create(name)(*joined))


@pytest.mark.parametrize("name", ["dice", "tversky", "focal_tversky"])
def test_an_absent_class_costs_one_and_has_no_gradient(name):
    logits, target = example()
    target = target.clamp(max=1)
    loss = create(name)
    value = loss(logits, target)
    hot = one_hot(target, 3)
    assert hot[:, 2].sum() == 0
    # The mean over classes 1 and 2, of which 2 contributes exactly 1 and nothing to the gradient.
    probability = logits.softmax(1)
    alone = _foreground_loss(name, probability[:, 1], hot[:, 1].double())
    torch.testing.assert_close(value, (alone + 1) / 2)
    gradients = [torch.autograd.grad(v, logits, retain_graph=True)[0] for v in (value, alone / 2)]
    torch.testing.assert_close(*gradients)
    assert loss(logits, torch.zeros_like(target)).item() == 1
    assert not torch.autograd.grad(loss(logits, torch.zeros_like(target)), logits)[0].any()


def _foreground_loss(name, p, g):
    w_fp, w_fn = (0.5, 0.5) if name == "dice" else (0.3, 0.7)
    p, g = p.flatten(1), g.flatten(1)
    overlap = (p * g).sum(1)
    smooth = 0.5e-5 if name == "dice" else 1e-5
    index = overlap / (overlap + w_fp * (p.sum(1) - overlap) + w_fn * (g.sum(1) - overlap) + smooth)
    return ((1 - index) ** (0.75 if name == "focal_tversky" else 1.0)).mean()


def test_generalized_dice_pushes_an_absent_class_down():
    logits, target = example()
    gradient = torch.autograd.grad(create("generalized_dice")(logits, target.clamp(max=1)), logits)[0]
    assert (gradient[:, 2] > 0).all()


@pytest.mark.parametrize(
    "name", ["cross_entropy", "focal", "dice", "generalized_dice", "tversky", "dice_ce", "dice_focal"]
)
def test_a_perfect_prediction_costs_nothing(name):
    target = example()[1]
    logits = 100 * one_hot(target, 3).double() - 50
    assert 0 <= create(name)(logits, target).item() < 1e-6


def test_cross_entropy_of_voxels_without_weight_is_zero():
    logits, target = example()
    loss = create("cross_entropy", weight=[0, 1, 1], label_smoothing=0.1)(logits, torch.zeros_like(target))
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, logits)[0].any()


@pytest.mark.parametrize(
    ("name", "classes", "optimum"),
    [
        *(("baikal", classes, 1 / math.sqrt(classes)) for classes in (2, 3, 10)),
        ("baikal_cma", 2, 0.772),
        ("baikal_cma", 3, 0.656),
        ("baikal_cma", 10, 0.389),
    ],
)
def test_optimum_of_baikal(name, classes, optimum):
    """The probability of the true class that the loss asks for; 1/√C, and not 1, is what Baikal is."""
    logits, target = example(classes, (3, 3), seed=5)
    logits = logits.detach().requires_grad_()
    loss = create(name)
    optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss(logits, target)
        value.backward()
        return value

    optimizer.step(closure)
    true = logits.softmax(1).gather(1, target).detach()
    torch.testing.assert_close(true, torch.full_like(true, optimum), rtol=0, atol=1e-4 if name == "baikal" else 1e-3)
