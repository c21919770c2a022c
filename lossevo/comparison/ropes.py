"""The largest differences without practical relevance (regions of practical equivalence), one per metric."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lossevo.errors import LossevoError, shown
from lossevo.metrics import Metric, parse_metric


def parse_ropes(text: str | None, metrics: Sequence[Metric]) -> dict[str, float]:
    """The rope of each metric, by name, in its unit: what ``text`` states, else the metric's own.

    ``text`` is a number for the first metric, as ``0.01``, or names metrics, as ``dice=0.01,hd95=1``.

    Raises:
        LossevoError: no number, out of range, of a metric that is not among ``metrics``, or stated twice.
    """
    stated: dict[str, float] = {}
    for item in text.split(",") if text is not None else ():
        name, equals, number = item.rpartition("=")
        metric = _named(name, metrics) if equals else metrics[0]
        rope = _checked(number.strip(), metric)
        if metric.name in stated:
            raise LossevoError(f"--rope states {metric.name} twice; state it once")
        stated[metric.name] = rope
    return {metric.name: stated.get(metric.name, metric.rope) for metric in metrics}


def _named(name: str, metrics: Sequence[Metric]) -> Metric:
    try:
        metric = parse_metric(name)
    except LossevoError as problem:
        raise LossevoError(f"--rope: {problem}") from None
    if metric not in metrics:
        measured = ",".join(other.name for other in metrics)
        raise LossevoError(f"--rope names {metric.name}, which is not among --metrics {measured}; leave it out")
    return metric


def _checked(number: str, metric: Metric) -> float:
    try:
        rope = float(number)
    except ValueError:
        rope = math.nan
    largest = math.inf if metric.unit else 1.0
    if not (math.isfinite(rope) and 0 <= rope <= largest):
        allowed = "from 0 up" if metric.unit else "from 0 to 1"
        unit = f" in {metric.unit}" if metric.unit else ""
        raise LossevoError(
            f"--rope of {metric.name} is {shown(number)}; give a difference{unit} {allowed}, such as "
            f"'{metric.name}={metric.rope:g}'"
        )
    return rope
