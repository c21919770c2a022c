"""Memory that is used again: never while somebody has it, never more than is allowed."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from lossevo.expression import Expression, memory
from lossevo.expression.memory import guarded, map_like, pixels_like, release
from lossevo.expression.safe_math import guard
from lossevo.losses import expression_of
from lossevo.losses.symbolic import ExpressionLoss


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_kept", memory._Kept())


def _map(*shape: int) -> Tensor:
    return torch.zeros(shape or (1, 2, 3, 4))


def test_what_is_released_is_used_again() -> None:
    x = _map()
    address = x.data_ptr()
    release(x)
    del x
    found = map_like(_map())
    assert found.data_ptr() == address
    assert map_like(_map()).data_ptr() != address
    assert pixels_like(found).shape == (1, 1, 3, 4)


def test_of_another_shape_or_type_nothing_is_used() -> None:
    x = _map(1, 2, 3, 4)
    release(x)
    assert map_like(_map(1, 2, 4, 3)).data_ptr() != x.data_ptr()
    assert map_like(_map().double()).dtype == torch.float64


def test_memory_format_is_kept() -> None:
    x = _map(1, 2, 3, 4).to(memory_format=torch.channels_last)
    release(x)
    assert map_like(x).is_contiguous(memory_format=torch.channels_last)


def test_no_more_is_kept_than_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "KEPT_BYTES", 3 * _map().nbytes)
    for _ in range(5):
        release(_map())
    assert memory._kept.bytes == 3 * _map().nbytes
    release(_map(2, 2, 3, 4))
    assert [len(maps) for maps in memory._kept.maps.values() if maps] == [1], "an earlier size makes room"


def test_threads_share_nothing() -> None:
    release(_map())
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(memory._kept.bytes))
    thread.start()
    thread.join()
    assert found == [0]


def test_a_denominator_is_guarded_as_in_exported_code() -> None:
    x = torch.tensor([0.0, -0.0, 1e-9, -1e-9, 3.0, -5.0, float("inf"), float("-inf"), float("nan")])
    expected = guard(x)
    torch.testing.assert_close(guarded(x, torch.empty_like(x)), expected, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(guarded(x, x), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    "formula", ["1 - foreground_mean(2 * sum(p * y) / sum(p + y))", "class_mean(mean((1 - p) ^ 1.5 * y * logp / d))"]
)
def test_results_do_not_depend_on_what_memory_holds(formula: str) -> None:
    """Gradients that are still in use stay as they are; whatever was in memory before does not count."""
    generator = torch.Generator().manual_seed(0)
    loss = ExpressionLoss(Expression.parse(formula))
    kept = []
    for round_ in range(4):
        for shape in ((2, 3, 6, 5), (1, 2, 4, 4, 3)):
            generator.manual_seed(sum(shape))
            logits = torch.randn(shape, generator=generator).requires_grad_()
            labels = torch.randint(0, shape[1], (shape[0], 1, *shape[2:]), generator=generator)
            distance = torch.randn(shape, generator=generator)
            value = loss(logits, labels, distance if loss.uses_distance_map else None)
            (gradient,) = torch.autograd.grad((round_ % 2 + 1) * value, logits)
            kept.append((shape, gradient / (round_ % 2 + 1), gradient, gradient.clone()))
            release(torch.full(shape, float("nan")))
    for shape, scaled, gradient, copy in kept:
        assert torch.equal(gradient, copy), "a gradient in use was written to"
        first = next(other for other_shape, other, _, _ in kept if other_shape == shape)
        assert torch.equal(scaled, first)


def test_a_graph_that_is_kept_gives_the_same_gradient_again() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.ones(2, 1, 4, 5, dtype=torch.long)
    value = 3 * ExpressionLoss(expression_of("dice"))(logits, labels)
    first, second = (torch.autograd.grad(value, logits, retain_graph=True)[0] for _ in range(2))
    (last,) = torch.autograd.grad(value, logits)
    assert torch.equal(first, second)
    assert torch.equal(first, last)
    assert len({x.data_ptr() for x in (first, second, last)}) == 3


def test_gradients_of_a_batch_of_weights() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.ones(2, 1, 4, 5, dtype=torch.long)
    loss = ExpressionLoss(expression_of("dice"))
    (one,) = torch.autograd.grad(loss(logits, labels), logits)
    weights = torch.tensor([1.0, 2.0, -1.0])
    (many,) = torch.autograd.grad(loss(logits, labels), logits, weights, is_grads_batched=True)
    torch.testing.assert_close(many, weights.view(3, 1, 1, 1, 1) * one)
