"""Files replaced as a whole: no reader sees half of one, and nothing is written through a symbolic link."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from lossevo.errors import LossevoError


def write_bytes(path: Path, content: bytes, *, advice: str = "free space or rights") -> None:
    """Write or replace a file. A symbolic link in its place is replaced, and not followed.

    Raises:
        LossevoError: it cannot be written.
    """
    part = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.part")
    try:
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # does not follow a link
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(path)
        except BaseException:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
    except OSError as problem:
        raise LossevoError(f"{path}: cannot be written ({problem.strerror or problem}); {advice}") from None


def write_text(path: Path, text: str, *, advice: str = "free space or rights") -> None:
    """Write or replace a file in UTF-8; see :func:`write_bytes`.

    Raises:
        LossevoError: it cannot be written.
    """
    write_bytes(path, text.encode("utf-8"), advice=advice)
