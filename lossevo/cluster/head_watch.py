"""Notices in time that the head of a Ray cluster is gone.

Ray itself goes on for some time, and then ends the process from C++, with lines of its own.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Final

from lossevo.cluster.limit import AwakeClock

HEAD_LOST_S: Final = 45.0
"""A head that cannot be reached for so long is lost. A network may be cut off for less."""
_TRY_EVERY_S: Final = 3.0


class HeadWatch:
    """Calls ``lost`` once, from a thread of its own, when no connection to ``address`` could be made for
    :data:`HEAD_LOST_S`. Time in which this process is stopped does not count.
    """

    def __init__(self, address: str, lost: Callable[[], None]) -> None:
        host, _, port = address.rpartition(":")
        self._address = (host.strip("[]"), int(port))
        self._lost = lost
        self._stopped = threading.Event()
        threading.Thread(target=self._watch, name="lossevo-head-watch", daemon=True).start()

    def stop(self) -> None:
        """Watch no more. Idempotent."""
        self._stopped.set()

    def _watch(self) -> None:
        clock = AwakeClock(_TRY_EVERY_S)
        while not self._stopped.wait(_TRY_EVERY_S):
            try:
                socket.create_connection(self._address, timeout=_TRY_EVERY_S).close()
                clock = AwakeClock(_TRY_EVERY_S)
            except OSError:
                if clock.tick() >= HEAD_LOST_S:
                    self._lost()
                    return
