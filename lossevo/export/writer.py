"""``export_loss``: write the three files of a loss, verified, or nothing."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossevo.errors import LossevoError
from lossevo.export.document import DOCUMENT_FILE, document_of, read_document
from lossevo.export.program import PROGRAM_FILE, save_program
from lossevo.export.source import SOURCE_FILE, source_of
from lossevo.export.verification import Deviation, verify
from lossevo.losses.definitions import Definition

FILES = (DOCUMENT_FILE, SOURCE_FILE, PROGRAM_FILE)


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written: the files, and by name how far each is from the candidate that was evaluated."""

    folder: Path
    files: tuple[Path, ...]
    deviations: Mapping[str, Deviation]
    seconds: float


def export_loss(
    definition: Definition,
    folder: str | os.PathLike[str],
    *,
    metadata: Mapping[str, Any],
    overwrite: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> ExportReport:
    """Write a loss as ``loss.json``, ``loss.py`` and ``loss.pt2`` into ``folder``, each verified in a fresh process.

    The files appear in the folder only after all three gave the value and gradient of the candidate. Other files in the
    folder are left as they are.

    Args:
        definition: the candidate exactly as it was evaluated: an expression or a loss network.
        folder: made if it does not exist; an earlier export in it is replaced.
        metadata: provenance that JSON can hold (name, score, score_se, seeds, origin, task, …). The versions of lossevo
            and PyTorch and the date are added where they are missing.
        overwrite: write into a folder that holds something else, too, and replace files of these names there.
        progress: called with steps done, steps in all, and what comes next.

    Raises:
        LossevoError: the loss or its metadata cannot be exported, the folder cannot be used, or a file failed the
            verification. Then nothing is left behind.
    """
    start = time.monotonic()
    tell = progress or (lambda done, total, what: None)
    document = document_of(definition, metadata)
    folder = Path(folder)
    try:
        _check_folder(folder, overwrite=overwrite)
        with _draft_beside(folder) as draft:
            tell(0, 3, f"write {DOCUMENT_FILE} and {SOURCE_FILE}")
            (draft / DOCUMENT_FILE).write_text(document.to_text(), encoding="utf-8")
            (draft / SOURCE_FILE).write_text(source_of(document), encoding="utf-8")
            tell(1, 3, f"write {PROGRAM_FILE}")
            save_program(document, draft / PROGRAM_FILE)
            tell(2, 3, "verify in a fresh process")
            deviations = verify(draft, FILES, definition)
            _publish(draft, folder)
    except OSError as problem:
        raise LossevoError(f"cannot write to {problem.filename or folder}: {problem.strerror}") from problem
    tell(3, 3, "done")
    return ExportReport(folder, tuple(folder / name for name in FILES), deviations, time.monotonic() - start)


def _check_folder(folder: Path, *, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise LossevoError(f"{folder} is a file; name a folder for the export")
    if overwrite or not folder.exists() or not any(folder.iterdir()):
        return
    try:
        read_document(folder / DOCUMENT_FILE)
    except LossevoError:
        raise LossevoError(
            f"{folder} is not empty and not an earlier export; name another folder,"
            f" or pass overwrite=True (only {', '.join(FILES)} are replaced there)"
        ) from None


@contextmanager
def _draft_beside(folder: Path) -> Iterator[Path]:
    """A new folder beside ``folder``, on the same file system, that is gone in the end."""
    folder = folder.resolve()
    draft = folder.with_name(f".lossevo-{uuid.uuid4().hex[:8]}")
    draft.mkdir(parents=True)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _publish(draft: Path, folder: Path) -> None:
    if not folder.exists():
        draft.rename(folder)
        return
    for name in FILES:
        (draft / name).replace(folder / name)
