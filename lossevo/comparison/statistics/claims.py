"""What a claim "A is better than B" risks, and whether the difference is of any use.

Both read the posterior of the mean difference over subjects under a flat prior: Student's t with n - 1 degrees of
freedom, centre d̄ and scale s_d/√n. Subjects count as independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy

from lossevo.comparison.statistics.table import TIE_DECIMALS, Array


@dataclass(frozen=True, slots=True)
class Relevance:
    """Probabilities that the mean difference is above rope, within ± rope, below -rope; they sum to 1."""

    better: float
    equivalent: float
    worse: float


def false_claim_probability(differences: Array) -> float | None:
    """Probability that the claim "A is better than B" is false, from the paired ``differences`` A - B in utility.

    P = t_{n-1}(√n (μ_B - μ_A)/√(s_A² + s_B² - 2 r s_A s_B)), with t_{n-1} the distribution function; what is under the
    root is the variance of the differences (Claims Reloaded, arXiv 2505.04720). It is also the p of the one-sided
    paired t-test.

    Degenerate: None for fewer than two subjects. Differences that are all the same leave no doubt: 0 if they are above
    0, 1 if below, and 1/2 if all are 0.
    """
    differences = np.round(differences, TIE_DECIMALS)
    if differences.size < 2:
        return None
    if np.ptp(differences) == 0:
        return 0.5 - 0.5 * float(np.sign(differences[0]))
    return _probability_below(differences, 0.0)


def relevance(differences: Array, rope: float) -> Relevance | None:
    """How probable a difference of practical relevance is: of more than ``rope`` (region of practical equivalence).

    The Bayesian t-test of Benavoli et al., Time for a change, J. Mach. Learn. Res. 2017, 18:77, without correlation
    (ρ = 0), since the differences are those of subjects, and not of cross-validation folds. With ``rope`` 0 ``worse``
    is :func:`false_claim_probability`. Degenerate: None for fewer than two subjects. Differences that are all the same
    lie where they are with certainty; one of just ``rope`` is equivalent.

    Raises:
        ValueError: ``rope`` is negative or no number.
    """
    if not 0 <= rope < math.inf:
        raise ValueError(f"rope is {rope}; give a number from 0 up")
    differences = np.round(differences, TIE_DECIMALS)
    if differences.size < 2:
        return None
    if np.ptp(differences) == 0:
        better, worse = float(differences[0] > rope), float(differences[0] < -rope)
    else:
        better, worse = _probability_below(-differences, -rope), _probability_below(differences, -rope)
    return Relevance(better, max(0.0, 1.0 - better - worse), worse)


def _probability_below(differences: Array, bound: float) -> float:
    """That the mean difference is below ``bound``."""
    scale = float(differences.std(ddof=1)) / math.sqrt(differences.size)
    return float(scipy.stats.t.cdf((bound - float(differences.mean())) / scale, df=differences.size - 1))
