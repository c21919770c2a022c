"""Files replaced, and lines appended, as a whole: no reader sees half of one, and nothing is written through a symbolic
link.
"""

from __future__ import annotations

import os
import secrets
import stat
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


def append_line(path: Path, line: str, *, advice: str = "free space or rights") -> None:
    """Append a line in UTF-8 to a file, which is made if need be. Whoever else appends waits; a symbolic link is not
    followed. Should the last line there have no end, it gets one.

    Raises:
        LossevoError: it cannot be written, or is no regular file.
    """
    try:
        # Of a pipe nobody waits, and a link is not followed.
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError("no regular file")
            with suppress(ImportError):  # Windows has none
                import fcntl

                fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            unended = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            content = (b"\n" if unended else b"") + line.encode("utf-8") + b"\n"
            if os.write(descriptor, content) != len(content):
                os.ftruncate(descriptor, size)
                raise OSError("no space left")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise LossevoError(f"{path}: cannot be written ({problem.strerror or problem}); {advice}") from None
