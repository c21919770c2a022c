"""What a running search tells whoever watches: plain data, drawn by the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a search stands.

    ``done`` counts trainings that ran or were on record, ``total`` those planned; tuning may leave some of its share.
    ``proposed`` counts candidates seen by the screening and ``rejected`` those that each check turned down;
    ``per_hour``, ``busy_share`` and ``eta_s`` (None while unknown) speak of this process, not of work replayed from
    the ledger.
    """

    phase: str
    done: int
    total: int
    failed: int
    proposed: int
    rejected: Mapping[str, int]
    best_score: float
    best_id: str
    best_formula: str
    best_hand_crafted: float
    per_hour: float
    busy_share: float
    workers: int
    eta_s: float | None


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened: ``kind`` is "phase", "training", "best", "replayed" or "arrived" (only the figures
    changed).
    """

    kind: str
    message: str
    progress: Progress


Listener = Callable[[Event], None]
