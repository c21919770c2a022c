"""PyTorch's threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread meanwhile, for all of this process; then as many as before.

    Workers share the machine's cores: two threads in each of two processes on two cores are seven times slower than
    one. And the number of threads decides the order of sums, hence the last bits of a result.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
