"""Which subjects train, validate and stay untouched. Always whole subjects: cases of one person never part ways.

A split depends on the *set* of subjects and the seed, not on the order in which the subjects are given.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lossevo.errors import LossevoError


@dataclass(frozen=True, slots=True)
class SubjectSplit:
    """Disjoint subject ids, each part sorted: what a search trains on, validates on, and must never see."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    untouched: tuple[str, ...]


def split_subjects(
    subjects: Iterable[str], *, seed: int, untouched_share: float = 1 / 3, validation_share: float = 0.3
) -> SubjectSplit:
    """Set ``untouched_share`` of the subjects aside, then validate on ``validation_share`` of the others.

    Shares are rounded half up; every part whose share is above 0 gets at least one subject. With the defaults 38
    subjects become 17 for training, 8 for validation and 13 untouched.

    Raises:
        LossevoError: a share is not in [0, 1), or there are too few subjects to fill every part.
    """
    for name, share in (("untouched_share", untouched_share), ("validation_share", validation_share)):
        if not 0 <= share < 1:
            raise LossevoError(f"{name} must be at least 0 and below 1, got {share}")
    order = _shuffled(subjects, seed)
    untouched = _part(len(order), untouched_share)
    validation = _part(len(order) - untouched, validation_share)
    if len(order) - untouched - validation < 1:
        raise LossevoError(
            f"{len(order)} subject(s) cannot be split into untouched ({untouched_share:.0%}), validation "
            f"({validation_share:.0%} of the others) and training subjects: add cases or lower the shares"
        )
    return SubjectSplit(
        train=tuple(sorted(order[untouched + validation :])),
        validation=tuple(sorted(order[untouched : untouched + validation])),
        untouched=tuple(sorted(order[:untouched])),
    )


def k_folds(subjects: Iterable[str], k: int, *, seed: int) -> tuple[tuple[str, ...], ...]:
    """Test subjects of each of ``k`` folds: disjoint, covering all subjects, sizes differing by at most one.

    Raises:
        LossevoError: ``k`` is below 2 or above the number of subjects.
    """
    order = _shuffled(subjects, seed)
    if k < 2:
        raise LossevoError(f"cross-validation needs at least 2 folds, got {k}")
    if len(order) < k:
        raise LossevoError(f"{k} folds need at least {k} subjects, there are {len(order)}: use fewer folds")
    return tuple(tuple(sorted(order[fold::k])) for fold in range(k))


def _shuffled(subjects: Iterable[str], seed: int) -> list[str]:
    ordered = sorted(set(subjects))
    return [ordered[index] for index in np.random.default_rng(seed).permutation(len(ordered))]


def _part(count: int, share: float) -> int:
    return max(1, int(count * share + 0.5)) if share > 0 else 0
