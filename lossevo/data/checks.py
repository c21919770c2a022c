"""Everything that is wrong with a data set, found before hours are spent on it: ``lossevo data check``."""

from __future__ import annotations

import os
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lossevo.data.case_checks import CaseReport, examine, listed, sides
from lossevo.data.labels import LabelScheme, classes_of
from lossevo.data.scan import CaseFiles, Problem, Scan, Severity, error, warning

Progress = Callable[[int, int, str], None]

# Below this, a third of the subjects set aside is no test, and a fold has two or three.
FEW_SUBJECTS = 10
# A class that this share of the cases has is missed in the others.
COMMON_SHARE = 0.8
SPACING_OUTLIER = 3.0
# What tells the series of a patient apart in names: 101_t1, 101_t2_SPACE, p7-visit2, sub-01_ses-02_T2w. So many series
# a patient may have; more cases that are called alike have the name of their cohort in common (spine_mri_001).
_SERIES = re.compile(
    r"(.+?)[ _-](?:(?:t1|t2|t2s|t2star|pd|stir|flair|dixon|water|fat|space|tse|ct|mri?)w?"
    r"|(?:ses|session|visit|scan|series|run|time|tp|acq)-?\w*)(?:[ _-].*)?",
    re.IGNORECASE,
)
MOST_SERIES = 10


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
    cases: list[CaseReport] = []
    # Threads: decompressing, hashing and sorting all let go of the interpreter.
    with ThreadPoolExecutor(workers or _cpus()) as pool:
        for case in pool.map(partial(examine, scan=scan, class_names=class_of), scan.cases):
            cases.append(case)
            if progress is not None:
                progress(len(cases), len(scan.cases), case.case_id)
    problems = [
        *scan.problems,
        *(problem for case in cases for problem in case.problems),
        *_of_the_cohort(scan, cases, tuple(dict.fromkeys(class_of.values()))),
    ]
    problems.sort(key=lambda problem: problem.severity is Severity.WARNING)
    return Report(
        format=scan.format,
        folder=scan.folder,
        channel_names=scan.channel_names,
        class_names=tuple(dict.fromkeys(class_of.values())),
        cases=tuple(cases),
        problems=tuple(problems),
        notes=_notes(scan),
    )


def _cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def _class_of(scan: Scan, scheme: LabelScheme | None) -> Mapping[int, str]:
    """The name under which each label value counts."""
    if scheme is None:
        return scan.label_names
    classes = classes_of(scheme, scan.label_names.values(), source=str(scan.folder))
    index = {value: classes.of_structure[name] for value, name in scan.label_names.items()}
    return {value: classes.names[index[value]] for value in index if index[value]}


def _of_the_cohort(scan: Scan, cases: list[CaseReport], class_names: tuple[str, ...]) -> Iterator[Problem]:
    if not cases:
        if not scan.problems:
            yield error("no-cases", f"{scan.folder}: no case was found as {scan.format}; is it the right folder?")
        return
    yield from _duplicate_images(cases)
    yield from _duplicate_labels(scan, cases)
    yield from _missing_classes(scan, cases, class_names)
    yield from _odd_spacings(cases)
    yield from _unclear_subjects(scan)
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


def _missing_classes(scan: Scan, cases: list[CaseReport], class_names: tuple[str, ...]) -> Iterator[Problem]:
    usable = [case for case in cases if not case.has_errors]
    labelled = [case for case in usable if case.volumes_cm3]
    if usable and not labelled:
        yield error(
            "no-foreground", f"{scan.folder}: no case has any voxel of {listed(class_names)}: there is nothing to learn"
        )
    count = Counter(name for case in labelled for name in case.volumes_cm3)
    if labelled and (absent := [name for name in class_names if not count[name]]):
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


def _unclear_subjects(scan: Scan) -> Iterator[Problem]:
    """Cases of different subjects whose names differ in nothing but a sequence or visit."""
    alike: dict[str, list[CaseFiles]] = defaultdict(list)
    for case in scan.cases:
        if match := _SERIES.fullmatch(case.case_id):
            alike[match[1]].append(case)
    unclear = {
        name: cases
        for name, cases in alike.items()
        if len(cases) <= MOST_SERIES and len({case.subject for case in cases}) > 1
    }
    if unclear:
        name, (one, other, *_) = next(iter(unclear.items()))
        yield warning(
            "unclear-subject",
            f"{scan.folder}: {sum(map(len, unclear.values()))} cases have names that differ only in a sequence or "
            f"visit, such as {one.case_id} and {other.case_id}, but count as different subjects. If they are of one "
            f'patient, they leak: say so in dataset.json ("subjects": {{"{one.case_id}": "{name}", …}}) or a CSV list',
        )


def _notes(scan: Scan) -> tuple[str, ...]:
    notes = []
    count = Counter(case.subject for case in scan.cases)
    if several := [subject for subject, cases in count.items() if cases > 1]:
        cases = sum(count[subject] for subject in several)
        notes.append(
            f"{len(several)} of {len(count)} subjects have several cases ({cases} in all); "
            "splits keep the cases of a subject together"
        )
    folds = {case.fold for case in scan.cases if case.fold is not None}
    if folds:
        notes.append(f"the data set states {len(folds)} folds; 'lossevo evaluate --splits cohort' uses them")
    return tuple(notes)
