"""The text of CSV files, of which spreadsheets make nothing but text and numbers.

A spreadsheet takes a cell that begins with ``=``, ``+``, ``-`` or ``@`` for a formula and runs it
(https://owasp.org/www-community/attacks/CSV_Injection), and names of cases, classes and losses are somebody else's.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence

# Also as full-width signs, and behind blanks or apostrophes, so that an apostrophe more can be taken away again.
_FORMULA = re.compile(r"['\s]*[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:inf|nan)", re.IGNORECASE)


def cell(value: object) -> object:
    """A value as a cell: text that a spreadsheet would run gets an apostrophe; numbers, also as text, stay as they are.

    >>> [cell(value) for value in ("dice", "=1+1", "-log(p)", "-0.5", -0.5)]
    ['dice', "'=1+1", "'-log(p)", '-0.5', -0.5]
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def text_of(cell: str) -> str:
    """The text that :func:`cell` made a cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """A CSV table with a header; None is empty, booleans are ``true`` and ``false``."""
    return "".join([_line(columns), *(_line([row[column] for column in columns]) for row in rows)])


def _line(values: Iterable[object]) -> str:
    stream = io.StringIO(newline="")
    # With its own end of lines the writer puts quotes around a lone carriage return, too.
    cells = (str(value).lower() if isinstance(value, bool) else cell(value) for value in values)
    csv.writer(stream, lineterminator="\r\n").writerow(cells)
    return stream.getvalue().removesuffix("\r\n") + "\n"
