"""Losses that installed packages bring."""

from __future__ import annotations

import sys

import pytest
import torch

from lossevo.errors import LossevoError
from lossevo.losses import create, describe, explain, from_spec, installed_losses, names, parameters
from lossevo.losses.catalogue import named_spec
from tests.packages import install

CODE = '''
import torch
from torch import nn
from lossevo.losses import Description, SegmentationLoss

class Power(nn.Module):
    """Error to a power.

    Args:
        power: the exponent.
    """

    def __init__(self, power=2.0, weights=(1, 2)):
        super().__init__()
        self.power = power

    def forward(self, logits, labels):
        return (logits.softmax(1)[:, 1:] - labels).abs().pow(self.power).mean()

class Ours(SegmentationLoss):
    """Ours."""
    uses_distance_map = True
    description = Description("ours", "region", "A summary.", "Σ p", "A paper", "A purpose.")
    def compute(self, inputs):
        return inputs.probability.mean()

class NoLoss:
    pass
'''
LOGITS, LABELS = torch.zeros(1, 2, 3, 3), torch.zeros(1, 1, 3, 3)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installs a package with these losses."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(losses: dict[str, str], **how: str) -> None:
        install(tmp_path, losses, CODE, **how)

    yield make
    for module in [name for name in sys.modules if name.startswith("their_losses")]:
        del sys.modules[module]


def test_they_have_names_beside_the_catalogue(package):
    package({"power": "their_losses:Power", "ours": "their_losses:Ours"})
    assert [(loss.name, loss.distribution) for loss in installed_losses()] == [
        ("ours", "their-losses 1.2"),
        ("power", "their-losses 1.2"),
    ]
    assert "their_losses" not in sys.modules  # not before it is asked for
    assert "power" not in names()
    assert create("power")(LOGITS, LABELS) == 0.25
    assert create("power", power=1.0)(LOGITS, LABELS) == 0.5
    assert parameters("power") == {"power": 2.0, "weights": (1, 2)}
    assert describe("power").family == "installed"
    assert describe("power").source == "their-losses 1.2"
    with pytest.raises(LossevoError, match=r"unknown loss 'powr' \(did you mean 'power'\?\)"):
        create("powr")
    with pytest.raises(LossevoError, match=r"loss 'power' of their-losses 1.2 has no parameter 'x'"):
        create("power", x=1)


def test_what_is_told_of_them(package):
    package({"power": "their_losses:Power", "ours": "their_losses:Ours"})
    explanation = explain("power")
    assert (explanation.text, explanation.distribution) == ("Error to a power.", "their-losses 1.2")
    assert [(one.name, one.default, one.meaning) for one in explanation.parameters] == [
        ("power", 2.0, "the exponent."),
        ("weights", "(1, 2)", ""),
    ]
    ours = explain("ours")
    assert (ours.formula, ours.summary, ours.family, ours.uses_distance_map) == ("Σ p", "A summary.", "installed", True)
    assert explain("dice").distribution is None


def test_a_specification_holds_the_version(package):
    package({"power": "their_losses:Power"})
    spec = named_spec("power", power=1.0)
    assert spec == {"name": "power", "parameters": {"power": 1.0}, "distribution": "their-losses 1.2"}
    assert named_spec("dice") == {"name": "dice"}
    assert from_spec(spec)(LOGITS, LABELS) == 0.5
    with pytest.raises(LossevoError, match=r"that of 'their-losses 1.1', but here it is that of their-losses 1.2"):
        from_spec(spec | {"distribution": "their-losses 1.1"})
    with pytest.raises(LossevoError, match="here it is that of lossevo"):
        from_spec({"name": "dice", "distribution": "their-losses 1.1"})


def test_one_that_cannot_be_used(package):
    package(
        {
            "dice": "their_losses:Power",
            "all": "their_losses:Power",
            "a,b": "their_losses:Power",
            "gone": "their_losses_elsewhere:Power",
            "missing": "their_losses:Pwer",
            "no_loss": "their_losses:NoLoss",
        }
    )
    package({"no_loss": "their_losses:Power"}, name="their-losses-again", version="3")
    messages = {}
    for loss in installed_losses():
        with pytest.raises(LossevoError) as problem:
            loss.factory()
        messages.setdefault(loss.name, str(problem.value))
    assert "the name is lossevo's own" in messages["dice"]
    assert "the name is lossevo's own" in messages["all"]
    assert "this is no name of a loss" in messages["a,b"]
    assert "their_losses_elsewhere:Power) cannot be imported: ModuleNotFoundError" in messages["gone"]
    assert "(their_losses:Pwer) cannot be imported: AttributeError" in messages["missing"]
    assert "their-losses 1.2 brings a loss of this name too" in messages["no_loss"]
    assert type(create("dice")).__module__ == "lossevo.losses.region"
    for name in ("gone", "missing", "no_loss"):
        with pytest.raises(LossevoError, match=f"loss '{name}' of "):
            create(name)


def test_one_that_is_no_loss(package):
    package({"no_loss": "their_losses:NoLoss"})
    with pytest.raises(LossevoError, match=r"loss 'no_loss' of their-losses 1.2 .* is <class .*expected a subclass"):
        create("no_loss")
