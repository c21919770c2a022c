"""What comes back from one training: plain data that crosses process boundaries as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lossevo.metrics import mean_over_cases

Values = dict[str, dict[str, float | None]]
"""Case id -> class name -> value; None where the label lacks the class."""

_ONLY_IF_ANY = ("trajectory", "false_voxels", "cut_off")


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a training reached on the held-out subjects.

    Attributes:
        values: metric -> case id -> class name -> value at the last step, on the trial's grid. Which of them are None
            is the same for every loss: the label decides it.
        curve: ``[step, mean training loss since the point before]``, at most 60 points.
        validation_curve: ``[step, mean foreground Dice]`` at the validated steps, at the working spacing whatever the
            trial's grid; the last is the last step.
        seconds: wall time of the training, validation included.
        trajectory: what moved in the loss, see :meth:`~lossevo.losses.SegmentationLoss.trajectory`; mostly nothing.
        false_voxels: case id -> class name -> voxels of the trial's grid predicted at the last step of a class that the
            label lacks. Above 0 is a false alarm, which no value counts. Cases that have every class are left out.
        cut_off: case id -> classes that reach the border of the image, or of the box that it was cropped to, in the
            prediction and not in the label (:mod:`lossevo.metrics.border`). Cases without any are left out.
    """

    values: dict[str, Values]
    curve: list[list[float]]
    validation_curve: list[list[float]]
    seconds: float
    trajectory: list[dict[str, float]] = field(default_factory=list)
    false_voxels: dict[str, dict[str, int]] = field(default_factory=dict)
    cut_off: dict[str, list[str]] = field(default_factory=dict)

    def mean(self, metric: str) -> float:
        """Mean of a metric over the classes that each case's label has, then over the cases whose label has any.

        Raises:
            ValueError: the metric was not measured.
        """
        if metric not in self.values:
            raise ValueError(f"{metric} was not measured, but {', '.join(self.values)}")
        return mean_over_cases(classes.values() for classes in self.values[metric].values())

    def by_class(self, metrics: Sequence[str]) -> list[list[dict[str, float | None]]]:
        """For each case, for each of its classes, the values of some metrics by their names.

        Raises:
            KeyError: a metric was not measured.
        """
        cases = self.values[metrics[0]]
        return [
            [{metric: self.values[metric][case][name] for metric in metrics} for name in classes]
            for case, classes in cases.items()
        ]

    def to_payload(self) -> dict[str, Any]:
        """JSON-able form."""
        return {key: value for key, value in asdict(self).items() if value or key not in _ONLY_IF_ANY}

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> Measurement:
        """Inverse of :meth:`to_payload`."""
        return cls(**payload)
