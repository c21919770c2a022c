"""What a search optimises for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lossevo.experiment.scoring import DICE, Scoring
from lossevo.training import Fidelity, Split, Trial


@dataclass(frozen=True, slots=True)
class Problem:
    """All that a training of a search depends on besides its loss, steps and seed.

    Attributes:
        split: who is trained and validated on.
        classes: with background.
        lengths: of trainings in steps, the shortest first; the last is the horizon, at which losses are ranked.
        study: see :class:`~lossevo.training.Trial`.
        scoring: by which objective.
        continues: whether a longer training can go on from a shorter one.
    """

    split: Split
    classes: int
    lengths: tuple[int, ...]
    study: str = ""
    scoring: Scoring = DICE
    continues: bool = False

    @property
    def shortest(self) -> int:
        """Steps of a candidate's first training."""
        return self.lengths[0]

    @property
    def horizon(self) -> int:
        """Steps at which losses are ranked."""
        return self.lengths[-1]

    def trial(
        self,
        loss: Mapping[str, Any],
        steps: int,
        seed: int,
        *,
        continues: int | None = None,
        learning_rate: float | None = None,
    ) -> Trial:
        """A training of a loss spec."""
        return Trial(
            loss,
            Fidelity(steps, seed, self.split),
            self.study,
            self.scoring.metrics,
            learning_rate=learning_rate,
            continues=continues,
        )
