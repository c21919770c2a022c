"""What a running meta-training tells whoever watches: plain data, drawn by the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a meta-training stands.

    ``before`` and ``after`` are the mean outer loss of the last outer step's tasks, before and after their inner steps
    (nan before the first); ``best_score`` and ``best_baseline`` are mean validation Dice over the evaluation seeds.
    """

    phase: str
    done: int
    total: int
    failed: int
    before: float
    after: float
    best_score: float
    best_baseline: float
    busy_share: float
    workers: int
    eta_s: float | None


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened: ``kind`` is "phase", "step", "evaluation", "training", "replayed" or "arrived" (only the
    figures changed).
    """

    kind: str
    message: str
    progress: Progress


Listener = Callable[[Event], None]
