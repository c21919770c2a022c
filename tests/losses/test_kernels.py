"""The hand-written derivatives: first and second, against plain autograd; what they keep; and how they can be used."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import grad, gradcheck, gradgradcheck

from lossevo.losses import create, kernels
from lossevo.losses.base import one_hot

CLASSES = 3


def example(spatial=(2, 3, 2), dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, CLASSES, *spatial, generator=generator, dtype=dtype, requires_grad=True)
    return logits, torch.randint(0, CLASSES, (2, 1, *spatial), generator=generator)


KERNELS = {
    "region_sums": lambda x, y: kernels.region_sums(x.softmax(1), y)[:2],
    "region_sums-squared": lambda x, y: kernels.region_sums(x.softmax(1), y, squared=True)[:2],
    "error_sums": lambda x, y: kernels.error_sums(x.softmax(1), y)[:2],
    "target_log_probability": lambda x, y: kernels.target_log_probability(x, x.softmax(1), y),
    "of_target": lambda x, y: kernels.of_target(x**2, y),
    "focal_term": lambda x, y: kernels.focal_term(x.log_softmax(1), 2.5),
    "focal_term-floor": lambda x, y: kernels.focal_term(x.log_softmax(1), 0.5, 0.4),
}
every_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())


@every_kernel
@pytest.mark.parametrize("spatial", [(3, 2), (2, 1, 2)], ids=["2D", "3D"])
def test_first_and_second_derivative(kernel, spatial):
    logits, target = example(spatial)
    assert gradcheck(lambda x: kernel(x, target), logits)
    assert gradgradcheck(lambda x: kernel(x, target), logits)


@pytest.mark.parametrize("name", list(KERNELS)[:3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bool])
def test_labels_one_hot_and_soft_targets_give_the_same_sums(name, dtype):
    logits, target = example()
    hot = one_hot(target, CLASSES)
    expected = KERNELS[name](logits, hot.double())
    weights = [torch.randn(2, CLASSES, dtype=torch.float64) for _ in expected]
    (gradient,) = grad(sum((w * v).sum() for w, v in zip(weights, expected, strict=True)), logits)
    for given in (hot.to(dtype), *([target.to(dtype)] if dtype != torch.bool else [])):
        found = KERNELS[name](logits, given)
        torch.testing.assert_close(found, expected)
        (found_gradient,) = grad(sum((w * v).sum() for w, v in zip(weights, found, strict=True)), logits)
        torch.testing.assert_close(found_gradient, gradient)


def test_a_soft_target_has_a_gradient_of_its_own():
    logits, _ = example()
    target = torch.randn_like(logits).softmax(1).detach().requires_grad_()
    for name in ("dice", "sensitivity_specificity", "dice_ce"):
        (gradient,) = grad(create(name)(logits.detach(), target), target)
        assert gradient.abs().sum() > 0


def test_target_log_probability_is_exact_where_the_probability_underflows():
    logits = torch.tensor([[[[200.0]], [[0.0]], [[-1e4]]]], requires_grad=True)
    for label, expected in ((0, 0.0), (1, -200.0), (2, -10200.0)):
        target = torch.full((1, 1, 1, 1), label)
        value = kernels.target_log_probability(logits, logits.softmax(1), target).sum()
        assert value.item() == expected
        (gradient,) = grad(value, logits)
        torch.testing.assert_close(gradient, one_hot(target, 3).float() - logits.softmax(1))


def test_float32_sums_of_a_million_voxels_lose_no_digit():
    generator = torch.Generator().manual_seed(1)
    probability = torch.randn(1, 2, 100, 100, 100, generator=generator).softmax(1)
    target = torch.randint(0, 2, (1, 1, 100, 100, 100), generator=generator)
    for squared in (False, True):
        single = kernels.region_sums(probability, target, squared=squared)
        double = kernels.region_sums(probability.double(), target, squared=squared)
        for a, b in zip(single, double, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=3e-7, atol=0)


def saved_bytes(loss, logits, target):
    """Bytes kept for the backward pass per byte of the logits; logits and target themselves are not counted."""
    given = {tensor.untyped_storage().data_ptr() for tensor in (logits, target)}
    blocks = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            blocks[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(logits, target)
    return sum(blocks.values()) / logits.untyped_storage().nbytes()


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, 1) for name in ("cross_entropy", "dice", "generalized_dice", "jaccard", "tversky", "dice_ce")),
        *((name, 1) for name in ("asymmetric_similarity", "sensitivity_specificity", "focal_tversky")),
        # Beside p, log p of the true class.
        *((name, 1 + 1 / CLASSES) for name in ("focal", "dice_focal")),
        # Beside p, the weight of each voxel.
        *((name, 1 + 1 / CLASSES) for name in ("topk", "dice_topk")),
    ],
)
def test_no_more_is_kept_than_the_probability(name, expected, dtype):
    logits, target = example((12, 12, 12), torch.float32)
    assert saved_bytes(create(name), logits, target.to(dtype)) == pytest.approx(expected, rel=0.02)


NAMES = ("cross_entropy", "focal", "dice", "tversky", "sensitivity_specificity", "dice_ce", "dice_focal", "exp_log")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("hard", [True, False], ids=["labels", "soft"])
def test_second_derivative_of_losses(name, hard):
    logits, target = example((2, 2))
    target = target if hard else F.one_hot(target[:, 0], CLASSES).movedim(-1, 1).double() * 0.7 + 0.1
    assert gradgradcheck(lambda x: create(name)(x, target), logits)


@pytest.mark.parametrize("name", NAMES)
def test_torch_func_gives_the_same_gradient(name):
    logits, target = example()
    loss = create(name)
    (expected,) = grad(loss(logits, target), logits)
    call = lambda x: torch.func.functional_call(loss, {}, (x, target))  # noqa: E731
    torch.testing.assert_close(torch.func.grad(call)(logits.detach()), expected)
    direction = torch.ones_like(logits) + logits.detach()
    product = torch.func.vjp(torch.func.grad(call), logits.detach())[1](direction)[0]
    (gradient,) = grad(loss(logits, target), logits, create_graph=True)
    torch.testing.assert_close(product, grad(gradient, logits, direction)[0])


@pytest.mark.parametrize("name", [*NAMES, "topk", "focal_tversky"])
def test_a_compiled_graph_gives_the_same(name):
    torch.compiler.reset()
    logits, target = example()
    loss = create(name)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    values = [call(logits, target) for call in (loss, compiled)]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(grad(value, logits)[0] for value in values))
