"""Lovász-softmax: a loop over the sorted errors, the Jaccard loss at every vertex, and the convex closure between."""

from __future__ import annotations

import itertools

import monai.losses
import pytest
import torch

from lossevo.losses import create
from lossevo.losses.base import one_hot
from tests.losses.voxel_loops import GEOMETRIES, assert_equals_the_loop, mean, regions


def jaccard_loss(truth, wrong):
    """1 - |G ∩ S| / |G ∪ S| of the voxel sets G and S, where S is G with the voxels ``wrong`` turned over."""
    union = truth | wrong
    return len(wrong) / len(union) if union else 0.0


def extension(errors, truth, order):
    """Σ_k m_π(k) (Δ({π(1) … π(k)}) - Δ({π(1) … π(k-1)})) for the order π."""
    return sum(
        errors[i] * (jaccard_loss(truth, set(order[: k + 1])) - jaccard_loss(truth, set(order[:k])))
        for k, i in enumerate(order)
    )


def lovasz(p, g, phi, batch=False, background=True, skip=True):
    costs = []
    for region in regions(p, g, batch, background):
        truth = {i for i, (_, y) in enumerate(region) if y}
        if truth or not skip:
            errors = [1 - x if y else x for x, y in region]
            costs.append(extension(errors, truth, sorted(range(len(errors)), key=lambda i: -errors[i])))
    return mean(costs) if costs else 0 * p[0][0][0]


VARIANTS = [
    ({}, lovasz),
    ({"batch": True}, lambda p, g, d: lovasz(p, g, d, batch=True)),
    ({"include_background": False}, lambda p, g, d: lovasz(p, g, d, background=False)),
    ({"absent": "count"}, lambda p, g, d: lovasz(p, g, d, skip=False)),
    (
        {"absent": "count", "batch": True, "include_background": False},
        lambda p, g, d: lovasz(p, g, d, batch=True, background=False, skip=False),
    ),
]


@pytest.mark.parametrize("saturated", [False, True], ids=["", "saturated"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: f"B{g[0]}C{g[1]}-{len(g[2])}D")
@pytest.mark.parametrize(("parameters", "oracle"), VARIANTS, ids=lambda x: "-".join(x) if isinstance(x, dict) else "")
def test_value_and_gradient_equal_the_loop(parameters, oracle, geometry, saturated):
    assert_equals_the_loop("lovasz", parameters, oracle, geometry, saturated)


TRUTH = [{1, 2, 4}, {0}, {0, 1, 2, 3, 4}]


def foreground_loss(probability, truth):
    """The loss of the foreground alone, of voxels with the given probabilities."""
    target = torch.tensor([float(i in truth) for i in range(len(probability))]).view(1, 1, 1, -1)
    logits = torch.as_tensor(probability, dtype=torch.float64).logit().clamp(-60, 60).view_as(target)
    return create("lovasz", include_background=False)(logits, target).item()


@pytest.mark.parametrize("truth", TRUTH, ids=str)
def test_a_hard_prediction_costs_one_minus_jaccard(truth):
    for prediction in itertools.product([0.0, 1.0], repeat=5):
        wrong = {i for i, p in enumerate(prediction) if p != (i in truth)}
        assert foreground_loss(prediction, truth) == pytest.approx(jaccard_loss(truth, wrong), abs=1e-9)


@pytest.mark.parametrize("truth", TRUTH, ids=str)
def test_between_hard_predictions_it_is_the_convex_closure(truth):
    # The convex closure of a submodular function is the largest of the linear functions that the orders give.
    generator = torch.Generator().manual_seed(len(truth))
    for _ in range(5):
        probability = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
        errors = [1 - p if i in truth else p for i, p in enumerate(probability)]
        largest = max(extension(errors, truth, order) for order in itertools.permutations(range(5)))
        assert foreground_loss(probability, truth) == pytest.approx(largest)


def test_two_voxels_by_hand():
    # Errors 0.6 (a miss) and 0.3 (a false alarm): J falls from 1 to 0 with the miss, and stays there.
    assert foreground_loss([0.4, 0.3], {0}) == pytest.approx(0.6)
    # Errors 0.7 (a false alarm) and 0.2 (a miss): J falls to 1/2, then to 0.
    assert foreground_loss([0.8, 0.7], {0}) == pytest.approx(0.7 * 0.5 + 0.2 * 0.5)


def test_an_absent_class_is_skipped_or_costs_its_largest_probability():
    logits = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.zeros(1, 1, 4, 5, dtype=torch.long)
    target[..., :2] = 1
    probability = logits.softmax(1)
    present = create("lovasz", include_background=False)(logits, target)
    every = create("lovasz", include_background=False, absent="count")(logits, target)
    torch.testing.assert_close(every, (present + probability[:, 2].max()) / 2)


def test_an_image_without_a_class_that_counts_costs_nothing():
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    value = create("lovasz", include_background=False)(logits, torch.zeros(2, 1, 4, 5))
    assert value.item() == 0
    assert not torch.autograd.grad(value, logits)[0].any()


def test_a_soft_target_is_taken_as_labels():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    soft = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64).softmax(1)
    loss = create("lovasz")
    labels = soft.argmax(1, keepdim=True)
    assert loss(logits, soft) == loss(logits, labels) == loss(logits, one_hot(labels, 3))


def test_monai_has_none_to_compare_with():
    assert not [name for name in dir(monai.losses) if "lov" in name.lower()]
