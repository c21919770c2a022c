"""A program that proposes losses beside the strategy: a language model, a colleague's script.

It gets a JSON document on its standard input and prints formulas of the loss language, one a line::

    {"objective": "dice", "wanted": 8,
     "terminals": {"p": "predicted probability (softmax)", …}, "primitives": {"mean(a)": "mean over …", …},
     "hall_of_fame": [{"rank": 1, "id": "3fa9c1d2", "formula": "…", "score": 0.79, "confirmed": false, …}, …],
     "proposed": ["…"]}

``proposed`` is what it proposed the last time. An empty line or one that begins with ``#`` says nothing. What it
proposes is screened like any other proposal. A program that fails, prints more than 1 MiB or takes longer than ten
minutes ends no search.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from lossevo.errors import LossevoError
from lossevo.experiment.candidate import Candidate
from lossevo.experiment.hall_of_fame import Entry
from lossevo.experiment.origin import Evolved, origin_document
from lossevo.expression import PRIMITIVES, TERMINALS, Expression, ExpressionError
from lossevo.search.strategies.strategy import Proposal, Strategy

ORIGIN: Final = Evolved("program")
EVERY: Final = 16
"""Trainings that end between two calls of the program."""
WANTED: Final = 8
SHARE: Final = 0.5
"""Of the proposals that are the program's, while it has any."""
_MOST = 64
_LONGEST_LINE = 4096
_MOST_BYTES = 2**20
_TOLD = 3
"""Lines that are no formula and are told one by one; of the others it is told how many there are."""
_TIMEOUT_S = 600.0
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Program:
    """A command, run without a shell; ``told`` gets a line when it fails or prints what is no formula.

    Raises:
        LossevoError: there is no such program.
    """

    command: str
    told: Callable[[str], None] = field(default=lambda line: None)

    def __post_init__(self) -> None:
        try:
            words = shlex.split(self.command)
        except ValueError as problem:
            raise LossevoError(f"--propose {self.command!r}: {problem}; give a command as a shell takes it") from None
        name = words[0] if words else ""
        if shutil.which(name) is None:
            raise LossevoError(f"--propose {self.command!r}: there is no program '{name}'; give one that is installed")

    def formulas(self, document: Mapping[str, Any]) -> list[str]:
        """What it prints of this document that is a formula; nothing if it fails."""
        try:
            output = self._output(json.dumps(document, ensure_ascii=False))
        except (OSError, _FailedError) as problem:
            self.told(f"the program that proposes {problem}")
            return []
        found: dict[str, str] = {}
        unread: list[str] = []
        for line in output.splitlines():
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            try:
                if len(text) > _LONGEST_LINE:
                    raise ExpressionError(f"{len(text)} characters, at most {_LONGEST_LINE} are read")
                found.setdefault(Expression.parse(text).hash, text)
            except ExpressionError as problem:
                unread.append(f"{text[:80]!r}: {problem}")
            if len(found) == _MOST:
                break
        for reason in unread[:_TOLD]:
            self.told(f"the program that proposes printed no formula: {reason}")
        if len(unread) > _TOLD:
            self.told(f"the program that proposes printed {len(unread) - _TOLD} more lines that are no formula")
        return [*found.values()]

    def _output(self, document: str) -> str:
        """What the program prints, which is ended with all that it started when it is done or has said too much.

        Raises:
            OSError: it cannot be run.
            _FailedError: it failed, took too long, or printed more than is read.
        """
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as errors:
            given.write(document.encode())
            given.seek(0)
            process = subprocess.Popen(
                shlex.split(self.command), stdin=given, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )
            in_time = threading.Timer(_TIMEOUT_S, _end, [process])
            in_time.start()
            try:
                assert process.stdout is not None
                printed = process.stdout.read(_MOST_BYTES + 1)
                if len(printed) > _MOST_BYTES:
                    raise _FailedError(f"printed more than {_MOST_BYTES >> 20} MiB, of which nothing is taken")
                status = process.wait()
            finally:
                timed_out = not in_time.is_alive()
                in_time.cancel()
                _end(process)
            if timed_out:
                raise _FailedError(f"took longer than {_TIMEOUT_S:g} s")
            if status:
                errors.seek(max(0, errors.seek(0, os.SEEK_END) - _LONGEST_LINE))
                last = (errors.read().decode(errors="replace").strip().splitlines() or [""])[-1][:200]
                raise _FailedError(f"ended with status {status}: {last}")
        return printed.decode(errors="replace")


class _FailedError(Exception):
    """What the program did wrong, as the end of a sentence."""


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and all that it started in its session."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def document_of(entries: Sequence[Entry], proposed: Sequence[str]) -> dict[str, Any]:
    """What the program is given."""
    return {
        "objective": entries[0].objective if entries else "",
        "wanted": WANTED,
        "terminals": {terminal.name: terminal.meaning for terminal in TERMINALS.values()},
        "primitives": {primitive.text.format(*"abcdefg"): primitive.meaning for primitive in PRIMITIVES.values()},
        "hall_of_fame": [
            {
                "rank": entry.rank,
                "id": entry.id,
                "formula": entry.formula,
                "score": entry.score,
                "score_se": entry.score_se,
                "confirmed": entry.confirmed,
                "seeds": entry.seeds,
                "steps": entry.steps,
                "origin": origin_document(entry.origin),
            }
            for entry in entries[:_SHOWN]
        ],
        "proposed": [*proposed],
    }


class WithProgram:
    """A strategy, and beside it a program, called whenever :data:`EVERY` trainings have ended.

    Without a program it is the strategy alone, and what a program had proposed before is still trained: so a search can
    be resumed without it. Before all ``given`` losses are taken it is not called: it may propose one of them.
    """

    def __init__(
        self, strategy: Strategy, program: Program | None, entries: Callable[[], Sequence[Entry]], *, given: int = 0
    ) -> None:
        self._given_left = given
        self._strategy = strategy
        self._program = program
        self._entries = entries
        self._proposed: list[str] = []
        self._left: list[str] = []
        self._told = 0
        self._calls = 0

    def ask(self, generator: random.Random) -> Proposal | None:
        """One of the program's, or what the strategy proposes."""
        due = self._given_left <= 0 and self._told >= EVERY * (self._calls + 1)
        if self._program is not None and due:
            self._proposed = self._program.formulas(document_of(self._entries(), self._proposed))
            self._left = [*self._proposed]
            self._calls = self._told // EVERY
        if self._left and generator.random() < SHARE:
            return Proposal(Expression.parse(self._left.pop(0)), ORIGIN)
        return self._strategy.ask(generator)

    def take(self, candidate: Candidate) -> None:
        """What the program proposed is trained, or what the strategy did."""
        if candidate.origin != ORIGIN:
            self._given_left -= candidate.given
            self._strategy.take(candidate)

    def tell(self, candidate: Candidate) -> None:
        """Count it; the strategy may go on from what the program proposed."""
        self._told += 1
        self._strategy.tell(candidate)

    def state(self) -> dict[str, Any]:
        """What the program proposed, how much of it is left, and the strategy's state."""
        own = {"proposed": self._proposed, "left": len(self._left), "calls": self._calls} if self._calls else {}
        inner = self._strategy.state()
        return own | ({"strategy": inner} if inner else {})

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._proposed = [*state.get("proposed", [])]
        self._left = self._proposed[len(self._proposed) - state.get("left", 0) :]
        self._calls = state.get("calls", 0)
        self._strategy.restore(state.get("strategy", {}))
