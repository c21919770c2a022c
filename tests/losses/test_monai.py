"""Against MONAI's losses, in value and gradient; where MONAI computes something else, the test says what."""

from __future__ import annotations

import monai.losses
import pytest
import torch

from lossevo.losses import create
from lossevo.losses.base import one_hot

CLASSES = 3
# MONAI smooths numerators too by default; smoothing 0 in the numerator is our rule.
SMOOTH = {"smooth_nr": 0.0, "smooth_dr": 1e-5}
SOFTMAX = {"softmax": True, "to_onehot_y": True, "include_background": False}


def targets(kind, spatial):
    generator = torch.Generator().manual_seed(1)
    target = torch.zeros(2, 1, *spatial, dtype=torch.long)
    if kind == "random":
        target = torch.randint(0, CLASSES, target.shape, generator=generator)
    elif kind == "full":
        target += 1
    elif kind == "absent":
        target = torch.randint(0, CLASSES - 1, target.shape, generator=generator)
    elif kind == "one_voxel":
        target.view(2, -1)[:, 2] = 2
    return target


def assert_same_loss(ours, theirs, logits, target):
    values = [loss(logits, target).double() for loss in (ours, theirs)]
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in values), rtol=1e-4, atol=1e-7)


@pytest.fixture(params=[(5, 6), (3, 4, 5)], ids=["2D", "3D"])
def spatial(request):
    return request.param


@pytest.fixture
def logits(spatial):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, CLASSES, *spatial, generator=generator, dtype=torch.float64, requires_grad=True)


kinds = pytest.mark.parametrize("kind", ["random", "empty", "full", "absent", "one_voxel"])


@kinds
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("squared", [False, True])
def test_dice(logits, spatial, kind, batch, squared):
    theirs = monai.losses.DiceLoss(**SOFTMAX, **SMOOTH, batch=batch, squared_pred=squared)
    ours = create("dice", batch=batch, squared_denominator=squared)
    assert_same_loss(ours, theirs, logits, targets(kind, spatial))


@kinds
@pytest.mark.parametrize("batch", [False, True])
def test_tversky(logits, spatial, kind, batch):
    # Their alpha weighs false positives, their beta false negatives.
    theirs = monai.losses.TverskyLoss(**SOFTMAX, **SMOOTH, alpha=0.2, beta=0.9, batch=batch)
    assert_same_loss(create("tversky", w_fp=0.2, w_fn=0.9, batch=batch), theirs, logits, targets(kind, spatial))


@kinds
@pytest.mark.parametrize("batch", [False, True])
def test_generalized_dice(logits, spatial, kind, batch):
    # Their weights are not normalised, so their smoothing is not ours: without any, both are the same.
    theirs = monai.losses.GeneralizedDiceLoss(softmax=True, to_onehot_y=True, smooth_nr=0, smooth_dr=0, batch=batch)
    assert_same_loss(create("generalized_dice", smooth=0.0, batch=batch), theirs, logits, targets(kind, spatial))


def test_the_smoothing_of_monais_generalized_dice_hides_large_regions():
    # 48³ voxels, all wrong: with unnormalised weights 1/n² the sums are of the order of their smoothing.
    target = torch.zeros(1, 1, 48, 48, 48, dtype=torch.long)
    target[..., :24] = 1
    logits = 30 * (1 - one_hot(target, 2).float())
    theirs = monai.losses.GeneralizedDiceLoss(softmax=True, to_onehot_y=True)
    assert create("generalized_dice")(logits, target).item() == pytest.approx(1)
    assert theirs(logits, target).item() < 0.9


@kinds
@pytest.mark.parametrize("gamma", [1.0, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("hot", [False, True], ids=["labels", "one-hot"])
def test_focal(logits, spatial, kind, gamma, alpha, hot):
    # Theirs divides by the number of classes too, so that γ = 0 is not cross-entropy; it computes in float32.
    focal = monai.losses.FocalLoss(use_softmax=True, to_onehot_y=True, gamma=gamma, alpha=alpha)
    target = targets(kind, spatial)
    ours = create("focal", gamma=gamma, alpha=alpha)
    given = one_hot(target, CLASSES) if hot else target
    assert_same_loss(lambda x, y: ours(x, given), lambda x, y: CLASSES * focal(x, y), logits, target)


@kinds
def test_dice_ce(logits, spatial, kind):
    theirs = monai.losses.DiceCELoss(**SOFTMAX, **SMOOTH, lambda_dice=0.5, lambda_ce=2, batch=True, label_smoothing=0.1)
    ours = create("dice_ce", w_dice=0.5, w_ce=2, batch=True, label_smoothing=0.1)
    assert_same_loss(ours, theirs, logits, targets(kind, spatial))


@kinds
def test_dice_focal(logits, spatial, kind):
    # Their focal part leaves the background out with the Dice part, and divides by the number of classes.
    dice = monai.losses.DiceLoss(**SOFTMAX, **SMOOTH, squared_pred=True)
    focal = monai.losses.FocalLoss(use_softmax=True, to_onehot_y=True)
    theirs = lambda x, y: dice(x, y) + CLASSES * focal(x, y)  # noqa: E731
    assert_same_loss(create("dice_focal"), theirs, logits, targets(kind, spatial))
