"""What a running comparison tells whoever watches: plain data, drawn by the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a comparison stands.

    ``done`` and ``failed`` count all trainings of the comparison; ``per_hour``, ``busy_share`` and ``eta_s`` (None
    while unknown) speak of this process, not of work replayed from the ledger.
    """

    done: int
    total: int
    failed: int
    per_hour: float
    busy_share: float
    workers: int
    eta_s: float | None


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened: ``kind`` is "training", "replayed" (a training of an earlier process) or "arrived" (only
    figures changed).
    """

    kind: str
    message: str
    progress: Progress


Listener = Callable[[Event], None]
