"""What commands that work in a folder share: where it may be, how it is gone on with, how they are stopped."""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from lossevo.cli.terminal import note, printable
from lossevo.errors import LossevoError, ResumableError

if TYPE_CHECKING:
    from rich.console import Console

    from lossevo.cluster import Executor, WorkerSpec
    from lossevo.experiment import CohortSource

Made = TypeVar("Made")


def in_free_folder(name: str, source: CohortSource, make: Callable[[Path], Made]) -> Made:
    """What ``make`` makes of the first folder ``runs/NAME-COHORT-N`` that nothing and nobody uses.

    Raises:
        LossevoError: what ``make`` raises, but for a folder in use.
    """
    from lossevo.experiment.folder import FolderInUseError

    path = source.path
    cohort = "phantom" if path is None else path.stem if path.is_file() else path.name
    for number in itertools.count(1):
        folder = Path("runs") / f"{name}-{cohort}-{number}"
        if not folder.exists():
            with suppress(FolderInUseError):  # another process was quicker
                return make(folder)
    raise AssertionError


def new_place(path: Path) -> Path:
    """``path``, where a new folder or file is to be; looked at before anything takes time.

    Raises:
        LossevoError: a part of it is a file, or nothing can be written there.
    """
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise LossevoError(f"{path}: {above} is a file, so nothing can be below it; give another place")
    if not path.exists() and not os.access(above, os.W_OK | os.X_OK):
        raise LossevoError(f"{path}: nothing can be written to {above}; get the right to it, or give another place")
    return path


@contextmanager
def workers_for(
    folder: Path, make: Callable[[WorkerSpec], Executor], *, new: bool
) -> Iterator[Callable[[WorkerSpec], Executor]]:
    """``make``, the executor's. A ``new`` folder is removed if the executor cannot be made: the corrected command may
    name it again. So is one whose tuning could not begin; one that has been tuned in stays, and is gone on with.

    Raises:
        LossevoError: what ``make`` raises.
    """
    failed = False

    def tried(spec: WorkerSpec) -> Executor:
        nonlocal failed
        failed = True
        executor = make(spec)
        failed = False
        return executor

    try:
        yield tried
    except LossevoError as problem:
        tuned = _tuned_in(folder)
        if new and failed and tuned:
            raise ResumableError(str(problem)) from None
        if new and (failed or (tuned is False and not isinstance(problem, ResumableError))):
            shutil.rmtree(folder, ignore_errors=True)
            raise LossevoError(str(problem)) from None  # there is nothing to go on with
        raise


def _tuned_in(folder: Path) -> bool | None:
    """Whether a tuning inside a comparison has trained; None: there is none."""
    from lossevo.experiment import Ledger

    file = folder / "tuning" / "ledger.sqlite"
    if not file.is_file():
        return None
    with Ledger(file, read_only=True) as ledger:
        return bool(ledger.records())


@contextmanager
def removed_unless_begun(folder: Path, *, new: bool) -> Iterator[None]:
    """Remove a ``new`` folder if nothing could be trained: the corrected command may name it again.

    Raises:
        LossevoError: whatever the command raises.
    """
    from lossevo.experiment import Ledger

    try:
        yield
    except LossevoError as problem:
        if new and not isinstance(problem, ResumableError):
            with Ledger(folder / "ledger.sqlite", read_only=True) as ledger:
                begun = bool(ledger.records())
            if not begun:
                shutil.rmtree(folder, ignore_errors=True)
        raise


def refuse_with_resume(given: Mapping[str, object]) -> None:
    """What a run or comparison depends on is fixed when it is made.

    Raises:
        LossevoError: an option is given (is not None).
    """
    changed = [option for option, value in given.items() if value is not None]
    if changed:
        raise LossevoError(f"{', '.join(changed)} cannot be given with --resume: it is fixed when the folder is made")


def check_retry(folder: Path | None, retry: bool) -> None:
    """Raise LossevoError if failures are to be tried again, but there is no folder to go on with."""
    if retry and folder is None:
        raise LossevoError("--retry-failed goes on with a folder; name it with --resume")


def retry_failed(folder: Path, out: Console) -> None:
    """Let what failed in a folder be done again, and say how much it is.

    Raises:
        LossevoError: another process works on the folder.
    """
    from lossevo.experiment.study import retry_failures

    out.print(f"{retry_failures(folder)} failed trainings are done again.", highlight=False)


@contextmanager
def preparing(console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """A line that shows how far the preparation of a cohort is; what it warns of is said in one line each."""
    with warnings.catch_warnings(), console.status("preparing the cohort") as status:
        warnings.showwarning = lambda message, *where: note(message)
        yield lambda done, total, case: status.update(f"preparing the cohort: {done}/{total} {case}")


@contextmanager
def resumable(folder: Path, command: str) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end a long command cleanly: say how to go on, exit with status 130. What stops it from
    outside, a lost cluster or a full disk, is an error that says so too.

    Raises:
        LossevoError: something outside stopped the command.
    """
    again = printable(f"lossevo {command} --resume {shlex.quote(str(folder))}")
    how = f"every finished training is kept. Go on with:  {again}"
    try:
        yield
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal may be gone
            print(f"\nInterrupted; {how}", flush=True)
        raise typer.Exit(130) from None
    except ResumableError as problem:
        raise LossevoError(f"{problem}; {how}") from None
