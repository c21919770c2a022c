"""What lies in a data set's folder: the files of each case, the names of its label values, and what is wrong with it.

A scan knows files by their names; only where a data set does not say which label values it uses are labels opened.
Readers make scans (:mod:`lossevo.data.readers`), ``lossevo data check`` reports on them, and
:func:`~lossevo.data.readers.read_cohort` makes a cohort of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Severity(StrEnum):
    """Whether a data set can be used in spite of a problem."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a data set; ``message`` names file and value, what was expected, and what to do.

    ``code`` is its kind in kebab-case (``missing-label``), for programs.
    """

    severity: Severity
    code: str
    message: str
    file: Path | None = None
    case_id: str | None = None


def error(code: str, message: str, file: Path | None = None, case_id: str | None = None) -> Problem:
    """A problem that makes the data set unusable as it is."""
    return Problem(Severity.ERROR, code, message, file, case_id)


def warning(code: str, message: str, file: Path | None = None, case_id: str | None = None) -> Problem:
    """A problem that one should know of."""
    return Problem(Severity.WARNING, code, message, file, case_id)


@dataclass(frozen=True, slots=True)
class LabelFile:
    """A label map (``value`` None), or the mask of one structure: its non-zero voxels mean ``value``."""

    file: Path
    value: int | None = None


@dataclass(frozen=True, slots=True)
class CaseFiles:
    """The files of one case.

    ``subject`` is the patient, who never parts ways in a split. ``images`` are in channel order; one 4D file may hold
    all channels. Where label files overlap, the later one wins. ``fold`` is the fold that the data set puts the case
    in.
    """

    case_id: str
    subject: str
    images: tuple[Path, ...]
    labels: tuple[LabelFile, ...]
    fold: int | None = None


@dataclass(frozen=True, slots=True)
class Scan:
    """A data set as it lies on disk.

    ``label_names`` maps each value that labels may have to the name of a structure (``L1``, ``disc L4-L5``, ``canal``;
    see :mod:`lossevo.data.labels`), without the background 0; ``labels_named_in`` says where that comes from, and
    ``names_of_format`` that it is all of a format's, of which a data set may have some (no neck in a lumbar spine).
    With ``resample_labels`` a label on another grid than its image is resampled to it (nearest neighbour) instead of
    being refused.
    """

    format: str
    folder: Path
    cases: tuple[CaseFiles, ...]
    label_names: Mapping[int, str]
    channel_names: tuple[str, ...]
    problems: tuple[Problem, ...] = ()
    labels_named_in: str = "the format"
    resample_labels: bool = False
    names_of_format: bool = False
