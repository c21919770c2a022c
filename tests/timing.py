"""How long something takes, for tests that something never hangs."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable


def quickest(call: Callable[[], object], attempts: int = 3) -> float:
    """CPU seconds of this thread in the quickest of some attempts.

    What a call itself costs it costs every time; what the process collects meanwhile, or a busy machine, it does not.
    """
    taken = []
    gc.disable()  # collecting before each attempt instead takes a second when a whole test run is in memory
    try:
        for _ in range(attempts):
            began = time.thread_time()
            call()
            taken.append(time.thread_time() - began)
    finally:
        gc.enable()
    return min(taken)
