"""Auto Seg-Loss: CMA-ES on the curves of a metric (Li et al., ICLR 2021, arXiv 2010.07930).

The metric's formula stays; its logical operations become monotone curves g of the probability. With the label y,

    AND(y, p) = y g(p),    OR(y, p) = y + (1 − y) g(p),    g(0) = 0,  g(1) = 1,

so that both have the values of the truth table where p is 0 or 1. IoU is Σ AND / Σ OR, each with a curve of its own;
Dice is 2 Σ AND / (Σ y + Σ g(p)). The loss is 1 minus the metric. The search begins with g(p) = p, the soft metric.

What differs from the paper: a curve is a Bernstein polynomial of the loss language (``curve4``), where theirs is made
of pieces of quadratic Bézier curves; the ratios of its increments are searched by their logarithms with CMA-ES, where
theirs is a truncated normal distribution moved by PPO; the mean is over the foreground classes, each in an image. That
the label is left as it is follows from g(0) = 0 and g(1) = 1. The paper is recalled here, not checked.
"""

from __future__ import annotations

from lossevo.search.strategies.cma_es import Form
from lossevo.search.strategy_settings import AutoSegLoss


def metric_form(settings: AutoSegLoss) -> Form:
    """The metric with straight curves."""
    count = settings.control_points
    first, second = (_curve(count, begin) for begin in (0, count))
    if settings.metric == "iou":
        formula = f"1 - foreground_mean(sum(y * {first}) / sum(y + (1 - y) * {second}))"
    else:
        formula = f"1 - foreground_mean(2 * sum(y * {first}) / sum(y + {second}))"
    return Form(formula, [1.0] * (2 * count), by_logarithm=True)


def _curve(count: int, begin: int) -> str:
    """A curve of p whose increments are parameters from ``begin`` on."""
    increments = ", ".join(f"{{{number}}}" for number in range(begin, begin + count))
    return f"curve{count}(p, {increments})"
