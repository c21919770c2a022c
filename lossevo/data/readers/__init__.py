"""Readers of the layouts that spine data sets come in; which one it is, is recognised by the names of the files.

A reader is a module with a :class:`~lossevo.data.readers.reader.Reader`; docs/data.md lists them.
"""

from __future__ import annotations

import functools
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from lossevo.data.cohort import Case, Cohort
from lossevo.data.labels import SEPARATE, LabelScheme, classes_of
from lossevo.data.loading import grid_of, load_volume
from lossevo.data.mirror import not_mirrored
from lossevo.data.readers.bids import BIDS
from lossevo.data.readers.cspineseg import CSPINESEG
from lossevo.data.readers.datalist import DATALIST, datalist_of_elsewhere
from lossevo.data.readers.listing import LARGEST_VALUE, folders, lone_folders
from lossevo.data.readers.manifest import MANIFEST
from lossevo.data.readers.mrspineseg import MRSPINESEG
from lossevo.data.readers.myosegmentum import MYOSEGMENTUM, MYOSEGMENTUM_MUSCLE
from lossevo.data.readers.nnunet import NNUNET
from lossevo.data.readers.reader import Reader
from lossevo.data.readers.spider import SPIDER
from lossevo.data.readers.spine_generic import SPINE_GENERIC
from lossevo.data.readers.verse import VERSE
from lossevo.data.scan import CaseFiles, Scan, Severity
from lossevo.data.subjects import CohortWarning, unclear_subjects
from lossevo.errors import LossevoError, is_text, nearest

LEFT_OUT = frozenset({"other-image", "older-label", "series"})
"""Problems by which a label that is there takes no part."""

FORMATS: Mapping[str, Reader] = {
    reader.name: reader
    for reader in (
        NNUNET,
        DATALIST,
        MANIFEST,
        MYOSEGMENTUM,
        MYOSEGMENTUM_MUSCLE,
        SPIDER,
        CSPINESEG,
        MRSPINESEG,
        VERSE,
        SPINE_GENERIC,
        BIDS,
    )
}


def scan(path: str | Path, *, format: str | None = None) -> Scan:
    """The files of a data set: a folder, or the file that lists them. ``format`` is detected unless it is given.

    A folder that holds nothing but one other folder stands for that one, as archives are unpacked.

    Raises:
        LossevoError: there is nothing, no format fits, several do, ``format`` is unknown, or the reader cannot make
            sense of the data set at all. What is wrong with single cases is in ``problems``.
    """
    if format is not None and format not in FORMATS:
        raise LossevoError(f"unknown format '{format}'{nearest(format, FORMATS)}; known: {', '.join(FORMATS)}")
    try:
        return _checked(_scan(Path(path), format))
    except OSError as problem:
        raise LossevoError(f"{problem.filename or path}: cannot be read ({problem.strerror or problem})") from None


def _scan(path: Path, format: str | None) -> Scan:
    if format is not None:
        reader = FORMATS[format]
        return reader.scan(next((place for place in lone_folders(path) if reader.matches(place)), path))
    if not path.exists():
        raise LossevoError(f"{path}: no such folder or file")
    for place in lone_folders(path):
        matching = _matching(place)
        if len(matching) == 1:
            return matching[0].scan(place)
        if matching:
            listing = ", ".join(f"{reader.name} ({reader.summary})" for reader in matching)
            raise LossevoError(f"{path}: may be {listing}; say which with --format")
    for place in lone_folders(path):
        if datalist_of_elsewhere(place):
            return DATALIST.scan(place)
    inside = [f"{item.name} ({reader.name})" for item in _some_folders(path) for reader in _matching(item)]
    if inside:
        raise LossevoError(f"{path}: no data set itself, but {', '.join(inside)} in it; give one of them")
    looked_for = "; ".join(f"{reader.name}: {reader.summary}" for reader in FORMATS.values())
    raise LossevoError(
        f"{path}: no known layout of a data set. Found {_contents(path)}. Looked for {looked_for}. "
        "docs/data.md shows them; --format insists on one"
    )


def read_cohort(path: str | Path, *, format: str | None = None, labels: LabelScheme = SEPARATE) -> Cohort:
    """The labelled cases of a data set (see :func:`scan`), with the classes that ``labels`` makes of its structures.

    A case takes part if all structures wanted are annotated in it. Only headers are read here, voxels by ``Case.load``.
    A :class:`~lossevo.data.subjects.CohortWarning` says whose patients are not clear, which labels are left out, and
    why nothing may be mirrored left-right.

    Raises:
        LossevoError: the first error that :func:`scan` found, a scheme that does not fit the data set, or no case that
            has what is wanted. ``Case.load`` raises it for what
            :func:`~lossevo.data.loading.read_case` names.
    """
    found = scan(path, format=format)
    for problem in found.problems:
        if problem.severity is Severity.ERROR:
            raise LossevoError(problem.message)
    left_out = [problem for problem in found.problems if problem.code in LEFT_OUT]
    if left_out:
        more = f" (and {len(left_out) - 1} more; 'lossevo data check' lists them)" if len(left_out) > 1 else ""
        warnings.warn(left_out[0].message + more, CohortWarning, stacklevel=2)
    classes = classes_of(labels, found.label_names.values(), source=str(path))
    class_of = {value: classes.of_structure[name] for value, name in found.label_names.items()}
    chosen = _with_labels_of({value for value, index in class_of.items() if index}, found, path)
    for problem in unclear_subjects(replace(found, cases=tuple(chosen))):
        warnings.warn(problem.message, CohortWarning, stacklevel=2)
    without_cases = replace(found, cases=(), problems=())
    cases = tuple(
        Case(
            files.case_id,
            files.subject,
            functools.partial(load_volume, files, without_cases, class_of),
            grid_of(files),
            files,
            _reading(files, found, class_of),
        )
        for files in chosen
    )
    if classes.mirror.classes is None:
        warnings.warn(f"{path}: {not_mirrored(classes.mirror)}", CohortWarning, stacklevel=2)
    return Cohort(found.folder.resolve().name, classes.names, found.channel_names, cases, classes.mirror)


