"""Which subjects train, validate and stay untouched. Always whole subjects: cases of one person never part ways.

A split depends on the *set* of subjects and the seed, not on the order in which the subjects are given. Folds that
others have drawn come as nnU-Net's ``splits_final.json`` or as the cohort's own fold numbers, in cases, and are taken
only if they keep every subject whole.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import Field

from lossevo.errors import LossevoError, shown


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


def nested_parts(
    subjects: Iterable[str], shares: Iterable[float], *, seed: int | Sequence[int]
) -> dict[float, tuple[str, ...]]:
    """Of each share so many of the subjects, rounded half up and at least one; a smaller part lies within a larger.

    Raises:
        LossevoError: a share is not in (0, 1], or there are no subjects.
    """
    order = _shuffled(subjects, seed)
    parts = {}
    for share in shares:
        if not (0 < share <= 1 and order):
            raise LossevoError(
                f"a part of {len(order)} subjects by the share {share}; give some, and a share in (0, 1]"
            )
        parts[share] = tuple(sorted(order[: _part(len(order), share)]))
    return parts


@dataclass(frozen=True, slots=True)
class Fold:
    """One fold out of several, counted from 1; written ``2/5``."""

    number: Annotated[int, Field(ge=1)]
    of: Annotated[int, Field(ge=2)]

    def __post_init__(self) -> None:
        if self.number > self.of:
            raise ValueError(f"there is no fold {self.number} of {self.of}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """A fold from its text.

        Raises:
            LossevoError: it is none.
        """
        match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text.strip(), re.ASCII)
        number, of = map(int, match.groups()) if match else (0, 0)
        if not 1 <= number <= of or of < 2:
            raise LossevoError(f"fold {shown(text)}: expected which one out of how many, as in 2/5")
        return cls(number, of)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def split_inside_fold(subjects: Iterable[str], fold: Fold, *, seed: int, validation_share: float = 0.3) -> SubjectSplit:
    """Leave the fold's test subjects untouched, and validate on ``validation_share`` of the others.

    The folds are those of :func:`k_folds` with the same seed.

    Raises:
        LossevoError: there are too few subjects.
    """
    known = set(subjects)
    untouched = k_folds(known, fold.of, seed=seed)[fold.number - 1]
    inner = split_subjects(known.difference(untouched), seed=seed, untouched_share=0, validation_share=validation_share)
    return SubjectSplit(inner.train, inner.validation, untouched)


@dataclass(frozen=True, slots=True)
class CaseFold:
    """A fold in case ids, as nnU-Net states it: what is trained on, and what is tested ("val")."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def read_splits(file: str | Path) -> tuple[CaseFold, ...]:
    """Read nnU-Net's ``splits_final.json``: a list of ``{"train": [case ids], "val": [case ids]}``, one per fold.

    Raises:
        LossevoError: the file cannot be read, or is not such a list.
    """
    try:
        document = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise LossevoError(
            f"{file}: cannot be read ({problem}); expected nnU-Net's splits_final.json, a list of folds with the case "
            'ids of "train" and "val"'
        ) from None
    if not isinstance(document, list) or not document:
        raise LossevoError(
            f'{file}: expected a list of folds such as [{{"train": ["case_1"], "val": ["case_2"]}}], as in nnU-Net\'s '
            f"splits_final.json, found {'an empty list' if document == [] else f'a JSON {type(document).__name__}'}"
        )
    folds = []
    for number, entry in enumerate(document):
        sides = [entry.get(side) if isinstance(entry, dict) else None for side in ("train", "val")]
        if not all(isinstance(side, list) and side and all(isinstance(name, str) for name in side) for side in sides):
            raise LossevoError(f'{file}: fold {number} needs "train" and "val", each a list of at least one case id')
        folds.append(CaseFold(*(tuple(side) for side in sides if side is not None)))
    return tuple(folds)


def stated_folds(fold_of_case: Mapping[str, int | None]) -> tuple[CaseFold, ...]:
    """The folds of a data set that numbers them, as MONAI's datalists do: fold k is tested, all else trained on.

    A case without a number (None) is trained on in every fold.

    Raises:
        LossevoError: fewer than two folds are stated.
    """
    numbers = sorted({number for number in fold_of_case.values() if number is not None})
    if len(numbers) < 2:
        raise LossevoError(
            f"the data set states {len(numbers)} fold(s), expected at least 2; name a splits_final.json, or let the "
            "folds be drawn"
        )
    return tuple(
        CaseFold(
            train=tuple(sorted(case for case, fold in fold_of_case.items() if fold != number)),
            val=tuple(sorted(case for case, fold in fold_of_case.items() if fold == number)),
        )
        for number in numbers
    )


def subjects_of_folds(
    folds: Sequence[CaseFold], subject_of_case: Mapping[str, str], *, source: str
) -> tuple[tuple[str, ...], ...]:
    """The subjects that each fold tests, sorted. ``source`` names the folds in messages.

    Raises:
        LossevoError: a fold names a case that the cohort lacks, leaves one of the cohort's out, or has a subject on
            both sides; or a subject is tested in more than one fold.
    """
    tested = []
    for number, fold in enumerate(folds):
        train, val = set(fold.train), set(fold.val)
        if unknown := (train | val) - subject_of_case.keys():
            raise LossevoError(
                f"{source}: fold {number} has {len(unknown)} case(s) that the cohort has not: {_named(unknown)}; "
                "it belongs to another cohort, or these cases are missing"
            )
        if missing := subject_of_case.keys() - train - val:
            raise LossevoError(
                f"{source}: fold {number} leaves out {len(missing)} case(s) of the cohort: {_named(missing)}; "
                'add each to "train" or "val"'
            )
        split = {subject_of_case[case] for case in train} & {subject_of_case[case] for case in val}
        if split:
            cases = sorted(case for case, subject in subject_of_case.items() if subject in split)
            raise LossevoError(
                f"{source}: fold {number} trains and tests on the same {len(split)} subject(s): {_named(split)} "
                f"(cases {_named(cases)}); keep all cases of a subject on one side"
            )
        tested.append(tuple(sorted({subject_of_case[case] for case in val})))
    times = Counter(subject for subjects in tested for subject in subjects)
    if repeated := [subject for subject, count in times.items() if count > 1]:
        raise LossevoError(
            f"{source}: {len(repeated)} subject(s) are tested in more than one fold: {_named(repeated)}; "
            "in a cross-validation each is tested once"
        )
    return tuple(tested)


def splits_json(tested: Iterable[Collection[str]], subject_of_case: Mapping[str, str]) -> str:
    """The text of a ``splits_final.json`` whose folds test the given subjects and train on all others."""
    folds = [
        {
            "train": sorted(case for case, subject in subject_of_case.items() if subject not in subjects),
            "val": sorted(case for case, subject in subject_of_case.items() if subject in subjects),
        }
        for subjects in tested
    ]
    return json.dumps(folds, indent=1, ensure_ascii=False) + "\n"


def _named(names: Iterable[str], most: int = 5) -> str:
    """``a, b, c, d, e and 3 more``."""
    ordered = sorted(names)
    rest = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(ordered[:most]) + rest


def _shuffled(subjects: Iterable[str], seed: int | Sequence[int]) -> list[str]:
    ordered = sorted(set(subjects))
    return [ordered[index] for index in np.random.default_rng(seed).permutation(len(ordered))]


def _part(count: int, share: float) -> int:
    return max(1, int(count * share + 0.5)) if share > 0 else 0
