"""Closed forms on small cases, and which loss is a special case of which."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from lossevo.losses import create
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
        ("tversky", {}, 1 - 2 / (2 + 0.3 * 3 + 0.7 * 2)),
        ("focal_tversky", {}, (1 - 2 / (2 + 0.3 * 3 + 0.7 * 2)) ** 0.75),
        ("generalized_dice", {}, 1 - 2 * (2 + 4 / 9 * 3) / (9 + 4 / 9 * 11)),
        ("dice_ce", {}, 1 - 4 / 9 + math.log(2)),
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


@pytest.mark.parametrize("batch", [False, True])
def test_dice_is_tversky_with_equal_weights(batch):
    assert_same_loss(
        create("dice", batch=batch, smooth=0.5),
        create("tversky", w_fp=0.5, w_fn=0.5, batch=batch, smooth=0.25),
        *example(),
    )


def test_tversky_is_jaccard_and_f_beta():
    logits, target = example(2)
    p, g = logits.softmax(1)[:, 1].flatten(1), (target == 1).double().flatten(1)
    overlap = (p * g).sum(1)
    jaccard = 1 - (overlap / (p.sum(1) + g.sum(1) - overlap)).mean()
    torch.testing.assert_close(create("tversky", w_fp=1.0, w_fn=1.0, smooth=0.0)(logits, target), jaccard)
    square = 1.5**2
    f_beta = 1 - ((1 + square) * overlap / (square * g.sum(1) + p.sum(1))).mean()
    tversky = create("tversky", w_fp=1 / (1 + square), w_fn=square / (1 + square), smooth=0.0)
    torch.testing.assert_close(tversky(logits, target), f_beta)


def test_focal_tversky_with_gamma_one_is_tversky():
    assert_same_loss(create("focal_tversky", gamma=1), create("tversky"), *example())


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


@pytest.mark.parametrize("name", ["dice", "tversky", "focal_tversky", "generalized_dice"])
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
