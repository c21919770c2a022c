"""Sizes of memory that users write: 500MiB, 8GiB."""

from __future__ import annotations

import re

from pydantic import ByteSize, TypeAdapter, ValidationError

from lossevo.errors import LossevoError

_ByteSize = TypeAdapter(ByteSize)
# pydantic takes no notice of what follows a number that it understands, and of "1,5GiB" understands 1.
_SIZE = re.compile(r"\d+(?:\.\d+)?\s*[a-z]+", re.ASCII | re.IGNORECASE)


def size_bytes(text: str, *, source: str, expected: str) -> int:
    """Bytes of a size with a unit: KiB = 1024, kB = 1000, and so on.

    Raises:
        LossevoError: it is no size, or none of it; the message names ``source`` and what is ``expected``.
    """
    try:
        size = _ByteSize.validate_python(text.strip()) if _SIZE.fullmatch(text.strip()) else ByteSize(0)
    except ValidationError:
        size = ByteSize(0)
    if size < 1:
        raise LossevoError(f"{source}: {text!r} is no size; expected {expected}")
    return int(size)
