from __future__ import annotations

import numpy as np
import pytest
import torch

from lossevo.losses import expression_of
from lossevo.losses.symbolic import ExpressionLoss
from lossevo.search.space import load_space
from lossevo.search.strategies.auto_seg_loss import metric_form
from lossevo.search.strategy_settings import AutoSegLoss

LOGITS = 3 * torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.randint(0, 3, (2, 1, 4, 5), generator=torch.Generator().manual_seed(1))


def form(metric: str, control_points: int = 4):
    return metric_form(AutoSegLoss(kind="auto_seg_loss", metric=metric, control_points=control_points))


@pytest.mark.parametrize(("metric", "loss"), [("iou", "jaccard"), ("dice", "dice")])
@pytest.mark.parametrize("control_points", [1, 4])
def test_straight_curves_are_the_soft_metric(metric, loss, control_points):
    made = form(metric, control_points)
    assert len(made.start) == 2 * control_points
    found = ExpressionLoss(made.expression(made.start))(LOGITS, LABELS)
    torch.testing.assert_close(found, ExpressionLoss(expression_of(loss))(LOGITS, LABELS))


@pytest.mark.parametrize("metric", ["iou", "dice"])
def test_of_certain_predictions_it_is_the_metric_whatever_the_curves_are(metric):
    """The truth table: AND and OR of 0 and 1 are what they are."""
    certain, soft = 200 * LOGITS, form(metric)
    straight = ExpressionLoss(soft.expression(soft.start))(certain, LABELS)
    values = set()
    for vector in np.random.default_rng(2).normal(0, 1, size=(10, 8)):
        loss = ExpressionLoss(soft.expression(vector))
        torch.testing.assert_close(loss(certain, LABELS), straight, rtol=1e-4, atol=1e-4)
        values.add(round(float(loss(LOGITS, LABELS)), 6))
    assert len(values) == 10


def test_the_search_begins_with_the_soft_metric():
    space = load_space("auto_seg_loss")
    assert (space.strategy.metric, space.seeds) == ("iou", ("jaccard",))
