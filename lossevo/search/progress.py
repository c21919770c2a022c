"""What a running search tells besides what every experiment tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lossevo.experiment.events import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchProgress(Progress):
    """Where a search stands. ``done`` and ``total`` count optimiser steps, in shortest trainings; ``trainings`` counts
    those that have ended, of whatever length.

    ``proposed`` counts candidates seen by the screening and ``rejected`` those that each check turned down.
    """

    trainings: int
    proposed: int
    rejected: Mapping[str, int]
    best_score: float
    best_id: str
    best_formula: str
    best_hand_crafted: float
