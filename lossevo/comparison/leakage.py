"""The folds, and the guard that keeps every subject that a search has seen out of them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lossevo.comparison.contenders import Contender
from lossevo.comparison.provenance import SearchRecord, named
from lossevo.data import k_folds
from lossevo.data.preprocessing import LABEL_MARK
from lossevo.errors import LossevoError
from lossevo.experiment import CohortSource

TestOn = Literal["untouched", "all"]


@dataclass(frozen=True, slots=True)
class FoldPlan:
    """Who is tested in which fold, and who is only ever trained on.

    ``leaked`` maps a loss to the tested subjects that its search has seen; it is empty unless leakage was allowed.
    ``left_out`` are, of a cohort that is tested alone, those who are not: a compared search has seen them.
    """

    test: tuple[tuple[str, ...], ...]
    train_only: tuple[str, ...]
    leaked: Mapping[str, tuple[str, ...]]
    left_out: tuple[str, ...] = ()

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
    given: Sequence[Sequence[str]] | None = None,
) -> FoldPlan:
    """Draw ``folds`` folds over the subjects on whom no contender was chosen: those that no search has seen.

    ``hashes`` maps each subject of the cohort to its content hash. With ``test_on="all"`` folds are drawn over all
    subjects. With ``allow_leakage`` that is done even if a search has seen them, and also where too few are
    untouched. ``given`` are the test subjects of ``folds`` folds that are not to be drawn; of them, too, only the
    untouched are tested, and everybody else is trained on.

    Raises:
        LossevoError: too few subjects, too few untouched ones, or a test on subjects that a search has seen.
    """
    pool = set(hashes) if given is None else {subject for subjects in given for subject in subjects}
    if strangers := pool - hashes.keys():
        raise LossevoError(
            f"the folds test subjects that {cohort} has not ({named(strangers)}); take the cohort that they are of"
        )
    if len(pool) < folds:
        raise LossevoError(f"{folds} folds need at least {folds} subjects, {cohort} has {len(pool)}; use fewer folds")
    seen = {
        contender.name: seen_subjects(contender.chosen_by, hashes, cohort=cohort)
        for contender in contenders
        if contender.chosen_by is not None
    }
    untouched = pool.difference(*seen.values())
    enough = len(untouched) >= folds if given is None else all(untouched.intersection(subjects) for subjects in given)
    tested = pool if test_on == "all" or (allow_leakage and not enough) else untouched
    leaked = {name: tuple(sorted(tested & subjects)) for name, subjects in seen.items() if tested & subjects}
    leaked |= _leaked_in_folds(contenders, hashes, tested, given or (), cohort)
    counts = ", ".join(f"the search of {name} has seen {len(subjects)}" for name, subjects in seen.items() if subjects)
    ways_out = "take another cohort, or pass --allow-leakage, which all results will then say"
    if leaked.keys() - seen.keys() and not allow_leakage:
        name, subjects = next((name, subjects) for name, subjects in leaked.items() if name not in seen)
        raise LossevoError(
            f"{name}: {named(subjects)} would be tested with a loss whose search has seen the same images or labels, "
            f"under another name; remove the copies, {ways_out}"
        )
    if leaked and not allow_leakage:
        raise LossevoError(
            f"testing on all {len(pool)} subjects of {cohort} would flatter evolved losses: {counts}; "
            f"test on the {len(untouched)} untouched subjects (--test-on untouched), {ways_out}"
        )
    if not enough and tested is untouched:
        fewer = "use fewer folds, " if given is None and len(untouched) >= 2 else ""
        needed = f"at least {folds} subjects" if given is None else "in each a subject"
        raise LossevoError(
            f"{folds} folds need {needed} that no compared search has trained or validated on, but of "
            f"the {len(pool)} subjects of {cohort} {len(untouched)} are untouched ({counts}); "
            f"{fewer}leave losses out, {ways_out}"
        )
    if given is None:
        test = k_folds(tested, folds, seed=seed)
    else:
        test = tuple(tuple(sorted(tested.intersection(subjects))) for subjects in given)
    return FoldPlan(test=test, train_only=tuple(sorted(set(hashes) - tested)), leaked=leaked)


def _leaked_in_folds(
    contenders: Sequence[Contender],
    hashes: Mapping[str, str],
    tested: set[str],
    folds: Sequence[Sequence[str]],
    cohort: CohortSource,
) -> dict[str, tuple[str, ...]]:
    """For each nested contender that has any, the subjects tested in a fold whose own search has seen them."""
    leaked: dict[str, tuple[str, ...]] = {}
    for contender in contenders:
        found = {
            subject
            for part, subjects in zip(contender.parts, folds, strict=False)
            if part.chosen_by is not None
            for subject in seen_subjects(part.chosen_by, hashes, cohort=cohort).intersection(subjects, tested)
        }
        if found:
            leaked[contender.name] = tuple(sorted(found))
    return leaked


def seen_subjects(record: SearchRecord, hashes: Mapping[str, str], *, cohort: CohortSource) -> frozenset[str]:
    """The subjects of a cohort, given with their content hashes, that a search has trained or validated on.

    Content decides: a subject of whom an image is on record is the recorded one, whatever it is called now and whatever
    other images it has. If no image of it is, a label decides: intensities may have been rescaled, but who has the same
    foreground voxel for voxel is the same (older records have no labels). Content that is not on record may still be a
    recorded subject's, re-saved or cut anew. It is taken for it if it bears its name, and the name can be trusted: it
    is the same folder (or phantom), or a copy in which other subjects were recognised, or no hash was recorded for that
    name.
    """
    known = record.subjects
    touched = {*known.train, *known.validation}
    names_of: dict[str, set[str]] = defaultdict(set)
    for name, hash_ in known.hashes.items():
        for part in hash_.split(","):
            names_of[part].add(name)

    def on_record(parts: Iterable[str]) -> set[str]:
        return {name for part in parts if part in names_of for name in names_of[part]}

    recorded = {subject: on_record(_images(hash_)) or on_record(_labels(hash_)) for subject, hash_ in hashes.items()}
    same_cohort = _same_source(record.cohort, cohort) or any(recorded.values())

    def seen(subject: str) -> bool:
        if recorded[subject]:
            return not touched.isdisjoint(recorded[subject])
        return subject in touched and (same_cohort or subject not in known.hashes)

    return frozenset(filter(seen, hashes))


@dataclass(frozen=True, slots=True)
class Copy:
    """A subject that is tested and the one trained on whose image, or whose label, it has."""

    tested: str
    trained: str
    by: Literal["image", "label"]


def copies(trained: Mapping[str, str], tested: Mapping[str, str]) -> list[Copy]:
    """The subjects of ``tested`` who are in ``trained``, too, by their content hashes.

    A label that several subjects of one side have, such as a template, tells nothing of who it is.
    """

    def owners(hashes: Mapping[str, str], by: Literal["image", "label"]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for subject, hash_ in hashes.items():
            for part in {*(_labels(hash_) if by == "label" else _single_images(hash_))}:
                found[part].append(subject)
        return found

    images = owners(trained, "image")
    found = {
        subject: Copy(subject, images[part][0], "image")
        for part, subjects in owners(tested, "image").items()
        if part in images
        for subject in subjects
    }
    labels = owners(trained, "label")
    for part, subjects in owners(tested, "label").items():
        if len(subjects) == len(labels.get(part, ())) == 1:
            found.setdefault(subjects[0], Copy(subjects[0], labels[part][0], "label"))
    return sorted(found.values(), key=lambda copy: (copy.by, copy.tested))


def same_content(recorded: str, current: str, *, labels: bool) -> bool:
    """Whether two hashes are of a subject with the same images and, with ``labels``, the same labels if on record."""
    if _digest(current) not in _images(recorded):
        return False
    before, now = _labels(recorded), _labels(current)
    return not labels or not before or before == now


def _images(subject_hash: str) -> set[str]:
    """What the images of a subject may be recorded as: each for itself, or (lossevo 0.1) one hash over all of them."""
    return {*_single_images(subject_hash), _digest(subject_hash)}


def _digest(subject_hash: str) -> str:
    return hashlib.sha256("".join(_single_images(subject_hash)).encode()).hexdigest()


def _single_images(subject_hash: str) -> list[str]:
    return [part for part in subject_hash.split(",") if not part.startswith(LABEL_MARK)]


def _labels(subject_hash: str) -> list[str]:
    return [part for part in subject_hash.split(",") if part.startswith(LABEL_MARK)]


def _same_source(recorded: CohortSource | None, cohort: CohortSource) -> bool:
    if recorded is None:
        return False
    if recorded.path is None or cohort.path is None:
        return recorded.path is cohort.path and recorded.phantom_seed == cohort.phantom_seed
    # Two lists in one folder, or a folder within the other, speak of the same patients.
    paths = (recorded.path.resolve(), cohort.path.resolve())
    one, other = (path.parent if path.suffix in (".csv", ".json") else path for path in paths)
    return one == other or one in other.parents or other in one.parents