def read_nnunet(path: str | Path) -> Cohort:
    """:func:`read_cohort` of an nnU-Net raw data set, one class per label."""
    return read_cohort(path, format="nnunet")


def _is_detached(file: Path) -> bool:
    """Whether a file is, or may be, a header that names another file with the voxels."""
    ending = file.suffix.lower()
    if ending not in (".mha", ".nrrd"):
        return ending in (".mhd", ".nhdr")
    try:
        with file.open("rb") as stream:
            head = stream.read(65536).lower()
    except OSError:
        return True
    return b"data file:" in head or not re.search(rb"elementdatafile\s*=\s*local|^nrrd", head)


def _reading(files: CaseFiles, found: Scan, class_of: Mapping[int, int]) -> str:
    """Everything besides the bytes of a case's files that its volume depends on (:attr:`Case.reading`)."""
    if any(_is_detached(file) for file in (*files.images, *(label.file for label in files.labels))):
        return ""  # voxels lie in yet another file, whose bytes nobody would look at
    masks = [label.value for label in files.labels]
    return json.dumps(
        [
            len(files.images),
            masks,
            sorted(class_of.items()),
            len(found.channel_names),
            found.resample_labels,
        ]
    )


def _matching(path: Path) -> list[Reader]:
    """The formats that a path may be in."""
    matching = [reader for reader in FORMATS.values() if reader.matches(path)]
    return [reader for reader in matching if not reader.general] or matching


def _checked(found: Scan) -> Scan:
    """The scan, if its names can be written, its cases have names that files can be called by, and its labels values
    that fit: lists and descriptions are written by anybody.
    """
    for name in _all_names(found):
        if not is_text(name):
            raise LossevoError(
                f"{name.encode(errors='backslashreplace').decode()}: a name that is not UTF-8; rename it, as all that "
                "is written of a data set is UTF-8"
            )
    for case in found.cases:
        if not re.fullmatch(r"[^/\\\x00-\x1f]+", case.case_id) or case.case_id in (".", ".."):
            raise LossevoError(f"{found.folder}: a case is called {case.case_id!r}; expected a name without slashes")
    for value, name in found.label_names.items():
        if not 0 < value <= LARGEST_VALUE:
            raise LossevoError(f"{found.folder}: '{name}' has the label value {value}, expected 1 to {LARGEST_VALUE}")
    return found


def _all_names(found: Scan) -> Iterator[str]:
    """Every name of a data set that gets into what is written of it."""
    yield str(found.folder.resolve())
    yield from found.label_names.values()
    yield from found.channel_names
    for case in found.cases:
        files = (*case.images, *(label.file for label in case.labels))
        yield from (case.case_id, case.subject, *map(str, files))


def _with_labels_of(wanted: set[int], found: Scan, path: str | Path) -> list[CaseFiles]:
    """The cases in which all values wanted are annotated, with the label files that are needed for them.

    What lacks a mask is not background, so that a case without it is left out. A structure that comes as a mask of its
    own somewhere is annotated where that mask is, all others where there is a label map. A mask that is not wanted is
    not read: it would cut a hole into what it lies in, in the cases that have it.
    """
    of_masks = {label.value for case in found.cases for label in case.labels if label.value is not None}
    of_maps = {value for value in found.label_names if value not in of_masks}

    def annotated(case: CaseFiles) -> set[int]:
        masks = {label.value for label in case.labels if label.value is not None}
        return masks | of_maps if any(label.value is None for label in case.labels) else masks

    chosen = [
        replace(case, labels=tuple(file for file in case.labels if wanted & ({file.value} if file.value else of_maps)))
        for case in found.cases
        if wanted <= annotated(case)
    ]
    if not chosen:
        count = Counter(value for case in found.cases for value in annotated(case))
        have = ", ".join(f"{found.label_names[value]} in {count[value]}" for value in sorted(wanted & count.keys()))
        raise LossevoError(
            f"{path}: no case has all structures wanted annotated ({have or 'none of them anywhere'}); want fewer, in "
            "a label file with classes (--labels FILE.yaml)"
        )
    return chosen


def _some_folders(path: Path, most: int = 20) -> list[Path]:
    return folders(path)[:most] if path.is_dir() else []


def _contents(path: Path) -> str:
    """What is in a folder, for a message: sub-folders, and files by ending."""
    if not path.is_dir():
        return f"a file {path.name}"
    endings = Counter("".join(item.suffixes[-2:]) or item.name for item in path.iterdir() if item.is_file())
    inside = folders(path)
    parts = [f"{count} {ending}" for ending, count in endings.most_common(5)]
    if inside:
        parts.append(
            f"{len(inside)} folder(s) ({', '.join(item.name for item in inside[:5])}{', …' * (len(inside) > 5)})"
        )
    hint = "; unpack the archives first" if {".zip", ".tar.gz", ".tar"} & endings.keys() else ""
    return (", ".join(parts) or "nothing") + hint


__all__ = ["FORMATS", "Reader", "read_cohort", "read_nnunet", "scan"]
