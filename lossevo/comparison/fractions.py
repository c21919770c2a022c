"""Trainings on a part of a fold's training subjects: which parts there are, and who is in them.

The subjects of a part are drawn by the comparison's seed, for each fold anew. They are the same for all losses and for
all repetitions of a fold, and a smaller part lies within a larger one. All training subjects, the fraction 1, are
always trained on: they give the main result.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from lossevo.comparison.leakage import FoldPlan
from lossevo.comparison.provenance import named
from lossevo.data import nested_parts
from lossevo.errors import LossevoError, shown
from lossevo.training.reference import ReferenceCase, missing_classes

WHOLE = 1.0
"""All training subjects of a fold."""


def parse_fractions(text: str) -> tuple[float, ...]:
    """The fractions below 1 that ``text`` names, as ``0.1,0.25,0.5,1``, the largest first. 1 need not be named.

    Raises:
        LossevoError: one is no number or not in (0, 1], is given twice, or there is none below 1.
    """
    found: list[float] = []
    for item in text.split(","):
        fraction = _checked(item.strip())
        if fraction in found:
            raise LossevoError(f"--train-fraction names {fraction:g} twice; name each fraction once")
        found.append(fraction)
    below = tuple(sorted((fraction for fraction in found if fraction < WHOLE), reverse=True))
    if not below:
        raise LossevoError(
            "--train-fraction names 1 alone, which is always trained with; name smaller ones, such as 0.1,0.25,0.5"
        )
    return below


def _checked(item: str) -> float:
    try:
        fraction = float(item)
    except ValueError:
        fraction = -1.0
    if not 0 < fraction <= WHOLE:
        raise LossevoError(
            f"--train-fraction has {shown(item)}; give shares of the training subjects above 0 and up to 1, by commas, "
            "such as 0.1,0.25,0.5"
        )
    return fraction


def training_parts(plan: FoldPlan, fold: int, fractions: Sequence[float], seed: int) -> dict[float, tuple[str, ...]]:
    """The training subjects of a fold (counted from 0) by fraction, all of them first."""
    # Folds are drawn by [seed], which a generator does not tell from [seed, 0].
    return {WHOLE: plan.train(fold), **nested_parts(plan.train(fold), fractions, seed=(seed, fold + 1))}


def require_different_parts(plan: FoldPlan, fractions: Sequence[float], seed: int) -> None:
    """Refuse fractions that are the same subjects in some fold.

    Raises:
        LossevoError: as it says.
    """
    for fold in range(len(plan.test)):
        parts = training_parts(plan, fold, fractions, seed)
        by_size: dict[int, float] = {}
        for fraction, subjects in parts.items():
            twin = by_size.setdefault(len(subjects), fraction)
            if twin != fraction:
                count = len(subjects)
                raise LossevoError(
                    f"--train-fraction: {fraction:g} and {twin:g} of the {len(parts[WHOLE])} training subjects"
                    f"{_of_fold(plan, fold + 1)} are the same {count} subject{'s' if count > 1 else ''}; leave "
                    f"{fraction:g} out, or give another"
                )


def part_sizes(plan: FoldPlan, fractions: Sequence[float], seed: int) -> dict[float, tuple[int, int]]:
    """How many training subjects a fraction is, in the fold with the fewest and in that with the most."""
    folds = [training_parts(plan, fold, fractions, seed) for fold in range(len(plan.test))]
    counts = {fraction: [len(parts[fraction]) for parts in folds] for fraction in (WHOLE, *fractions)}
    return {fraction: (min(found), max(found)) for fraction, found in counts.items()}


def warn_of_classes_out_of_parts(
    plan: FoldPlan,
    fractions: Sequence[float],
    seed: int,
    cases: Sequence[ReferenceCase],
    class_names: Sequence[str],
) -> None:
    """Say before any training which classes no subject of a part has, though all training subjects have them."""
    for fraction in fractions:
        lacking: dict[int, set[str]] = {}
        for fold in range(len(plan.test)):
            part = training_parts(plan, fold, (fraction,), seed)
            missing = {*missing_classes(cases, part[fraction], class_names)}
            if missing := missing - {*missing_classes(cases, part[WHOLE], class_names)}:
                lacking[fold + 1] = missing
        if lacking:
            folds = _of_fold(plan, *lacking)
            warnings.warn(
                f"--train-fraction {fraction:g}: none of these training subjects{folds} has "
                f"{named(set.union(*lacking.values()))}, so no network can learn it there; take a larger fraction or "
                "another --seed",
                stacklevel=4,
            )


def _of_fold(plan: FoldPlan, *folds: int) -> str:
    return f" of fold {', '.join(map(str, folds))}" if len(plan.test) > 1 else ""
