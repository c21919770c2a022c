"""Sizes of memory that users write: 500MiB, 8GiB."""

from __future__ import annotations

from pydantic import ByteSize, TypeAdapter, ValidationError

from lossevo.errors import LossevoError

_ByteSize = TypeAdapter(ByteSize)


def size_bytes(text: str, *, source: str, expected: str) -> int:
    """Bytes of a size with a unit (KiB = 1024, kB = 1000, and so on); without one it is in bytes.

    Raises:
        LossevoError: it is no size, or none of it; the message names ``source`` and what is ``expected``.
    """
    try:
        size = _ByteSize.validate_python(text.strip())
    except ValidationError:
        size = ByteSize(0)
    if size < 1:
        raise LossevoError(f"{source}: {text!r} is no size; expected {expected}")
    return int(size)
