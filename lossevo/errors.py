"""The one exception family for mistakes that a user can mend.

Whoever raises a :class:`LossevoError` writes a message that names the file or value, says what was expected, and
what to do about it. The command line prints it as one line and exits with status 2; a traceback is for bugs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LossevoError(Exception):
    """Something the user gave cannot be used; the message says what and how to mend it."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint ``" (did you mean 'tversky'?)"`` when ``word`` resembles one of ``known``, else an empty string."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{matches[0]}'?)" if matches else ""
