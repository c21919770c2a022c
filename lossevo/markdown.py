"""Tables in Markdown, of whose text nothing is markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows of text: the first column to the left, the others to the right. The keys of the first row are the header."""
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    header, *body = [f"| {' | '.join(map(escaped, cells))} |" for cells in lines]
    rule = "| --- |" + " --: |" * (len(rows[0]) - 1)
    return "\n".join([header, rule, *body])


def escaped(text: str) -> str:
    r"""Text that stays what it is.

    >>> escaped("w_fp | w_fn")
    'w\\_fp \\| w\\_fn'
    """
    for sign in "\\|*_<>":
        text = text.replace(sign, f"\\{sign}")
    return text
