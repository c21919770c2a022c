"""What is tuned, and on whom: plain data that a worker gets as well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lossevo.experiment.scoring import Scoring
from lossevo.training import Fidelity, Split, Trial
from lossevo.tuning.space import Space

_RUNG_PARTS: Final = (4, 2)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is tuned, and on whom.

    Attributes:
        name: of the loss, for people.
        fold: the fold of a comparison inside which it is tuned, from 1; None: of none.
        space: the loss and what is tuned of it.
        split: whom trainings train and validate on.
        scoring: how they are scored.
        study: fingerprint of task and data.
        steps: of a training.
        one_cycle: whether the learning rate follows one cycle over the whole training.
        seed: of the run.
        place: number of the problem among those of other subjects: its trainings have seeds of their own.
    """

    name: str
    fold: int | None
    space: Space
    split: Split
    scoring: Scoring
    study: str
    steps: int
    one_cycle: bool
    seed: int
    place: int = 0

    @property
    def rungs(self) -> tuple[int, ...]:
        """The steps at which a training is validated: a quarter, half and all of them."""
        return tuple(sorted({*(max(1, self.steps // part) for part in _RUNG_PARTS), self.steps}))

    def trial(self, values: Mapping[str, float], seed: int, step: int) -> Trial:
        """The training with these values up to a rung."""
        spec, rate = self.space.placed(values)
        fidelity = Fidelity(step, seed, self.split)
        length = self.steps if self.one_cycle else None
        return Trial(spec, fidelity, self.study, self.scoring.metrics, learning_rate=rate, length=length)

    @property
    def label(self) -> str:
        """The name, and the fold if there is one."""
        return self.name if self.fold is None else f"{self.name}, fold {self.fold}"
