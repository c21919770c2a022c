"""What the trainings of a comparison gave, as it comes in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lossevo.comparison.fractions import WHOLE
from lossevo.comparison.notes import Failures
from lossevo.comparison.scores import CaseScore, to_csv
from lossevo.comparison.speed import LearningCurve
from lossevo.comparison.trajectories import LossTrajectory
from lossevo.experiment.folder import write_text
from lossevo.metrics import Metric
from lossevo.training import Measurement


@dataclass(slots=True)
class Collected:
    """Outcomes in the order of the schedule.

    ``scores`` to ``curves`` are of trainings with all training subjects. ``parts`` has the scores of each of
    ``fractions``.
    """

    metrics: tuple[Metric, ...]
    fractions: tuple[float, ...] = ()
    scores: list[CaseScore] = field(default_factory=list)
    failures: Failures = field(default_factory=dict)
    trajectories: list[LossTrajectory] = field(default_factory=list)
    curves: list[LearningCurve] = field(default_factory=list)
    parts: dict[float, list[CaseScore]] = field(default_factory=dict)
    failed: int = 0
    _whole_table: str = ""
    _part_table: str = ""

    def __post_init__(self) -> None:
        self.parts = {fraction: [] for fraction in self.fractions}
        self._whole_table = to_csv((), self.metrics)
        self._part_table = to_csv((), self.metrics, fraction=WHOLE)

    def add(
        self,
        scores: Sequence[CaseScore],
        measurement: Measurement | None,
        problem: str,
        *,
        training: tuple[str, int, int],
        fraction: float,
    ) -> None:
        """The outcome of a training, by loss, fold and seed; ``problem`` says why nothing was measured, if so."""
        self.failed += measurement is None
        if fraction < WHOLE:
            self.parts[fraction] += scores
            self._part_table += to_csv(scores, self.metrics, header=False, fraction=fraction)
            return
        self.scores += scores
        self._whole_table += to_csv(scores, self.metrics, header=False)
        points = tuple((int(step), dice) for step, dice in measurement.validation_curve) if measurement else ()
        self.curves.append(LearningCurve(*training, points))
        if measurement is None:
            self.failures[training] = problem
        elif rows := measurement.trajectory:
            self.trajectories.append(LossTrajectory(*training, tuple(rows)))

    def write(self, folder: Path, fraction: float = WHOLE) -> None:
        """Write the rows so far of the table that has this fraction.

        Raises:
            LossevoError: the file cannot be written.
        """
        if fraction < WHOLE:
            write_text(folder / "fraction_cases.csv", self._part_table)
        else:
            write_text(folder / "cases.csv", self._whole_table)
