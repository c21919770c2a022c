"""The folds, and the guard that keeps every subject that a search has seen out of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lossevo.comparison.contenders import Contender, SearchRecord
from lossevo.data import k_folds
from lossevo.errors import LossevoError
from lossevo.search import CohortSource

TestOn = Literal["untouched", "all"]


@dataclass(frozen=True, slots=True)
class FoldPlan:
    """Who is tested in which fold, and who is only ever trained on.

    ``leaked`` maps a loss to the tested subjects that its search has seen; it is empty unless leakage was allowed.
    """

    test: tuple[tuple[str, ...], ...]
    train_only: tuple[str, ...]
    leaked: Mapping[str, tuple[str, ...]]

    @property
    def tested(self) -> tuple[str, ...]:
        """All subjects that are tested, each in one fold."""
        return tuple(sorted(subject for fold in self.test for subject in fold))

    def train(self, fold: int) -> tuple[str, ...]:
        """The training subjects of a fold (counted from 0): all but its test subjects."""
        others = (subject for other, part in enumerate(self.test) if other != fold for subject in part)
        return tuple(sorted([*self.train_only, *others]))


def plan_folds(
    contenders: Sequence[Contender],
    hashes: Mapping[str, str],
    *,
    cohort: CohortSource,
    folds: int,
    seed: int,
    test_on: TestOn = "untouched",
    allow_leakage: bool = False,
) -> FoldPlan:
    """Draw ``folds`` folds over the subjects that no contender's search has trained or validated on.

    ``hashes`` maps each subject of the cohort to its content hash. With ``test_on="all"`` folds are drawn over all
    subjects. With ``allow_leakage`` that is done even if a search has seen them, and also where too few are
    untouched.

    Raises:
        LossevoError: too few subjects, too few untouched ones, or a test on subjects that a search has seen.
    """
    if len(hashes) < folds:
        raise LossevoError(f"{folds} folds need at least {folds} subjects, {cohort} has {len(hashes)}; use fewer folds")
    seen = {
        contender.name: seen_subjects(contender.search, hashes, cohort=cohort)
        for contender in contenders
        if contender.search is not None
    }
    untouched = set(hashes).difference(*seen.values())
    tested = set(hashes) if test_on == "all" or (allow_leakage and len(untouched) < folds) else untouched
    leaked = {name: tuple(sorted(tested & subjects)) for name, subjects in seen.items() if tested & subjects}
    counts = ", ".join(f"the search of {name} has seen {len(subjects)}" for name, subjects in seen.items() if subjects)
    ways_out = "take another cohort, or pass --allow-leakage, which all results will then say"
    if leaked and not allow_leakage:
        raise LossevoError(
            f"testing on all {len(hashes)} subjects of {cohort} would flatter evolved losses: {counts}; "
            f"test on the {len(untouched)} untouched subjects (--test-on untouched), {ways_out}"
        )
    if len(tested) < folds:
        fewer = "use fewer folds, " if len(untouched) >= 2 else ""
        raise LossevoError(
            f"{folds} folds need at least {folds} subjects that no compared search has trained or validated on, but of "
            f"the {len(hashes)} subjects of {cohort} {len(untouched)} are untouched ({counts}); "
            f"{fewer}leave losses out, {ways_out}"
        )
    return FoldPlan(
        test=k_folds(tested, folds, seed=seed), train_only=tuple(sorted(set(hashes) - tested)), leaked=leaked
    )


def seen_subjects(record: SearchRecord, hashes: Mapping[str, str], *, cohort: CohortSource) -> frozenset[str]:
    """The subjects of a cohort, given with their content hashes, that a search has trained or validated on.

    Content decides: a subject whose hash is on record is the recorded one, whatever it is called now. Content that is
    not on record may still be a recorded subject's, re-saved or cut anew. It is taken for it if it bears its name,
    and the name can be trusted: it is the same folder (or phantom), or a copy in which other subjects were
    recognised, or no hash was recorded for that name.
    """
    known = record.subjects
    touched = {*known.train, *known.validation}
    name_of_hash = {hash_: name for name, hash_ in known.hashes.items()}
    same_cohort = _same_source(record.cohort, cohort) or not name_of_hash.keys().isdisjoint(hashes.values())

    def seen(subject: str, hash_: str) -> bool:
        if hash_ in name_of_hash:
            return name_of_hash[hash_] in touched
        return subject in touched and (same_cohort or subject not in known.hashes)

    return frozenset(subject for subject, hash_ in hashes.items() if seen(subject, hash_))


def _same_source(recorded: CohortSource | None, cohort: CohortSource) -> bool:
    if recorded is None:
        return False
    if recorded.path is None or cohort.path is None:
        return recorded.path is cohort.path and recorded.phantom_seed == cohort.phantom_seed
    return recorded.path.resolve() == cohort.path.resolve()
