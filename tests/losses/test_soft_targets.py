"""Soft labels: which losses are smallest where the prediction equals them, and who is told that a loss is not."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch

from lossevo import losses
from lossevo.expression import Expression
from lossevo.losses import SegmentationLoss, expressible_names, expression_of, names
from lossevo.losses.base import one_hot
from lossevo.losses.neural import LearnedLoss, LossNetwork
from lossevo.losses.soft_targets import LOOKS, SoftTargetWarning, has_minimum_at_target
from lossevo.losses.symbolic import ExpressionLoss

PAGE = Path(__file__).parents[2] / "docs" / "losses" / "README.md"
LOGITS = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
SOFT = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(1)).softmax(dim=1)
LABELS = torch.randint(0, 3, (2, 1, 4, 5, 6), generator=torch.Generator().manual_seed(2))
SHARES = [number / 100 for number in range(1, 100)]


def best_shares(loss: SegmentationLoss) -> tuple[float, float]:
    """The least and largest p with the smallest loss, of a block of eight voxels whose share is 0.3."""
    inside = torch.zeros(1, 1, 6, 6, 6, dtype=torch.bool)
    inside[..., 2:4, 2:4, 2:4] = True
    share = torch.where(inside, 0.3, 0.0).double()
    target = torch.cat([1 - share, share], dim=1)
    values = []
    for p in SHARES:
        logits = torch.where(inside, torch.logit(torch.tensor(p).double()), -8.0)
        values.append(loss(torch.cat([torch.zeros_like(logits), logits], dim=1), target).item())
    found = [p for p, value in zip(SHARES, values, strict=True) if value <= min(values) + 1e-12]
    return found[0], found[-1]


def told() -> dict[str, tuple[bool, str]]:
    """What the documentation says of each loss: whether it is smallest at the target, and the best p."""
    rows = re.findall(r"^\| `(\w+)`[^|]*\| (yes|no) \| ([^|]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: (answer == "yes", best.strip()) for name, answer, best in rows}


def created(name: str) -> SegmentationLoss:
    return losses.create(name).eval()


@pytest.mark.filterwarnings("ignore::lossevo.losses.soft_targets.SoftTargetWarning")
@pytest.mark.parametrize("name", names())
def test_the_table_in_the_documentation_is_measured(name):
    is_right, best = told()[name]
    low, high = best_shares(created(name))
    assert best == (f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}")
    assert has_minimum_at_target(created(name), classes=2, axes=3) is is_right
    if is_right:
        assert (low, high) == (0.3, 0.3)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", names())
def test_whether_a_loss_is_smallest_there_does_not_depend_on_the_image(name, classes, axes):
    assert has_minimum_at_target(created(name), classes, axes) is told()[name][0]


@pytest.mark.parametrize("name", names())
def test_soft_labels_are_warned_of_once_where_the_minimum_is_elsewhere(name):
    loss = created(name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            loss(LOGITS, SOFT)
    said = [warning for warning in caught if warning.category is SoftTargetWarning]
    assert len(said) == (0 if told()[name][0] else 1)
    for warning in said:
        assert f"'{name}'" in str(warning.message)
        assert warning.filename == __file__, "it points at the caller"


@pytest.mark.parametrize("name", ["dice", "tversky", "dice_ce", "boundary"])
@pytest.mark.parametrize(
    "target",
    [LABELS, LABELS.float(), one_hot(LABELS, 3), one_hot(LABELS, 3).float(), one_hot(LABELS, 3).half()],
    ids=["labels", "labels as floats", "one-hot", "one-hot floats", "one-hot halves"],
)
def test_hard_labels_are_not_warned_of(name, target):
    with warnings.catch_warnings():
        warnings.simplefilter("error", SoftTargetWarning)
        created(name)(LOGITS, target)


def test_a_share_of_foreground_beside_one_logit_is_soft():
    with warnings.catch_warnings():
        warnings.simplefilter("error", SoftTargetWarning)
        created("dice")(LOGITS[:, :1], (LABELS == 1).float())
        with pytest.raises(SoftTargetWarning):
            created("dice")(LOGITS[:, :1], SOFT[:, :1])


def test_the_first_soft_batch_need_not_be_the_first_batch():
    loss = created("dice")
    loss(LOGITS, one_hot(LABELS, 3).float())
    with pytest.warns(SoftTargetWarning):
        loss(LOGITS, SOFT)


def test_it_is_not_looked_for_in_every_batch():
    loss = created("dice")
    for _ in range(LOOKS):
        loss(LOGITS, one_hot(LABELS, 3).float())
    assert loss.looks_for_soft_targets == 0
    loss(LOGITS, LABELS)
    assert created("dice").looks_for_soft_targets == LOOKS


@pytest.mark.parametrize("name", expressible_names())
def test_a_formula_is_measured_as_the_loss_that_it_is(name):
    module = losses.create(name, **losses.expression_parameters(name)).eval()
    formula = ExpressionLoss(expression_of(name))
    assert has_minimum_at_target(formula, 3, 3) is has_minimum_at_target(module, 3, 3)


def test_losses_that_were_found_are_measured_too():
    squared = ExpressionLoss(Expression.parse("class_mean(mean(square(p - y)))"))
    network = LearnedLoss(LossNetwork(("margin", "target"), (((1.0, -1.0),), ((1.0,),))))
    with warnings.catch_warnings():
        warnings.simplefilter("error", SoftTargetWarning)
        squared(LOGITS, SOFT)
        with pytest.raises(SoftTargetWarning, match="the loss LearnedLoss is not smallest"):
            network(LOGITS, SOFT)


def test_parameters_count():
    assert has_minimum_at_target(losses.create("dice_ce", squared_denominator=True), 2, 3)
    assert not has_minimum_at_target(losses.create("cross_entropy", weight=(1.0, 3.0)), 2, 3)


@pytest.mark.parametrize("name", ["dice_hausdorff", "softadapt", "cov_weighting", "adaptive"])
def test_nothing_of_a_loss_moves(name):
    loss = losses.create(name)
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    modes = [module.training for module in loss.modules()]
    has_minimum_at_target(loss, 2, 3)
    torch.testing.assert_close(dict(loss.state_dict()), before)
    assert [module.training for module in loss.modules()] == modes
    assert loss.looks_for_soft_targets == LOOKS


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_is_known_without_gradients_too(context):
    loss = created("cross_entropy")
    with context(), warnings.catch_warnings():
        warnings.simplefilter("error", SoftTargetWarning)
        loss(LOGITS, SOFT)
        with pytest.raises(SoftTargetWarning):
            created("dice")(LOGITS, SOFT)
