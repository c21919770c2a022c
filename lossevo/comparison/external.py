"""An external test: losses are trained on the whole of one cohort and tested on another.

There are no folds. The subjects of the second cohort are tested, but for those that a compared search has seen; they
keep their names. If both cohorts have a subject or case of one name, those trained on are called ``COHORT/NAME``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lossevo.comparison.contenders import Contender
from lossevo.comparison.leakage import FoldPlan, TestOn, copies, seen_subjects
from lossevo.comparison.provenance import named
from lossevo.data import Cohort, LabelScheme, PreparedCohort
from lossevo.data.intensities import mode_of
from lossevo.data.preprocessing import PreprocessingSettings
from lossevo.errors import LossevoError, nearest, shown
from lossevo.experiment import CohortSource


def parse_test_on(text: str | None, format: str | None) -> tuple[TestOn, CohortSource | None]:
    """What ``--test-on`` names: whom of the cohort to test, or a second cohort, read in ``format``.

    Raises:
        LossevoError: neither, or a format of nothing.
    """
    if text is None or text in ("untouched", "all"):
        if format is not None:
            raise LossevoError(f"--test-format is {format}, but --test-on names no cohort whose format that is")
        return "all" if text == "all" else "untouched", None
    path = Path(text)
    if not text or not path.exists():
        raise LossevoError(
            f"--test-on is {shown(text)}{nearest(text, ('untouched', 'all'))}; give untouched, all, or the path of a "
            "second cohort, and there is none at this place"
        )
    return "untouched", CohortSource(path=path.resolve(), format=format)


@dataclass(frozen=True, slots=True)
class ExternalTest:
    """The cohort to test on. ``prefix`` comes before the names of the other's subjects and cases."""

    tested: PreparedCohort
    prefix: str

    @classmethod
    def of(cls, trained: PreparedCohort, tested: PreparedCohort) -> Self:
        """Two prepared cohorts whose subjects have names of their own."""
        return cls(tested, _prefix(trained, tested))

    def hashes(self, trained: PreparedCohort) -> dict[str, str]:
        """The content hashes of the subjects of both cohorts, by their names here."""
        own = {f"{self.prefix}{subject}": hash_ for subject, hash_ in trained.subject_hashes.items()}
        return {**own, **self.tested.subject_hashes}


def require_same_task(
    trained: Cohort,
    tested: Cohort,
    source: CohortSource,
    test_source: CohortSource,
    labels: LabelScheme,
    settings: PreprocessingSettings,
) -> None:
    """Refuse a second cohort with other classes or channels; warn of channels that are called otherwise.

    Raises:
        LossevoError: as it says.
    """
    if trained.class_names != tested.class_names:
        classes = [", ".join(cohort.class_names[1:]) for cohort in (trained, tested)]
        raise LossevoError(
            f"labels {labels} make other classes of the two cohorts: {classes[0]} of {source}, but {classes[1]} of "
            f"{test_source}; give --labels a YAML file whose classes fit both"
            + ("" if labels.classes == "merged" else ", or merged")
        )
    ours, theirs = trained.channel_names, tested.channel_names
    told = f"{source} has {len(ours)} ({', '.join(ours)}), {test_source} has {len(theirs)} ({', '.join(theirs)})"
    if len(ours) != len(theirs):
        raise LossevoError(f"the two cohorts have another number of channels: {told}; give both the same channels")
    if settings.intensity == "auto" and [*map(mode_of, ours)] != [*map(mode_of, theirs)]:
        raise LossevoError(
            f"by the names of their channels the two cohorts are scaled otherwise: {told}; give the channels the same "
            "names, or set preprocessing.intensity in a --task file"
        )
    if ours != theirs and {*ours} == {*theirs}:
        raise LossevoError(f"the two cohorts have their channels in another order: {told}; give both the same order")
    if ours != theirs:
        warnings.warn(
            f"the channels of the two cohorts are called otherwise, and taken as they stand: {told}", stacklevel=3
        )


def plan_external_test(
    contenders: Sequence[Contender],
    trained: Mapping[str, str],
    tested: Mapping[str, str],
    *,
    prefix: str,
    source: CohortSource,
    test_source: CohortSource,
    allow_leakage: bool = False,
) -> FoldPlan:
    """One fold, which trains on all of one cohort and tests those of the other whom no compared search has seen.

    ``trained`` and ``tested`` map the subjects of both to their content hashes, by their own names. With
    ``allow_leakage`` all are tested where no other is left.

    Raises:
        LossevoError: nobody is left to test, or somebody who is tested is a copy of one who is trained on.
    """
    seen = {
        contender.name: seen_subjects(contender.chosen_by, tested, cohort=test_source)
        for contender in contenders
        if contender.chosen_by is not None
    }
    everybody = {*tested}
    untouched = everybody.difference(*seen.values())
    if not untouched and not allow_leakage:
        counts = ", ".join(
            f"the search of {name} has seen {len(subjects)}" for name, subjects in seen.items() if subjects
        )
        raise LossevoError(
            f"no subject of {test_source} is left to test: of {len(everybody)} subjects, {counts}; leave losses out, "
            "test on another cohort, or pass --allow-leakage, which all results will then say"
        )
    chosen = untouched or everybody
    _require_no_copies(trained, {name: tested[name] for name in sorted(chosen)}, source, test_source)
    return FoldPlan(
        test=(tuple(sorted(chosen)),),
        train_only=tuple(sorted(f"{prefix}{subject}" for subject in trained)),
        leaked={name: tuple(sorted(chosen & subjects)) for name, subjects in seen.items() if chosen & subjects},
        left_out=tuple(sorted(everybody - chosen)),
    )


def warn_of_one_name(trained: PreparedCohort, tested: PreparedCohort, source: CohortSource, test: CohortSource) -> None:
    """Say which subjects have one name in both cohorts: who they are the names do not tell."""
    if both := trained.subject_hashes.keys() & tested.subject_hashes.keys():
        warnings.warn(
            f"{len(both)} subject{'s' if len(both) > 1 else ''} of {source} and of {test} have one name "
            f"({named(both)}), but other images: taken for different people. Of one person leave one out",
            stacklevel=3,
        )


def _require_no_copies(
    trained: Mapping[str, str], tested: Mapping[str, str], source: CohortSource, test_source: CohortSource
) -> None:
    found = copies(trained, tested)
    if not found:
        return
    copy = found[0]
    same = "the same image as" if copy.by == "image" else "other images than, but voxel for voxel the same labels as,"
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    raise LossevoError(
        f"{test_source}: subject {copy.tested} has {same} subject {copy.trained} of {source}, which is trained on"
        f"{more}; nobody can be trained on and tested, so remove the copies from one of the two cohorts"
    )


def _prefix(trained: PreparedCohort, tested: PreparedCohort) -> str:
    """Nothing, or the name of the cohort trained on if a subject or case of it is called as one that is tested."""
    names = {*trained.subject_hashes, *(volume.case_id for volume in trained.volumes)}
    taken = {*tested.subject_hashes, *(volume.case_id for volume in tested.volumes)}
    prefix = ""
    while any(f"{prefix}{name}" in taken for name in names):
        prefix = f"{trained.name}/{prefix}"
    return prefix
