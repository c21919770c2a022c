"""Workers that the tests of this room send to Ray: importable by name, on the driver and on its workers."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lossevo.errors import LossevoError


@dataclass(frozen=True, slots=True)
class Bank:
    """Stands for the patch bank: a frozen dataclass that holds arrays."""

    image: NDArray[np.float32]
    label: NDArray[np.uint8]


class Toy:
    """Does what ``payload["do"]`` says."""

    def __init__(self, bank: Bank | None) -> None:
        self.bank = bank

    def __call__(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        return getattr(self, payload["do"])(**{key: value for key, value in payload.items() if key != "do"})

    def square(self, x: float, sleep_s: float = 0.0) -> dict[str, Any]:
        time.sleep(sleep_s)
        return {"y": x * x}

    def diverge(self) -> dict[str, Any]:
        raise FloatingPointError("loss is NaN at step 7")

    def fail(self) -> dict[str, Any]:
        raise ValueError("two\nlines")

    def interrupt(self, path: str) -> dict[str, Any]:
        """Ctrl-C in mid-job, the first time, when it leaves a file."""
        if not Path(path).exists():
            Path(path).touch()
            signal.raise_signal(signal.SIGINT)
        return {"interrupted": True}

    def leave(self) -> dict[str, Any]:
        sys.exit(3)

    def give_up(self) -> dict[str, Any]:
        raise TimeoutError("own deadline")

    def exhaust(self, how: str) -> dict[str, Any]:
        if how == "python":
            raise MemoryError
        import torch

        torch.empty(10**15)
        return {}

    def return_list(self) -> Any:
        return [1, 2]

    def return_lock(self) -> dict[str, Any]:
        return {"lock": threading.Lock()}

    def fill_memory(self, gigabytes: float) -> dict[str, Any]:
        blocks = []
        for _ in range(int(gigabytes * 16)):
            blocks.append(np.ones(2**26, np.uint8))
            time.sleep(0.02)
        time.sleep(5.0)
        return {}

    def hang(self) -> dict[str, Any]:
        # Deaf to signals and to exceptions, as a hang in C code is.
        while True:
            try:
                signal.pause()
            except Exception:
                continue

    def deaf(self, path: str, times: int) -> dict[str, Any]:
        """Hangs the first ``times`` times, and no signal reaches it."""
        if _count(path) <= times:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
            time.sleep(3600)
        return {}

    def exhaust_when_crowded(self, path: str, during: str, sleep_s: float) -> dict[str, Any]:
        """The first time there is no memory; then it counts who else began to run."""
        if _count(path) == 1:
            raise MemoryError
        before = len(Path(during).read_text().splitlines())
        time.sleep(sleep_s)
        return {"began_before": before, "began_during": len(Path(during).read_text().splitlines()) - before}

    def fail_to_read(self, path: str, times: int) -> dict[str, Any]:
        if _count(path) <= times:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return {}

    def mark_and_sleep(self, path: str, sleep_s: float) -> dict[str, Any]:
        with Path(path).open("a", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(sleep_s)
        return {"pid": os.getpid()}

    def kill(self, path: str | None = None) -> dict[str, Any]:
        """Dies by SIGKILL; given a path, only the first time, when it leaves its process id there."""
        if path is None or not Path(path).exists():
            if path is not None:
                Path(path).write_text(f"{os.getpid()}\n", encoding="ascii")
            os.kill(os.getpid(), signal.SIGKILL)
        return {"survived": True}

    def die_while(self, path: str) -> dict[str, Any]:
        """As on a machine without memory for any training, while the file is there."""
        if Path(path).exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return {}

    def inspect(self) -> dict[str, Any]:
        assert self.bank is not None
        image = self.bank.image
        return {
            "writable": image.flags.writeable or self.bank.label.flags.writeable,
            "shared_memory": _is_shared(image.__array_interface__["data"][0]),
            "sum": float(image.sum()),
        }

    def environment(self) -> dict[str, Any]:
        import lossevo

        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        return {"lossevo": lossevo.__file__, "threads": [os.environ.get(name) for name in names]}


class Peer(Toy):
    """A worker whose process is on a list, of all that ever ran."""

    def __init__(self, log: str) -> None:
        super().__init__(None)
        self._log = log
        _count(log)

    def kill_all(self) -> dict[str, Any]:
        """Ends all workers, idle ones as well, as a machine that is short of memory may do."""
        for pid in sorted(map(int, Path(self._log).read_text().split()), key=lambda pid: pid == os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        raise AssertionError


def _count(path: str) -> int:
    """Leave the process's id in the file; returns how many have done so."""
    with Path(path).open("a", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")
    return len(Path(path).read_text().splitlines())


def _is_shared(address: int) -> bool:
    """Whether a page of this process is mapped from memory that other processes share."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        extent, permissions = line.split()[:2]
        start, end = (int(bound, 16) for bound in extent.split("-"))
        if start <= address < end:
            return permissions.endswith("s")
    return False


def refuse(payload: Any) -> Toy:
    raise LossevoError("the patch bank holds no foreground: prepare it again")


def broken(payload: Any) -> Toy:
    raise KeyError("no such patch bank")


def deadly(log: str) -> Toy:
    """Dies while it starts, and leaves a line."""
    with Path(log).open("a", encoding="ascii") as file:
        file.write("started\n")
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def once(fuse: str) -> Toy:
    """Can be made a single time."""
    if Path(fuse).exists():
        raise LossevoError("the fuse has burnt")
    Path(fuse).touch()
    return Toy(None)
