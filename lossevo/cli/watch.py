"""What one sees of a long command: a live view in a terminal, one line per event elsewhere."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from lossevo.experiment import Event, Progress
    from lossevo.metalearning import MetaProgress
    from lossevo.search import SearchProgress


class Format(Protocol):
    """How a command's progress is put into words; ``progress`` is that command's own."""

    def figures(self, progress: Any) -> list[tuple[str, RenderableType]]:
        """The lines of the live view: label and content."""
        ...

    def line(self, message: str, progress: Any) -> str:
        """The line of a log that tells of a finished training."""
        ...

    def summary(self, progress: Any) -> str:
        """What was done in all."""
        ...


class Watcher(ABC):
    """Shows the events of a command; a context manager."""

    def __init__(self, console: Console, form: Format) -> None:
        self._console = console
        self._form = form
        self._progress: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def __call__(self, event: Event) -> None:
        """Show an event."""
        self._progress = event.progress
        self._show(event)

    @abstractmethod
    def _show(self, event: Event) -> None: ...

    def conclude(self) -> None:
        """Say how many trainings there were and how fast, if this process did any."""
        if self._progress is not None and self._progress.workers:
            self._console.print(self._form.summary(self._progress), highlight=False, markup=False)


def watcher(console: Console, form: Format) -> Watcher:
    """A live view if the console is a terminal, else a plain log."""
    return LiveView(console, form) if console.is_terminal else PlainLog(console, form)


def duration(seconds: float | None) -> str:
    """``75`` as ``1 min 15 s``; an unknown duration as ``?``."""
    if seconds is None or not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


class PlainLog(Watcher):
    """One line per event: for log files, SLURM and pipes."""

    _replayed = 0

    def _show(self, event: Event) -> None:
        """Print the event; outcomes replayed from the ledger are only counted."""
        if event.kind == "arrived":
            return
        if event.kind == "replayed":
            self._replayed += 1
            return
        self._tell_replayed()
        counted = event.kind in ("training", "step")
        self._print(self._form.line(event.message, event.progress) if counted else event.message)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tell_replayed()

    def _tell_replayed(self) -> None:
        if self._replayed:
            self._print(f"{self._replayed} trainings taken from the ledger")
            self._replayed = 0

    def _print(self, line: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False, highlight=False, soft_wrap=True)


class LiveView(Watcher):
    """A few lines that keep themselves up to date, above them the last events."""

    def __init__(self, console: Console, form: Format) -> None:
        super().__init__(console, form)
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._recent: deque[str] = deque(maxlen=6)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def _show(self, event: Event) -> None:
        """Redraw; what is no training (a new leader, a new phase) is kept above the view."""
        if event.kind in ("training", "step"):
            if event.message:
                self._recent.append(event.message)
        elif event.kind not in ("arrived", "replayed"):
            self._live.console.print(Text.assemble((time.strftime("%H:%M:%S"), "dim"), f" {event.message}"))
        figures = Table.grid(padding=(0, 2))
        figures.add_column(style="bold")
        figures.add_column(overflow="ellipsis", no_wrap=True)
        for label, content in self._form.figures(event.progress):
            figures.add_row(label, content)
        recent = [Text(line, style="dim", overflow="ellipsis", no_wrap=True) for line in self._recent]
        self._live.update(Group(*recent, figures))


class SearchFormat:
    """The progress of a search."""

    def figures(self, progress: SearchProgress) -> list[tuple[str, RenderableType]]:
        """Phase, counts, screening, best so far, speed."""
        best = f"{progress.best_id}  {progress.best_formula}"
        return [
            (progress.phase, ProgressBar(total=progress.total, completed=progress.done, width=40)),
            ("done", _searched(progress)),
            ("screening", _screening(progress)),
            ("best", Text(f"{_best(progress)}  {best}", overflow="ellipsis", no_wrap=True)),
            ("speed", _speed(progress)),
        ]

    def line(self, message: str, progress: SearchProgress) -> str:
        """Phase and count, what happened, best so far, screening, speed."""
        where = f"[{progress.phase} {progress.done}/{progress.total}]"
        return f"{where} {message} | {_best(progress)} | {_screening(progress)} | {_speed(progress)}"

    def summary(self, progress: SearchProgress) -> str:
        """What the search did, in two lines."""
        return f"{_searched(progress)}: {_pace(progress)}\n{_screening(progress)}"


class TrainingsFormat:
    """The progress of a comparison or a tuning."""

    def figures(self, progress: Progress) -> list[tuple[str, RenderableType]]:
        """Counts and speed."""
        return [
            (progress.phase, ProgressBar(total=progress.total, completed=progress.done, width=40)),
            ("trainings", _count(progress)),
            ("speed", _speed(progress)),
        ]

    def line(self, message: str, progress: Progress) -> str:
        """Count, what happened, speed; and the phase where it is not the comparison itself."""
        phase = "" if progress.phase == "comparison" else f"{progress.phase} "
        return f"[{phase}{progress.done}/{progress.total}] {message} | {_speed(progress)}"

    def summary(self, progress: Progress) -> str:
        """What was done."""
        return f"{_count(progress)} trainings: {_pace(progress)}"


class MetaFormat:
    """The progress of a meta-training."""

    def figures(self, progress: MetaProgress) -> list[tuple[str, RenderableType]]:
        """Phase, outer loss, best so far, speed."""
        return [
            (progress.phase, ProgressBar(total=progress.total, completed=progress.done, width=40)),
            ("done", _count(progress)),
            ("outer loss", _outer_loss(progress)),
            ("best", _best_learned(progress)),
            ("speed", _busy(progress)),
        ]

    def line(self, message: str, progress: MetaProgress) -> str:
        """Phase and count, what happened, outer loss, best so far, speed."""
        where = f"[{progress.phase} {progress.done}/{progress.total}]"
        told = [part for part in (message, _outer_loss(progress), _best_learned(progress), _busy(progress)) if part]
        return f"{where} {' | '.join(told)}"

    def summary(self, progress: MetaProgress) -> str:
        """Where it ended."""
        return f"{_best_learned(progress)}; {_workers(progress)}"


def _outer_loss(progress: MetaProgress) -> str:
    if math.isnan(progress.after):
        return ""
    return f"outer loss {progress.before:.4f} → {progress.after:.4f}"


def _best_learned(progress: MetaProgress) -> str:
    best, baseline = ("–" if math.isnan(v) else f"{v:.4f}" for v in (progress.best_score, progress.best_baseline))
    return f"best learned {best}, hand-crafted {baseline}"


def _busy(progress: MetaProgress) -> str:
    return f"{_workers(progress)}, ETA of this phase {duration(progress.eta_s)}"


def _count(progress: Progress) -> str:
    failed = f", {progress.failed} failed" if progress.failed else ""
    return f"{progress.done} of {progress.total}{failed}"


def _searched(progress: SearchProgress) -> str:
    failed = f", {progress.failed} failed" if progress.failed else ""
    budget = f"{progress.done} of {progress.total} in the budget"
    return f"{progress.trainings} trainings{failed}; {budget}"


def _pace(progress: Progress) -> str:
    return f"{progress.per_hour:.0f} trainings/h, {_workers(progress)}"


def _workers(progress: Progress) -> str:
    return f"{progress.workers} worker{'s' if progress.workers != 1 else ''} {progress.busy_share:.0%} busy"


def _speed(progress: Progress) -> str:
    return f"{_pace(progress)}, ETA {duration(progress.eta_s)}"


def _best(progress: SearchProgress) -> str:
    best, literature = (
        "–" if math.isnan(value) else f"{value:.4f}" for value in (progress.best_score, progress.best_hand_crafted)
    )
    return f"best {best}, hand-crafted {literature}"


def _screening(progress: SearchProgress) -> str:
    rejected = {check: count for check, count in progress.rejected.items() if count}
    if not rejected:
        return f"{progress.proposed} candidates seen"
    checks = ", ".join(f"{check} {count}" for check, count in rejected.items())
    return f"{progress.proposed} candidates seen, {sum(rejected.values())} rejected ({checks})"
