"""Plain data from files that anybody may have written: bounded in size and depth, and nothing that JSON does not know.

Whatever is wrong with a file is one line that names it. A pipe is not waited for, and no text is read that cannot be
of use.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from lossevo.errors import LossevoError, shown

MAX_BYTES = 64 * 2**20
"""A JSON document of a run has at most this size: a hundred times what the largest searches have written."""

MAX_NESTING = 50
MAX_VALUES = 10_000_000
MAX_BITS = 64


def read_text(path: Path, *, kind: str, most_bytes: int = MAX_BYTES) -> str:
    """The text of a regular file in UTF-8, with or without a byte order mark; ``kind`` says of what, for messages.

    Raises:
        LossevoError: no such file, a folder, a pipe or a device, too large, no text, or it cannot be read.
    """
    try:
        return _text(path, most_bytes)
    except FileNotFoundError:
        raise LossevoError(f"{path}: no such file") from None
    except OSError as problem:
        reason = problem.strerror or str(problem)
    except UnicodeDecodeError as problem:
        reason = f"no text in UTF-8 (byte {problem.object[problem.start]:#04x} at position {problem.start}); save it so"
    except ValueError as problem:  # Python's too, of a NUL in the name
        reason = str(problem)
    raise LossevoError(f"{path}: cannot be read as {kind}: {reason}")


def _text(path: Path, most_bytes: int) -> str:
    state = path.stat()
    if stat.S_ISDIR(state.st_mode):
        raise ValueError("it is a folder, expected a file")
    if not stat.S_ISREG(state.st_mode):
        raise ValueError("it is a pipe or a device, expected a regular file; save it to one first")
    if state.st_size > most_bytes:
        raise ValueError(f"it has {state.st_size:,} bytes, expected at most {most_bytes:,}; is it the right file?")
    text = path.read_bytes().decode("utf-8-sig")
    if "\0" in text:
        raise ValueError(f"it holds a NUL character at position {text.index(chr(0))}, so it is no text")
    return text


def read_json(path: Path) -> Any:
    """A JSON document.

    Raises:
        LossevoError: as :func:`read_text`, or it is no JSON; see :func:`parse_json`.
    """
    text = read_text(path, kind="JSON")
    if not text.strip():
        raise LossevoError(f"{path}: damaged, the file is empty; expected JSON")
    return parse_json(text, source=str(path))


def parse_json(text: str, *, source: str, any_number: bool = False) -> Any:
    """The plain data in a JSON text; ``source`` names it in messages. ``any_number``: who calls looks at numbers.

    Raises:
        LossevoError: no JSON, a key that is given twice, nested too deep; NaN, infinity, or a whole number of more than
            64 bits unless ``any_number``.
    """

    def constant(name: str) -> float:
        if not any_number:
            raise ValueError(f"{name} is no number in JSON")
        return float(name)

    try:
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=constant)
    except (ValueError, RecursionError) as problem:
        reason = "nested too deep" if isinstance(problem, RecursionError) else " ".join(str(problem).split())
        raise LossevoError(f"{source}: damaged (no JSON: {reason})") from None
    require_plain(document, source=source, any_number=any_number)
    return document


def require_plain(document: object, *, source: str, most_values: int = MAX_VALUES, any_number: bool = False) -> None:
    """Refuse what is too deep, too large or too long a number to be written, shown or compared.

    Raises:
        LossevoError: it is; names ``source``.
    """
    level, seen = [document], 0
    for _ in range(MAX_NESTING + 1):
        seen += len(level)
        deeper: list[object] = []
        for value in level:
            if not any_number and isinstance(value, int) and value.bit_length() > MAX_BITS:
                raise LossevoError(f"{source}: {str(value)[:20]}… is a whole number of more than {MAX_BITS} bits")
            if isinstance(value, dict):
                deeper.extend(value.values())
            elif isinstance(value, list):
                deeper.extend(value)
            if seen + len(deeper) > most_values:
                raise LossevoError(f"{source}: more than {most_values:,} values; is it the right file?")
        if not deeper:
            return
        level = deeper
    raise LossevoError(f"{source}: lists and objects nested more than {MAX_NESTING} deep; is it the right file?")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {shown(next(key for key in keys if keys.count(key) > 1))} is given twice")
    return found
