"""loss.json: what goes in comes out, and what strangers send does no harm."""

from __future__ import annotations

import contextlib
import json
import math
from datetime import datetime
from pathlib import Path

import pytest
import torch

import lossevo
from lossevo.errors import LossevoError
from lossevo.export import read_document
from lossevo.export.document import FORMAT, LossDocument, document_of, is_newer
from lossevo.expression import Expression
from lossevo.losses import expression_of
from lossevo.losses.neural import MAX_LAYERS, MAX_UNITS
from tests.networks import CROSS_ENTROPY, random_network


def _document(**changes: object) -> str:
    document = json.loads(document_of(expression_of("tversky"), {}).to_text())
    del document["sha256"]
    return json.dumps({**document, **changes})


def _expression(**changes: object) -> dict[str, object]:
    return {**expression_of("tversky").to_json(), **changes}


def test_round_trip_keeps_expression_and_metadata(tmp_path: Path) -> None:
    expression = expression_of("tversky").with_coefficients([1 / 3, 1e-9])
    metadata = {"name": "größer", "score": 0.1 + 0.2, "seeds": [1, 2]}
    path = tmp_path / "loss.json"
    path.write_text(document_of(expression, metadata).to_text(), encoding="utf-8")
    found = read_document(path)
    assert found.definition == expression
    assert {key: found.metadata[key] for key in metadata} == metadata


def test_round_trip_of_a_network_keeps_every_weight(tmp_path: Path) -> None:
    network = random_network(hidden=(MAX_UNITS,) * (MAX_LAYERS - 1))
    path = tmp_path / "loss.json"
    path.write_text(document_of(network, {"name": "the largest"}).to_text(), encoding="utf-8")
    found = read_document(path)
    assert found.definition == network
    assert found.metadata["name"] == "the largest"


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


def _network(**changes: object) -> dict[str, object]:
    return {**CROSS_ENTROPY.to_json(), **changes}


def _learned(document: object) -> str:
    return json.dumps({"format": FORMAT, "learned": document})


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
        (_document(learned=_network()), r"expected one of expression and learned, found \['expression', 'learned'\]"),
        (_learned(None), "not a loss network"),
        (_learned(_network(activation="exec")), "activation is 'exec'"),
        (_learned(_network(inputs=["margin", "__import__('os')"])), "expected some of margin"),
        (_learned(_network(layers=[[[1.0, math.nan]]])), "not finite"),
        (_learned(_network(layers=[[[1.0, 10**400]]])), "not finite"),
        (_learned(_network(layers=[[[1.0, 2.0]] * 100])), "1 to 64 rows"),
    ],
)
def test_damaged_and_hostile_documents_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "stranger.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LossevoError, match=message) as caught:
        read_document(path)
    assert str(path) in str(caught.value)


def test_a_damaged_document_is_refused_or_harmless(tmp_path: Path) -> None:
    document = document_of(expression_of("tversky"), {"name": "größer"})
    content = document.to_text().encode()
    path = tmp_path / "loss.json"
    for position in range(0, len(content) - 1, 3):
        for damaged in (content[:position], _flipped(content, position)):
            path.write_bytes(damaged)
            with contextlib.suppress(LossevoError):
                assert read_document(path).definition == document.definition


def _flipped(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ (1 << position % 8)]) + content[position + 1 :]


def test_a_digit_that_changed_is_noticed_and_may_be_meant(tmp_path: Path) -> None:
    path = tmp_path / "loss.json"
    text = document_of(expression_of("tversky"), {}).to_text()
    path.write_text(text.replace("0.3,", "0.4,"), encoding="utf-8")
    with pytest.raises(LossevoError, match=r"loss\.json is not what lossevo wrote.*remove its entry 'sha256'"):
        read_document(path)
    changed = json.loads(path.read_text(encoding="utf-8"))
    del changed["sha256"]
    path.write_text(json.dumps(changed), encoding="utf-8")
    assert read_document(path).definition.coefficients == (0.4, 0.7)


def test_what_only_a_newer_version_knows_asks_for_an_update() -> None:
    unknown = _expression(structure="class_mean(wavelet(p * y))", coefficients=[])
    for version, message in (("99.1", "lossevo '99.1' wrote it, newer than"), ("0.0.1", "wavelet[^;]*$")):
        with pytest.raises(LossevoError, match=message):
            LossDocument.from_text(_document(expression=unknown, metadata={"lossevo": version}), source="it")


@pytest.mark.parametrize(
    ("version", "than", "expected"),
    [("2.14.0", "2.13.0+cpu", True), ("2.13.0+cu128", "2.13.0+cpu", False), ("2.9", "2.13", False), (3, "2.0", False)],
)
def test_versions_are_compared_by_their_numbers(version: object, than: str, expected: bool) -> None:
    assert is_newer(version, than) is expected


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "loss.json"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(LossevoError, match="not a text file"):
        read_document(path)


def test_format_is_pinned() -> None:
    # Files of this format are out in the world: a change of the layout needs a new number.
    document = json.loads(LossDocument(expression_of("dice"), {"name": "d"}).to_text())
    assert document.pop("sha256") == "13422d26d0140690ddf2d0f3e484c9cbf0c30dfef96f884dc4c19dc7cfb6ef23"
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


def test_format_of_a_network_is_pinned() -> None:
    document = json.loads(LossDocument(CROSS_ENTROPY, {"name": "n"}).to_text())
    assert document.pop("sha256") == "29bcfe547511b11c56fdfd7ac594b73d04e98db157ab9eef5aaf8b5e0fea7dc3"
    assert document == {
        "format": FORMAT,
        "formula": "mean(softplus(network(margin, target))), 2-4-1 relu without biases",
        "learned": {
            "inputs": ["margin", "target"],
            "activation": "relu",
            "layers": [[[1.0, -20.0], [-1.0, 20.0], [1.0, 20.0], [-1.0, -20.0]], [[0.5, 0.5, -0.5, -0.5]]],
        },
        "metadata": {"name": "n"},
    }
