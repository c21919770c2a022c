"""``loss.json``: an expression with its provenance, as plain data.

Nothing in it is executed or unpickled: of the three files of an export it is the one to take from strangers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import lossevo
from lossevo.errors import LossevoError
from lossevo.expression import Expression, unicode

DOCUMENT_FILE = "loss.json"
FORMAT = "lossevo.loss/1"
FORMAT_FAMILY = "lossevo.loss/"
MAX_CHARACTERS = 1_000_000
"""A document is at most this long: a formula has at most 20 000 characters, the rest is metadata."""


@dataclass(frozen=True, slots=True)
class LossDocument:
    """What a ``loss.json`` holds: the candidate exactly as it was evaluated, and where it comes from."""

    expression: Expression
    metadata: Mapping[str, Any]

    def to_text(self) -> str:
        """The document as JSON text; ``formula`` is there for the human reader and not read back."""
        document = {
            "format": FORMAT,
            "formula": unicode(self.expression),
            "expression": self.expression.to_json(),
            "metadata": dict(self.metadata),
        }
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_text(cls, text: str, *, source: str) -> LossDocument:
        """The inverse of :meth:`to_text`; ``source`` names the text in messages. Nothing is evaluated.

        Raises:
            LossevoError: not such a document, of a newer format, or its expression is not one.
        """
        if len(text) > MAX_CHARACTERS:
            raise LossevoError(
                f"{source} has more characters than a loss document may have ({MAX_CHARACTERS}); is it the right file?"
            )
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as problem:
            raise LossevoError(f"{source} is not readable JSON ({problem}); export the loss again") from None
        found = document.get("format") if isinstance(document, dict) else type(document).__name__
        if isinstance(found, str) and found.startswith(FORMAT_FAMILY) and found != FORMAT:
            raise LossevoError(
                f"{source} has format {found!r}, but lossevo {lossevo.__version__} reads {FORMAT!r};"
                " update lossevo (pip install -U lossevo), or use the loss.py beside it"
            )
        if found != FORMAT:
            raise LossevoError(f"{source} is not a lossevo loss: expected format {FORMAT!r}, found {found!r}")
        metadata = document.get("metadata", {})
        if not isinstance(metadata, dict):
            raise LossevoError(f"{source}: 'metadata' is {metadata!r}, expected an object")
        try:
            return cls(Expression.from_json(document.get("expression")), metadata)
        except (LossevoError, OverflowError) as problem:
            raise LossevoError(f"{source}: {problem}") from None


def document_of(expression: Expression, metadata: Mapping[str, Any]) -> LossDocument:
    """The document of a loss to be exported; versions and date are added where ``metadata`` does not give them.

    Raises:
        LossevoError: not an expression, one that does not depend on the prediction, or metadata that is not JSON.
    """
    if not isinstance(expression, Expression):
        raise LossevoError(
            f"only an Expression can be exported, not {expression!r}; a hand-crafted loss that can be written as one"
            " is given by lossevo.losses.expression_of(name)"
        )
    if not expression.terminals & {"p", "logp"}:
        raise LossevoError(
            f"the loss {unicode(expression)} does not depend on the prediction (p or logp): it trains nothing"
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    document = LossDocument(expression, {**metadata, **_missing(metadata, now)})
    try:
        text = document.to_text()
    except (TypeError, ValueError) as problem:
        raise LossevoError(
            f"metadata cannot be written as JSON ({problem}); give text, finite numbers, lists and dictionaries"
        ) from None
    return LossDocument.from_text(text, source="metadata")


def _missing(metadata: Mapping[str, Any], now: str) -> dict[str, str]:
    defaults = {"lossevo": lossevo.__version__, "torch": str(torch.__version__), "date": now}
    return {key: value for key, value in defaults.items() if key not in metadata}


def read_document(path: Path) -> LossDocument:
    """Read a ``loss.json``, from whomever it comes.

    Raises:
        LossevoError: the file cannot be read, or is not such a document; the message names it.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except OSError as problem:
        raise LossevoError(f"cannot read {path}: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise LossevoError(f"{path} is not a text file; export the loss again") from None
    return LossDocument.from_text(text, source=str(path))
