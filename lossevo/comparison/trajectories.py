"""What moved in the losses that adapt while they were trained with: their weights and parameters, step by step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lossevo.csv_files import csv_text

_COLUMNS = ("loss", "fold", "seed", "step", "quantity", "value")


@dataclass(frozen=True, slots=True)
class LossTrajectory:
    """The trajectory of a loss in one training.

    ``rows`` are those of :meth:`~lossevo.losses.SegmentationLoss.trajectory`: the step and the quantities, each with
    the value that it had from that step on. ``fold`` counts from 1, ``seed`` is the repetition's.
    """

    loss: str
    fold: int
    seed: int
    rows: tuple[Mapping[str, float], ...]

    @property
    def steps(self) -> list[float]:
        """The number of steps made before each row."""
        return [row["step"] for row in self.rows]

    @property
    def quantities(self) -> dict[str, list[float]]:
        """The values of each quantity, row by row."""
        names = [name for name in self.rows[0] if name != "step"]
        return {name: [row[name] for row in self.rows] for name in names}


def trajectories_csv(trajectories: Iterable[LossTrajectory]) -> str:
    """The text of ``trajectories.csv``, one row per loss, training, step and quantity; values with six digits."""
    return csv_text(
        _COLUMNS,
        (
            {
                "loss": trajectory.loss,
                "fold": trajectory.fold,
                "seed": trajectory.seed,
                "step": row["step"],
                "quantity": name,
                "value": f"{value:.6g}",
            }
            for trajectory in trajectories
            for row in trajectory.rows
            for name, value in row.items()
            if name != "step"
        ),
    )
