"""Notices in time that the head of a Ray cluster, or Ray's node on this machine, is gone.

Ray itself goes on for some time, and then ends the process from C++, with lines of its own.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from lossevo.cluster.limit import AwakeClock

HEAD_LOST_S: Final = 45.0
"""A head that cannot be reached for so long is lost. A network may be cut off for less."""
NODE_LOST_S: Final = 4.0
"""The node is on this machine: no network lies in between."""
_TRY_EVERY_S: Final = 2.0


class HeadWatch:
    """Calls ``lost`` once, from a thread of its own, with a line that says what is gone.

    Time in which this process is stopped does not count.

    Args:
        address: ``HOST:PORT`` of the head.
        node_socket: Where the node on this machine listens.
        lost: What to call.
    """

    def __init__(self, address: str, node_socket: Path, lost: Callable[[str], None]) -> None:
        host, _, port = address.rpartition(":")
        self._head = (host.strip("[]"), int(port))
        self._node_socket = str(node_socket)
        self._lost = lost
        self._stopped = threading.Event()
        self._watched = (
            (self._reach_head, HEAD_LOST_S, f"the head of the Ray cluster at {address} has not answered for"),
            (self._reach_node, NODE_LOST_S, "Ray's node on this machine has not answered for"),
        )
        threading.Thread(target=self._watch, name="lossevo-head-watch", daemon=True).start()

    def stop(self) -> None:
        """Watch no more. Idempotent."""
        self._stopped.set()

    def _watch(self) -> None:
        clocks = [AwakeClock(_TRY_EVERY_S) for _ in self._watched]
        while not self._stopped.wait(_TRY_EVERY_S):
            for number, (reach, limit_s, line) in enumerate(self._watched):
                try:
                    reach()
                    clocks[number] = AwakeClock(_TRY_EVERY_S)
                except OSError:
                    if clocks[number].tick() >= limit_s:
                        self._lost(f"{line} {limit_s:g} s")
                        return

    def _reach_head(self) -> None:
        socket.create_connection(self._head, timeout=_TRY_EVERY_S).close()

    def _reach_node(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(_TRY_EVERY_S)
            stream.connect(self._node_socket)
