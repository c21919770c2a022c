"""A device without float64, Apple's MPS: losses move there, and compute nothing in float64 unless they are asked to.

There is no such device in our CI. What MPS does is imitated: it refuses a float64 tensor with a TypeError.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lossevo import losses
from lossevo.export.document import document_of
from lossevo.export.load import load
from lossevo.export.program import save_program
from lossevo.export.source import source_of
from lossevo.expression import Expression
from lossevo.losses.neural import LearnedLoss, LossNetwork
from lossevo.losses.symbolic import ExpressionLoss
from tests.losses.every_loss import every_loss, example

FORMULA = "0.3 * foreground_mean(sum(p * y) / sum(p + y)) + t * class_mean(mean(p * d)) + 0.7 * class_mean(mean(m * y))"
NETWORK = LossNetwork(("margin", "target"), (((0.5, -1.0), (0.3, 0.1)), ((1.0, 0.7),)))


def without_float64(tensor: Tensor) -> Tensor:
    """What ``tensor.to("mps")`` does, as far as types go."""
    if tensor.dtype == torch.float64:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")
    return tensor.clone()


class _NoFloat64(TorchDispatchMode):
    """Refuses every operation that makes a float64 tensor."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for made in result if isinstance(result, tuple | list) else [result]:
            if isinstance(made, Tensor) and made.dtype == torch.float64:
                raise TypeError(f"{function} makes float64")
        return result


def assert_moves_and_trains(loss: nn.Module, **inputs: Tensor) -> None:
    loss._apply(without_float64)
    assert not [name for name, tensor in loss.state_dict().items() if tensor.dtype == torch.float64]
    assert not [buffer for buffer in loss.buffers() if buffer.dtype == torch.float64]
    logits, target = example(3, (6, 7, 8), dtype=torch.float32)
    with _NoFloat64():
        for _ in range(2):
            loss(logits, target, **inputs).backward()
            if hasattr(loss, "step"):
                loss.step()
    assert logits.grad.isfinite().all()


@every_loss
def test_every_loss_moves_to_a_device_without_float64_and_trains_there(name, parameters):
    assert_moves_and_trains(losses.create(name, **parameters))


def test_losses_that_were_found():
    distance_map = torch.randn(2, 3, 6, 7, 8)
    assert_moves_and_trains(ExpressionLoss(Expression.parse(FORMULA)), distance_map=distance_map)
    assert_moves_and_trains(LearnedLoss(NETWORK))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    for name, definition in (("formula", Expression.parse(FORMULA)), ("network", NETWORK)):
        document = document_of(definition, {})
        (folder / name).mkdir()
        (folder / name / "loss.json").write_text(document.to_text())
        (folder / name / "loss.py").write_text(source_of(document))
        save_program(document, folder / name / "loss.pt2")
    return folder


@pytest.mark.parametrize("file", ["loss.json", "loss.py", "loss.pt2"])
@pytest.mark.parametrize("what", ["formula", "network"])
def test_exported_losses(exported, what, file):
    maps = {"distance_map": torch.randn(2, 3, 6, 7, 8)} if what == "formula" else {}
    assert_moves_and_trains(load(exported / what / file), **maps)


def test_the_program_without_lossevo_moves_as_float32(exported):
    module = torch.export.load(exported / "formula" / "loss.pt2").module().float()
    module._apply(without_float64)


@pytest.mark.parametrize("loss", [ExpressionLoss(Expression.parse(FORMULA)), LearnedLoss(NETWORK)], ids=type)
def test_float64_is_kept_where_there_is_float64(loss):
    before = {name: tensor.clone() for name, tensor in loss.state_dict().items()}
    nn.Sequential(loss).half().to("cpu").float()
    torch.testing.assert_close(dict(loss.state_dict()), before, rtol=0, atol=0)
    assert {tensor.dtype for tensor in loss.buffers()} == {torch.float64}


def test_another_mistake_is_not_hidden():
    def broken(tensor: Tensor) -> Tensor:
        raise TypeError("something else")

    with pytest.raises(TypeError, match="something else"):
        ExpressionLoss(Expression.parse(FORMULA))._apply(broken)
