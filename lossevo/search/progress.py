"""What a running search tells besides what every experiment tells."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from lossevo.experiment.events import Progress
from lossevo.experiment.trainings import OrderedTrainings
from lossevo.search.plan import HORIZON


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

    @classmethod
    def before_the_search(cls, trainings: OrderedTrainings, done: int) -> Self:
        """While the horizon is looked for: nothing is proposed yet."""
        return cls(
            phase=HORIZON,
            done=done,
            total=done,
            failed=0,
            per_hour=trainings.per_hour,
            busy_share=trainings.busy_share,
            workers=trainings.workers,
            eta_s=None,
            trainings=trainings.computed,
            proposed=0,
            rejected={},
            best_score=math.nan,
            best_id="",
            best_formula="",
            best_hand_crafted=math.nan,
        )
