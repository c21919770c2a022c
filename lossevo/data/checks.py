"""Everything that is wrong with a data set, found before hours are spent on it: ``lossevo data check``."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lossevo.cpus import usable_cpus
from lossevo.data.case_checks import CaseReport, examine, listed, sides
from lossevo.data.labels import LabelScheme, classes_of
from lossevo.data.mirror import mirror_of_names, not_mirrored
from lossevo.data.scan import Problem, Scan, Severity, error, warning
from lossevo.data.splits import stated_folds, subjects_of_folds
from lossevo.data.subjects import unclear_subjects
from lossevo.errors import LossevoError

Progress = Callable[[int, int, str], None]

# Below this, a third of the subjects set aside is no test, and a fold has two or three.
FEW_SUBJECTS = 10
# A class that this share of the cases has is missed in the others.
COMMON_SHARE = 0.8
SPACING_OUTLIER = 3.0


@dataclass(frozen=True, slots=True)
class Report:
    """What a check has found: a row per case, every problem (errors first), and what is worth knowing besides."""

    format: str
    folder: Path
    channel_names: tuple[str, ...]
    class_names: tuple[str, ...]
    cases: tuple[CaseReport, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """What makes the data set unusable as it is."""
        return tuple(problem for problem in self.problems if problem.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What one should know of, and may be meant."""
        return tuple(problem for problem in self.problems if problem.severity is Severity.WARNING)

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects in sorted order, each once."""
        return tuple(sorted({case.subject for case in self.cases}))

    def to_document(self) -> dict[str, Any]:
        """All of it as plain data for JSON."""
        return {
            "format": self.format,
            "folder": str(self.folder),
            "channels": list(self.channel_names),
            "classes": list(self.class_names),
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "cases": [
                {
                    "case": case.case_id,
                    "subject": case.subject,
                    "shape": case.shape and list(case.shape),
                    "spacing_mm": case.spacing_mm and [round(side, 4) for side in case.spacing_mm],
                    "channels": case.channels,
                    "volumes_cm3": {name: round(volume, 3) for name, volume in case.volumes_cm3.items()},
                }
                for case in self.cases
            ],
            "problems": [
                {
                    "severity": str(problem.severity),
                    "code": problem.code,
                    "case": problem.case_id,
                    "file": problem.file and str(problem.file),
                    "message": problem.message,
                }
                for problem in self.problems
            ],
            "notes": list(self.notes),
        }


def check(
    scan: Scan, progress: Progress | None = None, *, scheme: LabelScheme | None = None, workers: int | None = None
) -> Report:
    """Read every file of a scanned data set and report everything that is wrong with it.

    Errors are what reading or training would refuse, and what would leak between subjects. Volumes are those of the
    classes of ``scheme``, or of all structures. ``workers`` cases (as many as there are CPUs) are examined, and in
    memory, at a time; ``progress(done, total, case_id)`` is called after each.

    Raises:
        LossevoError: the scheme does not fit the data set.
    """
    class_of = _class_of(scan, scheme)
    sides = _sides(scan, scheme)
    cases: list[CaseReport] = []
    # Threads: decompressing, hashing and sorting all let go of the interpreter.
    with ThreadPoolExecutor(workers or usable_cpus()) as pool:
        for case in pool.map(partial(examine, scan=scan, class_names=class_of), scan.cases):
            cases.append(case)
            if progress is not None:
                progress(len(cases), len(scan.cases), case.case_id)
    problems = [
        *scan.problems,
        *(problem for case in cases for problem in case.problems),
        *_of_the_cohort(scan, cases, tuple(dict.fromkeys(class_of.values())), expected=_expected(scan, scheme)),
        *sides.problems,
    ]
    problems.sort(key=lambda problem: problem.severity is Severity.WARNING)
    return Report(
        format=scan.format,
        folder=scan.folder,
        channel_names=scan.channel_names,
        class_names=tuple(dict.fromkeys(class_of.values())),
        cases=tuple(cases),
        problems=tuple(problems),
        notes=(*_notes(scan, problems), *sides.notes),
    )


def _class_of(scan: Scan, scheme: LabelScheme | None) -> Mapping[int, str]:
    """The name under which each label value counts."""
    if scheme is None:
        return scan.label_names
    classes = classes_of(scheme, scan.label_names.values(), source=str(scan.folder))
    index = {value: classes.of_structure[name] for value, name in scan.label_names.items()}
    return {value: classes.names[index[value]] for value in index if index[value]}


class _Sides(NamedTuple):
    """What a left-right mirror does to the classes, said."""

    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


def _sides(scan: Scan, scheme: LabelScheme | None) -> _Sides:
    if scheme is None:
        names: tuple[str, ...] = ("background", *scan.label_names.values())
        mirror = mirror_of_names(names)
    else:
        names, _, mirror = classes_of(scheme, scan.label_names.values(), source=str(scan.folder))
    if mirror.classes is None:
        return _Sides(problems=(warning("unclear-sides", f"{scan.folder}: {not_mirrored(mirror)}"),))
    exchanged = [f"{one} and {other}" for one, other in mirror.pairs(names)]
    return _Sides(notes=(f"exchanged where training mirrors left-right: {listed(exchanged)}",) if exchanged else ())


def _expected(scan: Scan, scheme: LabelScheme | None) -> bool:
    """Whether every class should be somewhere: the data set itself names it, or it was asked for by name."""
    asked = scheme is not None and (scheme.levels is not None or not isinstance(scheme.classes, str))
    return asked or not scan.names_of_format


def _of_the_cohort(
    scan: Scan, cases: list[CaseReport], class_names: tuple[str, ...], *, expected: bool
) -> Iterator[Problem]:
    if not cases:
        if not scan.problems:
            yield error("no-cases", f"{scan.folder}: no case was found as {scan.format}; is it the right folder?")
        return
    yield from _duplicate_images(cases)
    yield from _duplicate_labels(scan, cases)
    yield from _missing_classes(scan, cases, class_names, expected=expected)
    yield from _odd_spacings(cases)
    yield from _single_slices(cases)
    yield from unclear_subjects(scan)
    yield from _unusable_folds(scan)
    subjects = {case.subject for case in cases}
    if len(subjects) < FEW_SUBJECTS:
        yield warning(
            "few-subjects",
            f"{scan.folder}: {len(subjects)} subject(s); with fewer than {FEW_SUBJECTS} what is chosen or compared on "
            "them is mostly chance",
        )


def _duplicate_images(cases: list[CaseReport]) -> Iterator[Problem]:
    copies: dict[str, list[tuple[CaseReport, Path]]] = defaultdict(list)
    for case in cases:
        for file, content in case.image_hashes:
            copies[content].append((case, file))
    for (case, file), *others in copies.values():
        for other, copy in others:
            if other is case:
                yield warning(
                    "duplicate-channel", f"{copy}: the same image as {file}, another channel", copy, case.case_id
                )
            else:
                harm = (
                    f"subjects {case.subject} and {other.subject} would leak from training into testing"
                    if other.subject != case.subject
                    else f"subject {case.subject} would count twice"
                )
                yield error(
                    "duplicate-image",
                    f"{copy}: the same image as {file}: {harm}; remove one of them",
                    copy,
                    other.case_id,
                )


def _duplicate_labels(scan: Scan, cases: list[CaseReport]) -> Iterator[Problem]:
    label_file = {files.case_id: files.labels[0].file for files in scan.cases if files.labels}
    first_with: dict[str, CaseReport] = {}
    for case in cases:
        if case.label_hash is None:
            continue
        first = first_with.setdefault(case.label_hash, case)
        if first.subject != case.subject:
            file = label_file[case.case_id]
            yield warning(
                "duplicate-label",
                f"{file}: the same label as {label_file[first.case_id]} of another subject; was one copied?",
                file,
                case.case_id,
            )


def _missing_classes(
    scan: Scan, cases: list[CaseReport], class_names: tuple[str, ...], *, expected: bool
) -> Iterator[Problem]:
    usable = [case for case in cases if not case.has_errors]
    labelled = [case for case in usable if case.volumes_cm3]
    if usable and not labelled:
        yield error(
            "no-foreground", f"{scan.folder}: no case has any voxel of {listed(class_names)}: there is nothing to learn"
        )
    count = Counter(name for case in labelled for name in case.volumes_cm3)
    if expected and labelled and (absent := [name for name in class_names if not count[name]]):
        yield warning(
            "empty-class",
            f"{scan.folder}: no case has any voxel of {listed(absent)}; what is never there cannot be learnt",
        )
    for name in class_names:
        if COMMON_SHARE * len(labelled) <= count[name] < len(labelled):
            without = [case.case_id for case in labelled if name not in case.volumes_cm3]
            yield warning(
                "missing-class",
                f"{scan.folder}: {name} is labelled in {count[name]} of {len(labelled)} cases, but not in "
                f"{listed(without)}; outside the image, or forgotten?",
            )


def _odd_spacings(cases: list[CaseReport]) -> Iterator[Problem]:
    known = [(case, case.spacing_mm) for case in cases if case.spacing_mm is not None]
    if len(known) < 3:
        return
    usual = tuple(statistics.median(spacing[axis] for _, spacing in known) for axis in range(3))
    for case, spacing in known:
        if any(
            not 1 / SPACING_OUTLIER < side / other < SPACING_OUTLIER for side, other in zip(spacing, usual, strict=True)
        ):
            yield warning(
                "odd-spacing",
                f"case {case.case_id}: voxels of {sides(spacing)} mm, where the median of the cohort is "
                f"{sides(usual)} mm (right-left, front-back, head-foot); another sequence or plane?",
                case_id=case.case_id,
            )


def _single_slices(cases: list[CaseReport]) -> Iterator[Problem]:
    known = [(case, case.shape) for case in cases if case.shape is not None]
    for axis, direction in enumerate(("right-left", "front-back", "head-foot")):
        single = [case for case, shape in known if shape[axis] == 1]
        if not 0 < len(single) <= len(known) / 2:
            continue
        usual = round(statistics.median(shape[axis] for _, shape in known if shape[axis] > 1))
        for case in single:
            yield warning(
                "single-slice",
                f"case {case.case_id}: one slice ({direction}), where most cases have more, {usual} in the median; a "
                "localizer, or a slice of a volume?",
                case_id=case.case_id,
            )


def _unusable_folds(scan: Scan) -> Iterator[Problem]:
    stated = {case.case_id: case.fold for case in scan.cases}
    numbers = {fold for fold in stated.values() if fold is not None}
    if len(numbers) == 1:
        yield warning(
            "single-fold",
            f"{scan.folder}: states fold {numbers.pop()} alone, which 'lossevo evaluate --splits cohort' would refuse; "
            "number two or more",
        )
    elif numbers:
        try:
            subjects_of_folds(
                stated_folds(stated),
                {case.case_id: case.subject for case in scan.cases},
                source=f"{scan.folder}, its folds",
            )
        except LossevoError as problem:
            yield error("folds", str(problem))


def _notes(scan: Scan, problems: list[Problem]) -> tuple[str, ...]:
    notes = []
    count = Counter(case.subject for case in scan.cases)
    if several := [subject for subject, cases in count.items() if cases > 1]:
        cases = sum(count[subject] for subject in several)
        notes.append(
            f"{len(several)} of {len(count)} subjects have several cases ({cases} in all); "
            "splits keep the cases of a subject together"
        )
    folds = {case.fold for case in scan.cases if case.fold is not None}
    if folds and not any(problem.code in ("folds", "single-fold") for problem in problems):
        notes.append(f"the data set states {len(folds)} folds; 'lossevo evaluate --splits cohort' uses them")
    return tuple(notes)
