"""The reference of the language as Markdown, from the primitive table: ``python -m lossevo.expression.reference``."""

from __future__ import annotations

from collections.abc import Sequence

from lossevo.expression.primitives import PRIMITIVES, TERMINALS, Primitive


def markdown() -> str:
    """Tables of terminals and primitives, as they stand in ``docs/loss-language.md``."""
    terminals = [
        (f"`{t.name}`", t.kind.name.lower(), f"{t.minimum:g} … {t.maximum:g}", t.meaning) for t in TERMINALS.values()
    ]
    primitives = [(f"`{p.text.format(*'abcde')}`", _kinds(p), p.meaning) for p in PRIMITIVES.values()]
    return "\n\n".join(
        [
            _table(("terminal", "kind", "range", "meaning"), terminals),
            _table(("primitive", "kinds", "meaning"), primitives),
        ]
    )


def _kinds(primitive: Primitive) -> str:
    if primitive.source is None or primitive.target is None:
        return "elementwise"
    return f"{primitive.source.name.lower()} → {primitive.target.name.lower()}"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


if __name__ == "__main__":
    print(markdown())
