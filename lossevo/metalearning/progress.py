"""What a running meta-training tells besides what every experiment tells."""

from __future__ import annotations

from dataclasses import dataclass

from lossevo.experiment.events import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaProgress(Progress):
    """Where a meta-training stands. ``done``, ``total`` and ``eta_s`` are of its phase.

    ``before`` and ``after`` are the mean outer loss of the last outer step's tasks, before and after their inner steps
    (nan before the first); ``best_score`` and ``best_baseline`` are means of the objective over the evaluation seeds.
    """

    before: float
    after: float
    best_score: float
    best_baseline: float
