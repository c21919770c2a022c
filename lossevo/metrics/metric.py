"""What a metric is, by its name: ``dice``, ``nsd@2mm``, ``hd95``, ``hd``, ``assd``, ``volume_error``, …"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from lossevo.errors import LossevoError, nearest, shown
from lossevo.metrics.field_of_view import FieldOfView

Direction = Literal["higher", "lower"]

SMALLEST_TOLERANCE_MM, LARGEST_TOLERANCE_MM = 0.001, 1000.0
DETECTION_IOU = 0.1
# Below this share of a voxel's smallest side, a tolerance says no more than one of 0.
_SHARE_OF_VOXEL = 0.25

_NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+|nan|inf)", re.ASCII)


class WorstValue(StrEnum):
    """Worst values that are no number, but depend on the image or on the reference; never on the prediction."""

    DIAGONAL = "diagonal of the field of view"
    REFERENCE_VOLUME = "volume of the reference"


@dataclass(frozen=True)
class Metric:
    """A metric of one class in one case.

    Attributes:
        name: as users write it and columns show it: ``dice``, ``nsd@2mm``.
        unit: ``mm``, ``ml``, ``%``, or empty.
        direction: whether higher or lower values are better.
        worst: what a prediction without the class scores where the reference has it, and with it a failed training.
        definition: formula in one line.
        tolerance_mm: of ``nsd``; None for every other.
    """

    name: str
    unit: str
    direction: Direction
    worst: float | WorstValue
    definition: str
    tolerance_mm: float | None = None

    @property
    def kind(self) -> str:
        """The name without its tolerance: ``nsd``."""
        return self.name.partition("@")[0]

    @property
    def label(self) -> str:
        """As a title has it: ``Dice``, ``NSD@2mm``, ``volume error``."""
        return self.name.replace(self.kind, _LABELS[self.kind], 1)

    @property
    def heading(self) -> str:
        """The label with its unit, as a column has it: ``HD95 (mm)``."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def higher_is_better(self) -> bool:
        """Whether higher values are better."""
        return self.direction == "higher"

    @property
    def rope(self) -> float:
        """The largest difference without practical relevance, in ``unit``, unless somebody states another."""
        return _ROPES[self.unit]

    @property
    def is_bounded(self) -> bool:
        """Whether no prediction scores worse than ``worst``. Volume errors are not: a prediction can be too large."""
        return not self.kind.startswith("volume_error")

    def worst_value(self, view: FieldOfView, reference_ml: float) -> float:
        """``worst`` as a number, for an image and the volume of the class in its reference."""
        match self.worst:
            case WorstValue.DIAGONAL:
                return view.diagonal_mm
            case WorstValue.REFERENCE_VOLUME:
                return reference_ml
            case value:
                return float(value)


_LABELS = {
    "dice": "Dice",
    "nsd": "NSD",
    "hd95": "HD95",
    "hd": "HD",
    "assd": "ASSD",
    "volume_error": "volume error",
    "volume_error_percent": "relative volume error",
    "detection": "detection",
}
# By unit: half a point of a share, half a millimetre, a tenth of a millilitre, one per cent.
_ROPES = {"": 0.005, "mm": 0.5, "ml": 0.1, "%": 1.0}


def _nsd(tolerance_mm: float) -> Metric:
    definition = (
        "normalised surface Dice: share of both surfaces' area within {0} mm of the other, "
        "(|S_R within {0} mm of S_P| + |S_P within {0} mm of S_R|) / (|S_R| + |S_P|)"
    ).format(f"{tolerance_mm:.12g}")
    return Metric(f"nsd@{tolerance_mm:.12g}mm", "", "higher", 0.0, definition, tolerance_mm)


