"""Metrics of a predicted label array against its reference, class by class."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from lossevo.errors import LossevoError, shown
from lossevo.metrics.aggregate import ClassResult, class_result
from lossevo.metrics.border import is_cut_off
from lossevo.metrics.field_of_view import FieldOfView
from lossevo.metrics.metric import Metric, fine_tolerances, parse_metrics
from lossevo.metrics.structure import Box, Structure

LARGEST_LABEL = 65_535

Class = int | str
Classes = Iterable[int] | Iterable[str] | Mapping[str, int]


class MetricWarning(UserWarning):
    """A metric can be computed, but says less than one might think."""


def evaluate(
    prediction: ArrayLike,
    reference: ArrayLike,
    spacing_mm: Iterable[float],
    metrics: str | Iterable[str | Metric],
    classes: Classes | None = None,
) -> dict[Class, dict[str, float | None]]:
    r"""Metrics of every class of a predicted label array against its reference.

    With P_c and R_c the voxels of class c in the prediction and in the reference, S_P and S_R their surfaces
    (:mod:`lossevo.metrics.surface`), d(s, S) the distance of a surface element to the nearest one of S:

    ========================  =====  ==================================================================================
    metric                    unit   definition
    ========================  =====  ==================================================================================
    ``dice``                         :math:`2|P_c \cap R_c| / (|P_c| + |R_c|)`
    ``nsd@2mm``                      share of the area of both surfaces with d ≤ 2 mm; any tolerance from 0.001 to 1000
    ``hd95``                  mm     larger of the 95th percentiles of d over S_P and over S_R, weighted by area
    ``hd``                    mm     largest d over S_P and S_R
    ``assd``                  mm     mean d over S_P and S_R together, weighted by area
    ``volume_error``          ml     :math:`\big||P_c| - |R_c|\big|` (2D: as if the image were 1 mm thick)
    ``volume_error_percent``  %      :math:`100 \big||P_c| - |R_c|\big| / |R_c|`
    ``detection``                    1 if :math:`|P_c \cap R_c| / |P_c \cup R_c| \ge 0.1`, else 0
    ========================  =====  ==================================================================================

    Where the reference has a class and the prediction does not, each metric has its worst value. That is 0 for
    ``dice``, ``nsd`` and ``detection``, and the diagonal of the field of view for ``hd95``, ``hd`` and ``assd``. For
    the volume errors it is the reference's volume, which is 100 %. Where the reference lacks a class, each metric is
    None, whatever is predicted: :func:`false_alarms` counts that.

    >>> evaluate(prediction, reference, spacing_mm=(1.0, 1.0, 4.0), metrics=["dice", "nsd@2mm"])  # doctest: +SKIP
    {1: {'dice': 0.91, 'nsd@2mm': 0.97}, 2: {'dice': 0.88, 'nsd@2mm': 0.95}}

    Args:
        prediction: labels, integers from 0 (background) to 65535, 2D or 3D; a mask of booleans is labels 0 and 1.
        reference: the same, of the same shape and on the same voxel grid.
        spacing_mm: distance in mm between neighbouring voxels along each axis.
        metrics: names, as ``["dice", "nsd@2mm", "hd95", "assd"]`` or ``"dice,hd95"``.
        classes: labels, as ``[1, 2]``; or names of the labels 1, 2, …, as ``["L1", "L2"]``; or name → label. Without
            it, every label above 0 that either array has. Other labels in the arrays count as background.

    Returns:
        class (its name, or else its label) → metric name → value.

    Raises:
        LossevoError: shapes differ, are not 2D or 3D, or hold no voxel. Labels are no integers, below 0 or above 65535.
            ``spacing_mm`` is not one distance above 0 per axis. A metric is unknown, or lacks its tolerance. A class is
            no label above 0, or is given twice.

    Warns:
        MetricWarning: a tolerance is below a quarter of the voxel's smallest side.

    Sources: Nikolov et al. 2021 (surface Dice, and the weights by area; doi:10.2196/26151); Maier-Hein, Reinke et al.,
    "Metrics reloaded", Nature Methods 2024 (doi:10.1038/s41592-023-02151-z).
    """
    results = _compare(prediction, reference, spacing_mm, parse_metrics(metrics), classes)
    return {name: dict(result.values) for name, result in results.items()}


def false_alarms(
    prediction: ArrayLike, reference: ArrayLike, spacing_mm: Iterable[float], classes: Classes | None = None
) -> dict[Class, dict[str, float]]:
    """What is predicted of classes that the reference lacks: number of voxels and volume in ml.

    Arguments are those of :func:`evaluate`.

    Returns:
        ``{class: {"voxels": 12, "ml": 0.012}}`` of every class that the reference lacks; 0 where none is predicted.

    Raises:
        LossevoError: as :func:`evaluate`.
    """
    results = _compare(prediction, reference, spacing_mm, (), classes)
    return {
        name: {"voxels": result.false_voxels, "ml": result.false_ml}
        for name, result in results.items()
        if result.false_voxels is not None and result.false_ml is not None
    }


def worst_values(
    reference: ArrayLike,
    spacing_mm: Iterable[float],
    metrics: str | Iterable[str | Metric],
    classes: Classes | None = None,
) -> dict[Class, dict[str, float | None]]:
    """What a failed training scores on a case: what a prediction of nothing scores.

    Arguments are those of :func:`evaluate`.

    Raises:
        LossevoError: as :func:`evaluate`.
    """
    actual = _labels("reference", reference)
    results = _compare(np.zeros_like(actual), actual, spacing_mm, parse_metrics(metrics), classes)
    return {name: dict(result.values) for name, result in results.items()}


def measure(
    prediction: ArrayLike,
    reference: ArrayLike,
    spacing_mm: Iterable[float],
    metrics: str | Iterable[str | Metric],
    classes: Classes | None = None,
    *,
    field: Box | None = None,
) -> dict[Class, ClassResult]:
    """Metrics and false alarms of every class at once, and whether the border cuts it off; arguments, errors and
    warning as of :func:`evaluate`. ``field`` is the part of the image that was predicted; not given, all of it.
    """
    return _compare(prediction, reference, spacing_mm, parse_metrics(metrics), classes, field)


def _compare(
    prediction: ArrayLike,
    reference: ArrayLike,
    spacing_mm: Iterable[float],
    metrics: tuple[Metric, ...],
    classes: Classes | None,
    field: Box | None = None,
) -> dict[Class, ClassResult]:
    predicted, actual = _labels("prediction", prediction), _labels("reference", reference)
    if predicted.shape != actual.shape:
        raise LossevoError(f"prediction has shape {predicted.shape}, reference {actual.shape}; expected one shape")
    view = FieldOfView.of(actual.shape, spacing_mm)
    if fine := fine_tolerances(metrics, view.spacing_mm):
        warnings.warn(fine, MetricWarning, stacklevel=3)
    boxes = _boxes(predicted), _boxes(actual)
    chosen = {label: label for label in sorted({*boxes[0], *boxes[1]})} if classes is None else _chosen(classes)
    field = field or tuple(slice(0, size) for size in actual.shape)
    found = {}
    for name, label in chosen.items():
        box = boxes[0].get(label), boxes[1].get(label)
        result = class_result(Structure(predicted, actual, label, box, view), metrics)
        found[name] = replace(result, cut_off=True) if is_cut_off(*box, field) else result
    return found


def _labels(what: str, given: ArrayLike) -> NDArray[np.integer]:
    """An array of labels as one of the types that SciPy takes."""
    try:
        array = np.asarray(given)
    except ValueError:
        raise LossevoError(f"{what} is no array: its rows differ in length") from None
    if array.dtype == np.bool_:
        return array.view(np.uint8)
    if array.dtype.kind not in "iu":
        raise LossevoError(f"{what} has type {array.dtype}, expected integer labels, as uint8")
    if array.size and (array.dtype.kind == "i" or array.dtype.itemsize > 2):
        lowest, highest = int(array.min()), int(array.max())
        if lowest < 0 or highest > LARGEST_LABEL:
            wrong = lowest if lowest < 0 else highest
            raise LossevoError(f"{what} has label {wrong}, expected labels from 0 (background) to {LARGEST_LABEL}")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _boxes(labels: NDArray[np.integer]) -> dict[int, Box]:
    """By label, the smallest box around it, of every label above 0 that an array has."""
    found: list[Box | None] = list(scipy.ndimage.find_objects(labels))
    return {label: box for label, box in enumerate(found, 1) if box is not None}


def _chosen(classes: Classes) -> dict[Class, int]:
    """The label of each class that a user chose."""
    if isinstance(classes, str):
        raise LossevoError(f"classes is {shown(classes)}, expected a list of labels or names, as [1, 2]")
    named: list[tuple[Any, Any]]
    if isinstance(classes, Mapping):
        named = list(classes.items())
    else:
        listed = list(classes)
        are_names = all(isinstance(entry, str) for entry in listed)
        named = [(entry, number if are_names else entry) for number, entry in enumerate(listed, 1)]
    chosen: dict[Class, int] = {}
    for name, label in named:
        if isinstance(label, bool) or not isinstance(label, int | np.integer) or not 0 < label <= LARGEST_LABEL:
            raise LossevoError(f"class {shown(name)} has label {shown(label)}, expected an integer above 0")
        if name in chosen or int(label) in chosen.values():
            raise LossevoError(f"class {shown(name)} (label {label}) is given twice; name each class and label once")
        chosen[name if isinstance(name, str) else int(label)] = int(label)
    if not chosen:
        raise LossevoError("classes is empty; expected at least one label, as [1]")
    return chosen
