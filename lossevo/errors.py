"""The one exception family for mistakes that a user can mend.

Whoever raises a :class:`LossevoError` writes a message that names the file or value, says what was expected, and
what to do about it. The command line prints it as one line and exits with status 2; a traceback is for bugs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LossevoError(Exception):
    """Something the user gave cannot be used; the message says what and how to mend it."""


class ResumableError(LossevoError):
    """A machine, a disk or a network stopped a run; what is finished is kept, and the run can be resumed."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint ``" (did you mean 'tversky'?)"`` when ``word`` resembles one of ``known``, else an empty string."""
    matches = difflib.get_close_matches(word[:100], list(known), n=1, cutoff=0.5)
    return f" (did you mean '{matches[0]}'?)" if matches else ""


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8; Python also holds file names that are other bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: object, width: int = 60) -> str:
    """A value as a message quotes it: on one line, at most ``width`` characters, whatever it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits; lists in lists in lists
        return f"a value of type {type(value).__name__}"
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= width else f"{text[: width - 1]}…"
