"""Metrics of a segmentation: overlap, distances between surfaces in mm, volumes; and the objectives made of them.

>>> from lossevo.metrics import evaluate
>>> evaluate([[0, 1, 1]], [[0, 1, 0]], spacing_mm=(1.0, 1.0), metrics=["dice", "hd"])
{1: {'dice': 0.6666666666666666, 'hd': 1.0}}
"""

from lossevo.metrics.aggregate import ClassResult, mean_over_cases
from lossevo.metrics.evaluation import MetricWarning, evaluate, false_alarms, measure, worst_values
from lossevo.metrics.field_of_view import FieldOfView
from lossevo.metrics.metric import KINDS, Metric, WorstValue, fine_tolerances, parse_metric, parse_metrics
from lossevo.metrics.objective import Objective
from lossevo.metrics.overlap import dice_per_class
from lossevo.metrics.surface import IMPLEMENTATION, SurfaceDistances, surface_distances

__all__ = [
    "evaluate",
    "false_alarms",
    "measure",
    "worst_values",
    "ClassResult",
    "MetricWarning",
    "Metric",
    "WorstValue",
    "KINDS",
    "parse_metric",
    "parse_metrics",
    "fine_tolerances",
    "Objective",
    "FieldOfView",
    "mean_over_cases",
    "dice_per_class",
    "IMPLEMENTATION",
    "SurfaceDistances",
    "surface_distances",
]
