"""Processes that a test started, found by a mark in their environment, whoever started them in between."""

from __future__ import annotations

import time
from pathlib import Path


def marked(mark: str) -> list[int]:
    """Those that carry the mark and still run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def marked_after(mark: str, within_s: float) -> list[int]:
    """Those that are left when all have ended or the time is over."""
    end = time.monotonic() + within_s
    while marked(mark) and time.monotonic() < end:
        time.sleep(0.1)
    return marked(mark)