_PLAIN = {
    metric.name: metric
    for metric in (
        Metric("dice", "", "higher", 0.0, "2|P ∩ R| / (|P| + |R|)"),
        Metric(
            *("hd95", "mm", "lower", WorstValue.DIAGONAL),
            "95 % Hausdorff distance: larger of both surfaces' 95th percentiles of distance, weighted by area",
        ),
        Metric("hd", "mm", "lower", WorstValue.DIAGONAL, "Hausdorff distance: largest distance of either surface"),
        Metric(
            *("assd", "mm", "lower", WorstValue.DIAGONAL),
            "average symmetric surface distance: mean distance over both surfaces together, weighted by area",
        ),
        Metric("volume_error", "ml", "lower", WorstValue.REFERENCE_VOLUME, "||P| - |R||"),
        Metric("volume_error_percent", "%", "lower", 100.0, "100 ||P| - |R|| / |R|"),
        Metric("detection", "", "higher", 0.0, f"1 if |P ∩ R| / |P ∪ R| is at least {DETECTION_IOU}, else 0"),
    )
}
_WITH_TOLERANCE: dict[str, Callable[[float], Metric]] = {"nsd": _nsd}

KINDS = (*_PLAIN, *_WITH_TOLERANCE)


def parse_metric(name: str) -> Metric:
    """The metric that a name means, as ``hd95`` or ``nsd@1.5mm``.

    Raises:
        LossevoError: there is no such metric; a tolerance is missing, misplaced, or not a number of millimetres from
            0.001 to 1000.
    """
    kind, at, tolerance = name.strip().partition("@")
    if kind in _WITH_TOLERANCE:
        if not at:
            raise LossevoError(f"metric {shown(name)} needs a tolerance in mm, as in '{kind}@2mm'")
        return _WITH_TOLERANCE[kind](_tolerance(name, kind, tolerance))
    if kind not in _PLAIN:
        known = [*_PLAIN, *(f"{kind}@2mm" for kind in _WITH_TOLERANCE)]
        hint = nearest(name.lower(), known)
        raise LossevoError(f"unknown metric {shown(name)}{hint}; expected one of {', '.join(known)}")
    if at:
        raise LossevoError(f"metric {shown(name)}: {kind} takes no tolerance; write '{kind}'")
    return _PLAIN[kind]


def parse_metrics(names: str | Iterable[str | Metric]) -> tuple[Metric, ...]:
    """The metrics that names mean; a text may hold several, with commas between them.

    Raises:
        LossevoError: a name is no metric (:func:`parse_metric`), two mean the same, or there is none.
    """
    given = names.split(",") if isinstance(names, str) else names
    metrics: dict[str, Metric] = {}
    for name in given:
        if not isinstance(name, str | Metric):
            raise LossevoError(f"metric {shown(name)} is no name; expected text, as 'dice' or 'nsd@2mm'")
        metric = parse_metric(name) if isinstance(name, str) else name
        if metric.name in metrics:
            raise LossevoError(f"metric '{metric.name}' is given twice; name each metric once")
        metrics[metric.name] = metric
    if not metrics:
        raise LossevoError("no metric is given; expected at least one, as 'dice' or 'nsd@2mm'")
    return tuple(metrics.values())


def fine_tolerances(metrics: Iterable[Metric], spacing_mm: Sequence[float]) -> str | None:
    """A warning about tolerances below a quarter of the voxel's smallest side, or None if there are none.

    Two surfaces are apart by that side at least, or not at all: below it, every tolerance counts the same elements.
    """
    smallest = min(spacing_mm)
    fine = [m.name for m in metrics if m.tolerance_mm is not None and m.tolerance_mm < _SHARE_OF_VOXEL * smallest]
    if not fine:
        return None
    return (
        f"the tolerance of {', '.join(fine)} is below a quarter of the voxel size ({smallest:g} mm): "
        "only surface that is exactly in place counts; choose a larger tolerance"
    )


def _tolerance(name: str, kind: str, text: str) -> float:
    """The number of millimetres in ``2mm``."""
    number, unit = text.strip().removesuffix("mm").strip(), text.strip().endswith("mm")
    if not _NUMBER.fullmatch(number):
        raise LossevoError(f"metric {shown(name)}: {shown(text)} is no tolerance in mm; write it as in '{kind}@2mm'")
    value = float(number)
    if not math.isfinite(value) or not SMALLEST_TOLERANCE_MM <= value <= LARGEST_TOLERANCE_MM:
        raise LossevoError(
            f"metric {shown(name)}: the tolerance is {shown(number)}, expected a number from "
            f"{SMALLEST_TOLERANCE_MM:g} to {LARGEST_TOLERANCE_MM:g} mm"
        )
    if not unit:
        raise LossevoError(f"metric {shown(name)}: the tolerance has no unit; write '{kind}@{number}mm'")
    return value
