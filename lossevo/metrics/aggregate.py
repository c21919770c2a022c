"""What counts where the prediction or the reference lacks a class, and how values become one mean.

========= ========== ==================================================================================================
reference prediction what counts
========= ========== ==================================================================================================
has it    has it     the metric's formula
has it    lacks it   the metric's worst value (:class:`~lossevo.metrics.metric.Metric`)
lacks it  has it     no value of any metric, for any loss; the predicted voxels are a false alarm (number, ml)
lacks it  lacks it   no value of any metric, for any loss; a false alarm of 0 voxels
========= ========== ==================================================================================================

So the reference alone decides whether there is a value, and every loss is averaged over the same cases and classes. A
failed training scores what a prediction of nothing scores: the worst value wherever the reference has a class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lossevo.metrics.metric import Metric
from lossevo.metrics.structure import Structure


@dataclass(frozen=True)
class ClassResult:
    """What was measured of one class in one case.

    Attributes:
        values: metric name → value; every value is None where the reference lacks the class.
        false_voxels: voxels predicted of a class that the reference lacks; None where it has the class.
        false_ml: their volume in ml; None where the reference has the class.
        cut_off: whether the border cuts the class off in the prediction alone (:mod:`lossevo.metrics.border`).
    """

    values: Mapping[str, float | None]
    false_voxels: int | None = None
    false_ml: float | None = None
    cut_off: bool = False


def class_result(structure: Structure, metrics: Sequence[Metric]) -> ClassResult:
    """The metrics of one class in one case, by the rules above."""
    if not structure.reference_voxels:
        return ClassResult(
            {metric.name: None for metric in metrics}, structure.predicted_voxels, structure.predicted_ml
        )
    if not structure.predicted_voxels:
        return ClassResult(
            {metric.name: metric.worst_value(structure.view, structure.reference_ml) for metric in metrics}
        )
    return ClassResult({metric.name: structure.value(metric) for metric in metrics})


def mean_over_cases(cases: Iterable[Iterable[float | None]]) -> float:
    """Mean over classes within each case, then over cases; classes that are None count in neither.

    Raises:
        ValueError: no case has a defined class.
    """
    defined = ([value for value in case if value is not None] for case in cases)
    means = [math.fsum(values) / len(values) for values in defined if values]
    if not means:
        raise ValueError("no case has a labelled foreground class: its mean is undefined")
    return math.fsum(means) / len(means)
