"""The tables of docs/loss-language.md are those of the primitive table."""

from __future__ import annotations

from pathlib import Path

from lossevo.expression.reference import markdown

DOCUMENT = Path(__file__).parents[2] / "docs" / "loss-language.md"


def test_the_document_holds_the_tables_as_printed() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    written = text.split("<!-- reference -->")[1].split("<!-- /reference -->")[0]
    assert written.strip() == markdown().strip(), "run: python -m lossevo.expression.reference, and paste the tables"
