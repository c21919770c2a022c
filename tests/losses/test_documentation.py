"""What is told of a loss: every parameter is explained, no explanation is stale, and what is told to be run runs."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict

import pytest
import torch

from lossevo.errors import LossevoError
from lossevo.expression import Expression
from lossevo.losses import create, describe, explain, expressible_names, expression_of, names, parameters
from lossevo.losses.documentation import split_docstring

LOGITS = torch.randn(2, 2, 6, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.zeros(2, 1, 6, 8, 8, dtype=torch.long)
LABELS[:, :, 2:4, 2:6, 3:6] = 1


@pytest.mark.parametrize("name", names())
class TestEveryLoss:
    def test_every_parameter_has_an_entry_and_no_entry_is_stale(self, name):
        loss = type(create(name))
        assert loss.__doc__, "a loss has a docstring of its own, not its parent's"
        _, entries = split_docstring(inspect.getdoc(loss))
        assert list(entries) == list(parameters(name)), "Args: names the parameters, in the constructor's order"
        assert all(entries.values())

    def test_it_is_described_in_lines_of_one_tone(self, name):
        description = describe(name)
        for text in (description.summary, description.purpose):
            assert text.endswith(".")
            assert text[0].isupper() or text.startswith(names())
            assert "\n" not in text
            assert len(text) <= 120
        for text in (description.formula, description.source):
            assert text
            assert not text.endswith(".")
            assert "\n" not in text

    def test_explanation(self, name):
        explanation = explain(name)
        assert explanation.name == name
        assert explanation.text
        for text in (explanation.text, *(parameter.meaning for parameter in explanation.parameters)):
            assert "`" not in text
            assert ":class:" not in text
        assert {parameter.name: parameter.default for parameter in explanation.parameters} == parameters(name)
        json.dumps(asdict(explanation))

    def test_expression(self, name):
        expression = explain(name).expression
        assert (expression is not None) is (name in expressible_names())
        if expression is not None:
            assert Expression.parse(expression) == expression_of(name)

    def test_usage_runs(self, name):
        logits = LOGITS.clone().requires_grad_()
        scope = {"logits": logits, "target": LABELS}
        exec(explain(name).usage, scope)
        assert scope["value"].isfinite()
        assert logits.grad.isfinite().all()
        assert ("loss.step()" in explain(name).usage) is explain(name).has_schedule


def test_an_unknown_loss_is_a_clear_error():
    with pytest.raises(LossevoError, match="unknown loss 'focl' \\(did you mean 'focal'"):
        explain("focl")


def test_tversky():
    explanation = explain("tversky")
    assert explanation.text.startswith("Tversky loss, mean over regions of 1 - TP / (TP + w_fp FP + w_fn FN + smooth).")
    assert [(item.name, item.default, item.meaning) for item in explanation.parameters[:2]] == [
        ("w_fp", 0.3, "weight of false positives."),
        ("w_fn", 0.7, "weight of false negatives."),
    ]
    assert not explanation.uses_distance_map
    assert explain("boundary").uses_distance_map


class TestSplitDocstring:
    def test_text_and_entries(self):
        text, entries = split_docstring(
            "First line\ngoes on.\n\nSecond, of :class:`~a.b.Dice`, *all* and ``(B, *spatial)``:\n\n"
            "- one\n  item\n- two\n\n    a = b,  c\n    d\n\n== ==\nx  y\n== ==\n\n"
            "Args:\n    a: first, which\n        goes on: here.\n    b (float): second.\n\n        And more.\n"
            "    c:\n        third.\n\nRaises:\n    ValueError: never.\n"
        )
        assert (
            text
            == "First line goes on.\nSecond, of Dice, all and (B, *spatial):\n- one item\n- two\na = b,  c\nd\nx  y"
        )
        assert entries == {"a": "first, which goes on: here.", "b": "second.\nAnd more.", "c": "third."}

    def test_without_sections(self):
        assert split_docstring("Only text.") == ("Only text.", {})

    def test_empty(self):
        assert split_docstring("") == ("", {})

    def test_a_formula_with_a_colon_is_no_section(self):
        assert split_docstring("Args are none:\n    x: y")[1] == {}
