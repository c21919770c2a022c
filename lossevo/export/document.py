"""``loss.json``: an expression or a loss network with its provenance, as plain data.

Nothing in it is executed or unpickled: of the three files of an export it is the one to take from strangers. Its
checksum tells whether it is damaged, were it by one digit of a coefficient; a document without one, written by hand, is
read too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

import lossevo
from lossevo.documents import parse_json
from lossevo.errors import LossevoError, shown
from lossevo.expression import Expression, unicode
from lossevo.losses.definitions import KINDS, Definition, definition_in, formula_of, spec_of
from lossevo.losses.neural import LossNetwork

DOCUMENT_FILE = "loss.json"
FORMAT = "lossevo.loss/1"
FORMAT_FAMILY = "lossevo.loss/"
MAX_CHARACTERS = 1_000_000
"""A document is at most this long: a formula has at most 20 000 characters, the largest network takes half of it, the
rest is metadata.
"""


@dataclass(frozen=True, slots=True)
class LossDocument:
    """What a ``loss.json`` holds: the candidate exactly as it was evaluated, and where it comes from."""

    definition: Definition
    metadata: Mapping[str, Any]

    def to_text(self) -> str:
        """The document as JSON text; ``formula`` is there for the human reader and not read back."""
        document = {
            "format": FORMAT,
            "formula": formula_of(self.definition),
            **spec_of(self.definition),
            "metadata": dict(self.metadata),
        }
        document["sha256"] = _checksum(document)
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_text(cls, text: str, *, source: str) -> LossDocument:
        """The inverse of :meth:`to_text`; ``source`` names the text in messages. Nothing is evaluated.

        Raises:
            LossevoError: not such a document, of a newer format, or what it holds is no loss.
        """
        if len(text) > MAX_CHARACTERS:
            raise LossevoError(
                f"{source} has more characters than a loss document may have ({MAX_CHARACTERS}); is it the right file?"
            )
        try:
            document = parse_json(text, source=source, any_number=True)
            is_intact = _is_intact(document)
        except (LossevoError, ValueError) as problem:
            message = str(problem).removeprefix(f"{source}: ")
            raise LossevoError(f"{source} is not readable JSON ({message}); export the loss again") from None
        found = document.get("format") if isinstance(document, dict) else type(document).__name__
        if isinstance(found, str) and found.startswith(FORMAT_FAMILY) and found != FORMAT:
            raise LossevoError(
                f"{source} has format {shown(found)}, but lossevo {lossevo.__version__} reads {FORMAT!r};"
                " update lossevo (pip install -U lossevo), or use the loss.py beside it"
            )
        if found != FORMAT:
            raise LossevoError(f"{source} is not a lossevo loss: expected format {FORMAT!r}, found {shown(found)}")
        if not is_intact:
            raise LossevoError(
                f"{source} is not what lossevo wrote: its checksum differs. If it was damaged, export the loss again;"
                " if you changed it on purpose, remove its entry 'sha256'"
            )
        metadata = document.get("metadata", {})
        if not isinstance(metadata, dict):
            raise LossevoError(f"{source}: 'metadata' is {shown(metadata)}, expected an object")
        try:
            spec = {kind: document[kind] for kind in KINDS if kind in document}
            read = cls(definition_in(spec or {"expression": None}), metadata)
        except (LossevoError, OverflowError) as problem:
            raise LossevoError(f"{source}: {problem}{_from_the_future(metadata)}") from None
        try:
            read.to_text().encode()
        except ValueError as problem:  # 1e999, NaN, half a surrogate pair: read by Python, but no JSON
            raise LossevoError(f"{source}: 'metadata' cannot be written again ({problem})") from None
        return read


def _checksum(document: Mapping[str, Any]) -> str:
    """SHA-256 of all entries but the checksum, whatever their order and the white space between them."""
    entries = {name: value for name, value in document.items() if name != "sha256"}
    text = json.dumps(entries, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()


def _is_intact(document: Any) -> bool:
    return not (isinstance(document, dict) and "sha256" in document) or document["sha256"] == _checksum(document)


def _from_the_future(metadata: Mapping[str, Any]) -> str:
    """A hint where a newer lossevo, whose language may know more, wrote the document."""
    if not is_newer(metadata.get("lossevo"), lossevo.__version__):
        return ""
    return (
        f"; lossevo {shown(metadata['lossevo'])} wrote it, newer than the {lossevo.__version__} here:"
        " update lossevo (pip install -U lossevo), or use the loss.py beside it"
    )


def is_newer(version: object, than: str) -> bool:
    """Whether a version such as ``2.13.0+cpu`` comes after another; what is no version does not."""
    return isinstance(version, str) and _numbers(version) > _numbers(than)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d{1,9}", version.partition("+")[0])[:3]]


def document_of(definition: Definition, metadata: Mapping[str, Any]) -> LossDocument:
    """The document of a loss to be exported; versions and date are added where ``metadata`` does not give them.

    Raises:
        LossevoError: neither an expression nor a loss network, an expression that does not depend on the prediction,
            or metadata that is not JSON.
    """
    if not isinstance(definition, Expression | LossNetwork):
        raise LossevoError(
            f"only an Expression or a LossNetwork can be exported, not {definition!r}; a hand-crafted loss that can be"
            " written as an expression is given by lossevo.losses.expression_of(name)"
        )
    if isinstance(definition, Expression) and not definition.terminals & {"p", "logp", "m"}:
        raise LossevoError(
            f"the loss {unicode(definition)} does not depend on the prediction (p, logp or m): it trains nothing"
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    document = LossDocument(definition, {**metadata, **_missing(metadata, now)})
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
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise LossevoError(f"{path} is no regular file; give a {DOCUMENT_FILE}")
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except OSError as problem:
        raise LossevoError(f"cannot read {path}: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise LossevoError(f"{path} is not a text file; export the loss again") from None
    return LossDocument.from_text(text, source=str(path))
