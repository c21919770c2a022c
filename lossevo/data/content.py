"""The content of a file, read forward and never further than asked for; what gzip or zlib packed is unpacked.

Whether it is packed is told by its first bytes, not by its name. Python's ``gzip`` gives up on bytes behind the last
member, and its ``read()`` unpacks whatever there is.
"""

from __future__ import annotations

import zlib
from typing import IO

# Deflate packs at most 1032 bytes into one.
LARGEST_RATIO = 1032
CHUNK_BYTES = 2**18
_GZIP = b"\x1f\x8b"
_EITHER_FORMAT = 32 + zlib.MAX_WBITS  # zlib tells gzip from its own by the first bytes


class Content:
    """The bytes of an open file, unpacked if they are packed (``packed``).

    ``trailing`` says, once the end was reached, whether bytes that belong to nothing follow the packed content.
    Reading raises EOFError where packed content ends early, and zlib.error where it is damaged.
    """

    def __init__(self, stream: IO[bytes], *, packed: bool | None = None) -> None:
        self._stream = stream
        self._ahead = stream.read(len(_GZIP))
        self._inflate = zlib.decompressobj(_EITHER_FORMAT)
        self._members = 0
        self._ended = False
        self.packed = self._ahead == _GZIP if packed is None else packed
        self.trailing = False

    def read(self, most: int, start: bytes | bytearray = b"") -> bytearray:
        """``start``, filled up to so many bytes or with all that are left; memory grows with what there really is."""
        found = bytearray(start)
        while len(found) < most and (some := self._some(min(most - len(found), CHUNK_BYTES))):
            found += some
        return found

    def skip(self, most: int) -> int:
        """Read so many bytes, or all that are left, and forget them; how many there were."""
        count = 0
        while count < most and (some := self._some(min(most - count, CHUNK_BYTES))):
            count += len(some)
        return count

    def surplus(self, most: int) -> int:
        """As :meth:`skip`, to the end if that is near, so that checksums are compared.

        What follows the last whole member may be anything.
        """
        members = self._members
        try:
            return self.skip(most)
        except (EOFError, zlib.error):
            if members == self._members:
                raise
            self.trailing = True
            return 0

    def _some(self, most: int) -> bytes:
        if not self.packed:
            some, self._ahead = self._ahead[:most], self._ahead[most:]
            return some or self._stream.read(most)
        while not self._ended:
            if self._inflate.eof:
                self._next_member()
                continue
            packed = self._inflate.unconsumed_tail or self._ahead or self._stream.read(CHUNK_BYTES)
            self._ahead = b""
            if not packed:
                raise EOFError("its compressed content ends early")
            if some := self._inflate.decompress(packed, most):
                return some
        return b""

    def _next_member(self) -> None:
        """Several members in a row are one content; zeros may fill up the file."""
        rest = self._inflate.unused_data or self._stream.read(CHUNK_BYTES)
        if len(rest) < len(_GZIP):
            rest += self._stream.read(CHUNK_BYTES)
        if rest.startswith(_GZIP):
            self._members += 1
            self._inflate, self._ahead = zlib.decompressobj(_EITHER_FORMAT), rest
        else:
            self._ended, self.trailing = True, bool(rest.strip(b"\0"))
