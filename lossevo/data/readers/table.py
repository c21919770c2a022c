"""Cases listed in a file, whatever the kind of file: one row each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lossevo.data.files import read_header
from lossevo.data.readers.listing import folders, stem, unique_ids
from lossevo.data.scan import CaseFiles, LabelFile, Problem, error
from lossevo.errors import LossevoError

_FOLDERS_TRIED = 20
_FOLDERS_TOLD = 4


@dataclass(frozen=True, slots=True)
class Row:
    """One listed case; paths as written, relative to the list's folder."""

    images: tuple[str, ...]
    label: str
    subject: str | None = None
    case_id: str | None = None
    fold: int | None = None


def cases_from(rows: Sequence[Row], source: Path) -> tuple[tuple[CaseFiles, ...], list[Problem]]:
    """The cases of a list; those whose files are missing become problems."""
    folder = source.parent
    names = unique_ids([folder / row.images[0] for row in rows], folder)
    ids = [row.case_id or name for row, name in zip(rows, names, strict=True)]
    problems: list[Problem] = []
    if not rows:
        problems.append(error("empty", f"{source}: lists no case with image and label: the cohort is empty", source))
    for case_id, count in Counter(ids).items():
        if count > 1:
            problems.append(
                error("duplicate-case", f"{source}: {count} cases called {case_id}; list it once", source, case_id)
            )
    cases = []
    channels = len(rows[0].images) if rows else 0
    listed = [
        (case_id, [folder / name for name in (*row.images, row.label)]) for case_id, row in zip(ids, rows, strict=True)
    ]
    for (case_id, files), row, missing in zip(listed, rows, missing_of_list(listed, source), strict=True):
        images, label = tuple(files[:-1]), files[-1]
        if missing is not None:
            problems.append(missing)
        elif len(images) != channels:
            message = f"{source}: {case_id} has {len(images)} image(s), the first case {channels}; list all channels"
            problems.append(error("channel-count", message, source, case_id))
        else:
            subject = row.subject or subject_of(case_id, images[0], folder)
            cases.append(CaseFiles(case_id, subject, images, (LabelFile(label),), row.fold))
    return tuple(sorted(cases, key=lambda case: case.case_id)), problems


def missing_of_list(listed: Sequence[tuple[str, Sequence[Path]]], source: Path) -> list[Problem | None]:
    """For each case with the files that ``source`` lists, images first, an error if one is missing.

    The first error says how many are, and what to do. A link to nowhere is not missing: git-annex has such.
    """
    missing = [[file for file in files if not (file.is_symlink() or file.exists())] for _, files in listed]
    count, of = sum(map(len, missing)), sum(len(files) for _, files in listed)
    problems: list[Problem | None] = []
    for (case_id, files), absent in zip(listed, missing, strict=True):
        if not absent:
            problems.append(None)
            continue
        advice = "" if any(problems) else _advice(absent[0], source, count, of)
        code = "missing-label" if absent[0] == files[-1] else "missing-image"
        message = f"{absent[0]}: no such file, but {source} lists it{advice}"
        problems.append(error(code, message, absent[0], case_id))
    return problems


def _advice(file: Path, source: Path, missing: int, listed: int) -> str:
    """What to do about the first missing file of a list, which may have been written for another base folder."""
    advice = f" (the first of {missing} missing, of {listed} files)" if missing > 1 else ""
    folder = source.parent.resolve()
    try:
        inside = file.relative_to(source.parent)
    except ValueError:
        inside = None  # an absolute path is looked for nowhere else
    if inside is None:
        return f"{advice}; copy it there, or correct the list"
    elsewhere = dict.fromkeys([folder, *folder.parents[:2], Path.cwd(), *folders(folder)[:_FOLDERS_TRIED]])
    found = next((place for place in elsewhere if (place / inside).exists()), None)
    if found is not None:
        return f"{advice}; paths are relative to the list, and it lies in {found}: move the list there, or correct it"
    tried = ", ".join(map(str, [*elsewhere][:_FOLDERS_TOLD]))
    more = f" and {len(elsewhere) - _FOLDERS_TOLD} more" if len(elsewhere) > _FOLDERS_TOLD else ""
    sign = {"~": "~ is", "$": "Variables are"}.get(str(inside)[:1])
    literal = f" {sign} not expanded there." if sign else ""
    return f"{advice}; paths are relative to the list. Tried {tried}{more}. Move the list, or correct it.{literal}"


def subject_of(case_id: str, image: Path, folder: Path) -> str:
    """The patient of a case that is named in the style of BIDS (``sub-01_ses-2``), or whose image lies below ``folder``
    in a path that is (``sub-01/ses-2/t2.nii.gz``); else the case is one of its own.
    """
    path = image.relative_to(folder) if image.is_relative_to(folder) else Path(image.name)
    for name in (case_id, stem(image), *reversed(path.parent.parts)):
        if match := re.search(r"(?:^|_)(sub-[a-zA-Z0-9]+)(?=_|$)", name):
            return match[1]
    return case_id


def channel_names_of(cases: Sequence[CaseFiles]) -> tuple[str, ...]:
    """Names for channels that have none; how many there are in a 4D file is in the first one's header."""
    if not cases:
        return ("image",)
    count = len(cases[0].images)
    if count == 1:
        try:
            shape = read_header(cases[0].images[0]).shape
        except LossevoError:
            return ("image",)  # reading the case will say what is wrong
        count = shape[3] if len(shape) == 4 else 1
    return ("image",) if count == 1 else tuple(f"channel {channel}" for channel in range(count))
