"""What a running experiment tells whoever watches: plain data, drawn by the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where an experiment stands; a kind of experiment may add figures of its own.

    ``done`` counts what ran or was on record, ``total`` what is planned. ``per_hour``, ``busy_share`` and ``eta_s``
    (None while unknown) are of this process alone, without what was replayed from the ledger.
    """

    phase: str
    done: int
    total: int
    failed: int
    per_hour: float
    busy_share: float
    workers: int
    eta_s: float | None


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened.

    ``kind`` is "phase" (one begins), "training" or "step" (one has ended), "evaluation", "best" (another loss leads),
    "replayed" (an outcome was on record) or "arrived" (only the figures changed).
    """

    kind: str
    message: str
    progress: Progress


Listener = Callable[[Event], None]
