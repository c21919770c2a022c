"""Which integers seed which trainings: none is met twice, whatever the seeds of runs.

A loss must not be tested on the initial weights and batches on which it was chosen, so searches, comparisons,
meta-trainings and tunings have seeds of their own. A seed has 63 bits, and each field is a number below its limit:

==== ================ =========================================================================================
bits field            limit
==== ================ =========================================================================================
31   the run's seed   2³¹
3    purpose          of a search: selection, confirmation; comparison; of a meta-training: task, evaluation,
                      confirmation; of a tuning: selection, confirmation
29   number           2²⁹; of a selection 20 bits for the candidate and 9 for its repetition
==== ================ =========================================================================================
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from lossevo.errors import LossevoError

MAX_RUN_SEED: Final = 2**31 - 1
COMPARISON_SEEDS: Final = 1000
CANDIDATES: Final = 2**20
REPETITIONS: Final = 2**9
_PURPOSES: Final = 2**3
_NUMBERS: Final = CANDIDATES * REPETITIONS


class _Purpose(IntEnum):
    SELECTION = 0
    CONFIRMATION = 1
    COMPARISON = 2
    TASK = 3
    META_EVALUATION = 4
    META_CONFIRMATION = 5
    TUNING = 6
    TUNING_CONFIRMATION = 7


def selection_seed(run_seed: int, candidate: int, repetition: int = 0) -> int:
    """What a loss is chosen by: repetition 0, 1, … of a search's candidate number 0, 1, …

    Raises:
        LossevoError: more candidates or repetitions than there are seeds for.
    """
    if not (0 <= candidate < CANDIDATES and 0 <= repetition < REPETITIONS):
        raise LossevoError(
            f"candidate {candidate}, repetition {repetition}: a search has seeds for {CANDIDATES} candidates and "
            f"{REPETITIONS} repetitions of each; give it a smaller budget"
        )
    return _seed(run_seed, _Purpose.SELECTION, candidate * REPETITIONS + repetition)


def reference_seed(run_seed: int, number: int) -> int:
    """What a search measures a known loss by before it begins: number 0, 1, …; those of its last possible candidate."""
    return selection_seed(run_seed, CANDIDATES - 1, number)


def audit_seed(run_seed: int, number: int) -> int:
    """Of what a search's screening rejected and is trained all the same: number 0, 1, …, those of the last possible
    candidates but one, which no search comes to.
    """
    return selection_seed(run_seed, CANDIDATES - 2 - number)


def confirmation_seed(run_seed: int, number: int) -> int:
    """What a loss that a search chose is confirmed by: number 0, 1, …"""
    return _seed(run_seed, _Purpose.CONFIRMATION, number)


def comparison_seed(run_seed: int, number: int) -> int:
    """What losses are compared by: number 0, 1, …"""
    return _seed(run_seed, _Purpose.COMPARISON, number)


def task_seed(run_seed: int, number: int) -> int:
    """Of the tasks of a meta-training: number 0, 1, …"""
    return _seed(run_seed, _Purpose.TASK, number)


def meta_evaluation_seed(run_seed: int, number: int) -> int:
    """What a learned loss is chosen by: number 0, 1, …"""
    return _seed(run_seed, _Purpose.META_EVALUATION, number)


def meta_confirmation_seed(run_seed: int, number: int) -> int:
    """What a learned loss is confirmed by: number 0, 1, …"""
    return _seed(run_seed, _Purpose.META_CONFIRMATION, number)


def tuning_seed(run_seed: int, number: int) -> int:
    """What settings of a loss are chosen by: number 0, 1, …"""
    return _seed(run_seed, _Purpose.TUNING, number)


def tuning_confirmation_seed(run_seed: int, number: int) -> int:
    """What chosen settings of a loss are confirmed by: number 0, 1, …"""
    return _seed(run_seed, _Purpose.TUNING_CONFIRMATION, number)


def _seed(run_seed: int, purpose: _Purpose, number: int) -> int:
    if not (0 <= run_seed <= MAX_RUN_SEED and 0 <= number < _NUMBERS):
        raise LossevoError(f"seed {run_seed}, number {number}: give a seed up to {MAX_RUN_SEED}, and fewer trainings")
    return (run_seed * _PURPOSES + purpose) * _NUMBERS + number
