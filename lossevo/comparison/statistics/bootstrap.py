"""Bootstrap intervals of means: bias-corrected and accelerated (BCa), by SciPy.

Efron, Better bootstrap confidence intervals, J. Am. Stat. Assoc. 1987, 82:171. Scores near their ceiling are skewed;
the percentile interval ignores that, BCa moves both ends for it. It still is somewhat too narrow below 20 subjects.
"""

from __future__ import annotations

import warnings

import numpy as np
import scipy

from lossevo.comparison.statistics.table import Array

CONFIDENCE = 0.95
RESAMPLES = 9_999
_CHUNK = 2**22


def bootstrap_interval(
    values: Array, generator: np.random.Generator, *, resamples: int = RESAMPLES
) -> tuple[float | None, float | None]:
    """95 % BCa interval of the mean of ``values``; see :func:`bootstrap_intervals`."""
    return bootstrap_intervals(values[np.newaxis], generator, resamples=resamples)[0]


def bootstrap_intervals(
    rows: Array, generator: np.random.Generator, *, resamples: int = RESAMPLES
) -> list[tuple[float | None, float | None]]:
    """95 % BCa interval of the mean of each row (rows, values); all rows are resampled alike.

    Degenerate rows: fewer than two values say nothing about spread, so (None, None). Equal values have no spread, so
    both ends are that value. Two values span the interval from one to the other, which says little. Should BCa have no
    finite end, the percentile interval stands in.
    """
    count = rows.shape[1]
    if count < 2:
        return [(None, None)] * len(rows)
    intervals: list[tuple[float | None, float | None]] = [(float(row[0]), float(row[0])) for row in rows]
    varying = np.flatnonzero(np.ptp(rows, axis=1) > 0)
    if varying.size == 0:
        return intervals
    data = rows[varying]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)  # what it warns of is looked at below
        result = scipy.stats.bootstrap(
            (data,),
            np.mean,
            axis=-1,
            vectorized=True,
            method="BCa",
            n_resamples=resamples,
            confidence_level=CONFIDENCE,
            batch=max(1, _CHUNK // data.size),
            rng=generator,
        )
    tail = (1 - CONFIDENCE) / 2
    bca = np.array([result.confidence_interval.low, result.confidence_interval.high])
    percentile = np.quantile(result.bootstrap_distribution, [tail, 1 - tail], axis=-1)
    for row, (low, high) in zip(varying, np.where(np.isfinite(bca), bca, percentile).T, strict=True):
        intervals[row] = float(low), float(high)
    return intervals
