"""No cell of a CSV file is a formula, and what is read back is what was written."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

import lossevo
from lossevo.csv_files import cell, csv_text, text_of

FORMULAS = [
    "=1+1", "=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "  -x",
    "-log(p)", "-0.5 ± 0.1",    "＝1", "'=1", "''-x", "- dice", "+", "-", "=",
]  # fmt: skip
PLAIN = ["dice", "1-p", "a=b", "'quoted'", "", "p", "−log p", "'", "x\ty", "a\rb", "a\nb", "dice_ce", "L1"]
NUMBERS = ["-0.5", "+3", "-1e-5", "-.5", "-inf", "-nan", "0.771200", "-12."]


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_become_text(text: str):
    written = cell(text)
    assert written == f"'{text}"
    assert text_of(str(written)) == text


@pytest.mark.parametrize("value", [*PLAIN, *NUMBERS, -0.5, 3, None, True, float("nan")])
def test_all_else_stays(value: object):
    assert cell(value) is value
    if isinstance(value, str):
        assert text_of(value) == value


def test_a_table():
    rows = [{"loss": name, "dice": -0.5, "ok": True, "se": None} for name in (*FORMULAS, *PLAIN, *NUMBERS)]
    read = list(csv.DictReader(io.StringIO(csv_text(("loss", "dice", "ok", "se"), rows), newline="")))
    assert [text_of(row["loss"]) for row in read] == [row["loss"] for row in rows]
    assert {(row["dice"], row["ok"], row["se"]) for row in read} == {("-0.5", "true", "")}
    assert not any(re.match(r"[=+@\t\r\n]|-(?![.\d]|inf|nan)", row["loss"]) for row in read if row["loss"] != "+3")


def test_nothing_else_writes_csv():
    """One place that writes cells."""
    package = Path(lossevo.__file__).parent
    texts = {file.relative_to(package).as_posix(): file.read_text(encoding="utf-8") for file in package.rglob("*.py")}
    assert {name for name, text in texts.items() if re.search(r"csv\.(writer|DictWriter)", text)} == {"csv_files.py"}
    assert not [name for name, text in texts.items() if ".to_csv(" in text or ('",".join(' in text and "csv" in text)]
