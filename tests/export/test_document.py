"""loss.json: what goes in comes out, and what strangers send does no harm."""

from __future__ import annotations

import json
import math
from datetime import datetime
from pathlib import Path

import pytest
import torch

import lossevo
from lossevo.errors import LossevoError
from lossevo.export import read_document
from lossevo.export.document import FORMAT, LossDocument, document_of
from lossevo.expression import Expression
from lossevo.losses import expression_of


def _document(**changes: object) -> str:
    document = json.loads(document_of(expression_of("tversky"), {}).to_text())
    return json.dumps({**document, **changes})


def _expression(**changes: object) -> dict[str, object]:
    return {**expression_of("tversky").to_json(), **changes}


def test_round_trip_keeps_expression_and_metadata(tmp_path: Path) -> None:
    expression = expression_of("tversky").with_coefficients([1 / 3, 1e-9])
    metadata = {"name": "größer", "score": 0.1 + 0.2, "seeds": [1, 2]}
    path = tmp_path / "loss.json"
    path.write_text(document_of(expression, metadata).to_text(), encoding="utf-8")
    found = read_document(path)
    assert found.expression == expression
    assert {key: found.metadata[key] for key in metadata} == metadata


def test_versions_and_date_are_added_where_they_are_missing() -> None:
    found = document_of(expression_of("dice"), {"torch": "2.8.0"}).metadata
    assert found["lossevo"] == lossevo.__version__
    assert found["torch"] == "2.8.0"
    assert datetime.fromisoformat(found["date"]).tzinfo is not None
    assert document_of(expression_of("dice"), {}).metadata["torch"] == torch.__version__


@pytest.mark.parametrize("value", [math.nan, torch.zeros(2), {1, 2}])
def test_metadata_that_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(LossevoError, match="metadata cannot be written as JSON"):
        document_of(expression_of("dice"), {"score": value})


def test_only_an_expression_that_depends_on_the_prediction_is_a_loss() -> None:
    with pytest.raises(LossevoError, match="does not depend on the prediction"):
        document_of(Expression.parse("class_mean(mean(y))"), {})
    with pytest.raises(LossevoError, match="expression_of"):
        document_of({"name": "dice"}, {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not readable JSON"),
        (_document()[:100], "not readable JSON"),
        ("[" * 100_000, "not readable JSON"),
        ("[]", "found 'list'"),
        ("{}", "found None"),
        ('{"format": "lossevo.expression/1"}', "expected format 'lossevo.loss/1'"),
        (_document(format="lossevo.loss/2"), "update lossevo"),
        (_document(metadata=[1]), "'metadata' is"),
        (_document(expression=None), "not an expression"),
        (_document(expression=_expression(format="lossevo.expression/2")), "lossevo.expression/2"),
        (_document(expression=_expression(structure="__import__('os')")), "__import__"),
        (_document(expression=_expression(structure="class_mean(mean(p))")), "coefficient"),
        (_document(expression=_expression(coefficients=[0.3, math.nan])), "finite"),
        (_document(expression=_expression(coefficients=[0.3, 10**400])), "c1|too large"),
        (_document(expression=_expression(coefficients=[0.3, "0.7"])), "numbers"),
        (_document(padding="x" * 2_000_000), "more characters"),
    ],
)
def test_damaged_and_hostile_documents_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "stranger.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LossevoError, match=message) as caught:
        read_document(path)
    assert str(path) in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "loss.json"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(LossevoError, match="not a text file"):
        read_document(path)


def test_format_is_pinned() -> None:
    # Files of this format are out in the world: a change of the layout needs a new number.
    document = json.loads(LossDocument(expression_of("dice"), {"name": "d"}).to_text())
    assert document == {
        "format": FORMAT,
        "formula": "1 − μᶠ[2 · Σ[p · y] / Σ[p + y]]",
        "expression": {
            "format": "lossevo.expression/1",
            "structure": "1 - foreground_mean(2 * sum(p * y) / sum(p + y))",
            "coefficients": [],
        },
        "metadata": {"name": "d"},
    }
