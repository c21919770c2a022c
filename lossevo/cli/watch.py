"""What one sees of a long command: a live view in a terminal, one line per event elsewhere."""

from __future__ import annotations

import math
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from lossevo.search import Event, Progress


class Watcher(Protocol):
    """Shows the events of a search; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __call__(self, event: Event) -> None:
        """Show an event."""
        ...


def watcher(console: Console) -> Watcher:
    """A live view if the console is a terminal, else a plain log."""
    return LiveView(console) if console.is_terminal else PlainLog(console)


def duration(seconds: float | None) -> str:
    """``75`` as ``1 min 15 s``; an unknown duration as ``?``."""
    if seconds is None or not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def _score(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"


def _rejections(progress: Progress) -> str:
    rejected = {check: count for check, count in progress.rejected.items() if count}
    if not rejected:
        return f"{progress.proposed} candidates seen"
    checks = ", ".join(f"{check} {count}" for check, count in rejected.items())
    return f"{progress.proposed} candidates seen, {sum(rejected.values())} rejected ({checks})"


class PlainLog:
    """One line per event: for log files, SLURM and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._replayed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def __call__(self, event: Event) -> None:
        """Print the event; outcomes replayed from the ledger are only counted."""
        progress = event.progress
        if event.kind == "arrived":
            return
        if event.kind == "replayed":
            self._replayed += 1
            return
        if self._replayed:
            self._print(f"{self._replayed} trainings taken from the ledger")
            self._replayed = 0
        if event.kind != "training":
            self._print(event.message)
            return
        self._print(
            f"[{progress.phase} {progress.done}/{progress.total}] {event.message} | best {_score(progress.best_score)}, "
            f"hand-crafted {_score(progress.best_hand_crafted)} | {_rejections(progress)} | {progress.per_hour:.0f} "
            f"trainings/h, {progress.workers} workers {progress.busy_share:.0%} busy, ETA {duration(progress.eta_s)}"
        )

    def _print(self, line: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False, highlight=False, soft_wrap=True)


class LiveView:
    """A few lines that keep themselves up to date, above them the last events."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._console = console
        self._recent: deque[str] = deque(maxlen=6)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def __call__(self, event: Event) -> None:
        """Redraw; a new leader and a new phase are also kept above the view."""
        if event.kind in ("best", "phase"):
            line = f"[dim]{time.strftime('%H:%M:%S')}[/dim] {escape(event.message)}"
            self._live.console.print(line, highlight=False)
        elif event.kind == "training":
            self._recent.append(event.message)
        self._live.update(self._render(event.progress))

    def _render(self, progress: Progress) -> RenderableType:
        figures = Table.grid(padding=(0, 2))
        figures.add_column(style="bold")
        figures.add_column(overflow="ellipsis", no_wrap=True)
        failed = f", {progress.failed} failed" if progress.failed else ""
        figures.add_row(progress.phase, ProgressBar(total=progress.total, completed=progress.done, width=40))
        figures.add_row("trainings", f"{progress.done} of {progress.total}{failed}")
        figures.add_row("screening", _rejections(progress))
        figures.add_row(
            "best",
            f"Dice {_score(progress.best_score)} (hand-crafted {_score(progress.best_hand_crafted)})  "
            f"{progress.best_id}  {progress.best_formula}",
        )
        figures.add_row(
            "speed",
            f"{progress.per_hour:.0f} trainings/h, {progress.workers} workers {progress.busy_share:.0%} busy, "
            f"ETA {duration(progress.eta_s)}",
        )
        recent = [Text(line, style="dim", overflow="ellipsis", no_wrap=True) for line in self._recent]
        return Group(*recent, figures)
