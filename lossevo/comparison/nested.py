"""Searches inside the folds of a cross-validation: together they are one contender, and nobody is tested with a loss
that was found with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lossevo.comparison.contenders import Contender
from lossevo.comparison.provenance import SearchRecord, named
from lossevo.data import Fold
from lossevo.errors import LossevoError


def nested(contenders: Sequence[Contender]) -> list[Contender]:
    """The contenders, with those whose searches ran inside folds as one, in the place of the first.

    One such search alone stays what it is: its loss is tested on whom it has not seen.

    Raises:
        LossevoError: some folds are missing or given twice, or the searches do not share one set of folds.
    """
    inner = [(contender, search.fold) for contender in contenders if (search := contender.search) and search.fold]
    if len(inner) < 2:
        return list(contenders)
    parts = _in_order(inner)
    whole = Contender(
        name="nested",
        spec={"nested": [part.spec for part in parts]},
        formula="; ".join(f"fold {fold}: {part.formula}" for fold, part in enumerate(parts, start=1)),
        origin="; ".join(part.origin for part in parts),
        evolved=any(part.evolved for part in parts),
        parts=tuple(parts),
    )
    place = next(index for index, contender in enumerate(contenders) if contender is inner[0][0])
    others = [contender for contender in contenders if not any(contender is part for part, _ in inner)]
    return [*others[:place], whole, *others[place:]]


def folds_of(contender: Contender) -> tuple[tuple[str, ...], ...]:
    """The subjects that each fold tests: whom the search inside the others never touched."""
    return tuple(_record(part).subjects.untouched for part in contender.parts)


def _in_order(inner: Sequence[tuple[Contender, Fold]]) -> list[Contender]:
    count = Counter(fold for _, fold in inner)
    sizes = {fold.of for fold in count}
    if len(sizes) > 1:
        told = ", ".join(f"{contender.name} in fold {fold}" for contender, fold in inner)
        raise LossevoError(f"the searches are of different cross-validations ({told}); take those of one")
    (size,) = sizes
    if twice := [fold for fold, times in count.items() if times > 1]:
        names = named(contender.name for contender, fold in inner if fold == twice[0])
        raise LossevoError(f"fold {twice[0]} is searched twice ({names}); give one search of each fold")
    if missing := sorted({*range(1, size + 1)} - {fold.number for fold in count}):
        given = ", ".join(str(fold) for _, fold in inner)
        raise LossevoError(
            f"a nested comparison takes a search of each of the {size} folds, but only {given} are given; add --hof "
            f"for a 'lossevo search --fold' of {', '.join(f'{number}/{size}' for number in missing)}, or give one alone"
        )
    parts = [contender for contender, _ in sorted(inner, key=lambda item: item[1].number)]
    _require_one_set_of_folds(parts)
    return parts


def _require_one_set_of_folds(parts: Sequence[Contender]) -> None:
    everybody = [{*(known := _record(part).subjects).train, *known.validation, *known.untouched} for part in parts]
    tested = Counter(subject for part in parts for subject in _record(part).subjects.untouched)
    twice = [subject for subject, times in tested.items() if times > 1]
    if any(group != everybody[0] for group in everybody) or twice or {*tested} != everybody[0]:
        odd = named(twice or {*tested} ^ set.union(*everybody) or everybody[0] ^ everybody[-1])
        raise LossevoError(
            f"the folds of {parts[0].name} and the others are not those of one cross-validation (see {odd}); search "
            "every fold of the same cohort with the same --seed"
        )


def _record(part: Contender) -> SearchRecord:
    assert part.search is not None
    return part.search
