"""Which integers seed which trainings: none is met twice, whatever the seeds of runs.

A loss must not be tested on the initial weights and batches on which it was chosen, so searches, comparisons and
meta-trainings have seeds of their own. Runs with seeds 1000 k … 1000 k + 999 share the integers from 10⁹ k; with r what
is left of a run's seed:

=================  =======================  ==================================================
from               numbers of a run         what for
=================  =======================  ==================================================
1000 r             500                      selection: what a loss is chosen by
1000 r + 500       500                      confirmation of what was chosen
10⁶ + 1000 r       1000                     comparison
2·10⁶ + 10⁵ r      10⁵                      tasks of a meta-training
=================  =======================  ==================================================
"""

from __future__ import annotations

MAX_RUN_SEED = 2**31 - 1
COMPARISON_SEEDS = 1000
_SELECTION_SEEDS = 500


def selection_seed(run_seed: int, number: int) -> int:
    """For any number; from 500 on they begin again."""
    return _first(run_seed, 0, 1000) + number % _SELECTION_SEEDS


def confirmation_seed(run_seed: int, number: int) -> int:
    """For numbers below 500."""
    return _first(run_seed, _SELECTION_SEEDS, 1000) + number


def comparison_seed(run_seed: int, number: int) -> int:
    """For numbers below :data:`COMPARISON_SEEDS`."""
    return _first(run_seed, 10**6, 1000) + number


def task_seed(run_seed: int, number: int) -> int:
    """For numbers below 10⁵."""
    return _first(run_seed, 2 * 10**6, 10**5) + number


def _first(run_seed: int, start: int, width: int) -> int:
    thousands, rest = divmod(run_seed, 1000)
    return 10**9 * thousands + start + width * rest
