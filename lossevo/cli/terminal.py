"""What a terminal gets to see: names and messages as they are, but nothing in them that would control it.

File names, cases, classes and losses are called as somebody else chose. An escape sequence in a name could colour,
clear or retitle the terminal, or hide what is printed; a bidirectional override could show other text than there is.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

import typer

# Control characters but for tab and newline, those that reorder or hide text, and bytes of names that are not UTF-8.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """The text with ``\\x1b`` and the like in place of what would control a terminal."""
    return _UNSAFE.sub(_escaped, text)


def one_line(text: object) -> str:
    """The text on one line, printable."""
    return printable(" ".join(str(text).splitlines()))


def print_json(document: object) -> None:
    """Print JSON; what would control a terminal is escaped as JSON escapes it, so the document is the same."""
    text = json.dumps(document, indent=1, ensure_ascii=False)
    print(_UNSAFE.sub(lambda found: json.dumps(found[0])[1:-1], text))


def note(message: object) -> None:
    """Say something that one should know of, in one line."""
    typer.echo(f"Note: {one_line(message)}", err=True)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Nothing printed to standard error, by whomever, controls the terminal, and no name is impossible to print."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    with contextlib.redirect_stderr(cast(TextIO, _Printable(sys.stderr))):
        yield


class _Printable:
    """A stream to which text is written printable."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(printable(text))

    def writelines(self, lines: list[str]) -> None:
        self._stream.writelines(map(printable, lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte that is not UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
