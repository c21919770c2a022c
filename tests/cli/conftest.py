from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import lossevo
from tests.cohorts import write_balls
from tests.processes import marked, marked_after

SPACE = """\
name: tiny
terminals: {p: 3, y: 3, logp: 1}
constants: {1: 1, 2: 1}
coefficients: {}
primitives: {add: 2, sub: 2, mul: 3, div: 1, neg: 1, sum: 2, mean: 2, class_mean: 1, class_sum: 1, foreground_mean: 1}
limits: {nodes: 24}
seeds: [cross_entropy, dice, baikal]
strategy: {population: 8}
allocation: {elites: 2}
tuning: {structures: 1}
budget: {trainings: 30, tuning_share: 0.25, confirmation_seeds: 2, window: 4}
"""


@dataclass(frozen=True)
class Said:
    """What a command said, and its exit status."""

    status: int
    out: str
    err: str


Cli = Callable[..., Said]


def exit_status(*arguments: object) -> int:
    """Runs the command line in this process."""
    from lossevo.cli.app import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lossevo", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path) -> Cli:
    """Runs the command line in this process, in an empty folder of its own."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        return Said(exit_status(*arguments), *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def cli_in() -> Cli:
    """As ``cli``, in the folder given first, for fixtures that several tests share."""

    def run(folder: Path, *arguments: object) -> Said:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = exit_status(*arguments)
        return Said(status, out.getvalue(), err.getvalue())

    return run


@contextlib.contextmanager
def terminal(columns: int, lines: int) -> Iterator[bytearray]:
    """The standard streams of this process are a terminal; gives what it gets to see."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    seen = bytearray()

    def look() -> None:
        with contextlib.suppress(OSError):  # a terminal whose last user has gone
            while part := os.read(ours, 65536):
                seen.extend(part)

    watcher = threading.Thread(target=look)
    kept = [os.dup(number) for number in range(3)]
    for number in range(3):
        os.dup2(theirs, number)
    os.close(theirs)
    watcher.start()
    try:
        with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as streams:
            patch.setenv("TERM", "xterm")
            for number, name in enumerate(("stdin", "stdout", "stderr")):
                mode = "w" if number else "r"
                patch.setattr(sys, name, streams.enter_context(open(number, mode, encoding="utf-8", closefd=False)))
            yield seen
    finally:
        for number, stream in enumerate(kept):
            os.dup2(stream, number)
            os.close(stream)
        watcher.join()
        os.close(ours)


@pytest.fixture(scope="session")
def space_file(tmp_path_factory) -> Path:
    """A search space of 30 trainings."""
    path = tmp_path_factory.mktemp("spaces") / "tiny.yaml"
    path.write_text(SPACE)
    return path


@pytest.fixture(scope="session")
def cohort(tmp_path_factory) -> Path:
    """Nine cases: 4 to train on, 2 to validate on, 3 never touched."""
    return write_balls(tmp_path_factory.mktemp("data") / "balls")


class Program:
    """``lossevo`` in a process group of its own, with every process that descends from it marked."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self._mark = uuid.uuid4().hex
        self._errors = (folder / f"stderr-{self._mark}").open("w+")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lossevo", *map(str, arguments)],
            env=environment
            | {
                "LOSSEVO_TEST_MARK": self._mark,
                "PYTHONPATH": str(Path(lossevo.__file__).parents[1]),
                "TERM": "xterm",
            },
            cwd=folder,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def lines_until(self, wanted: str, times: int = 1) -> list[str]:
        """What it prints, up to the line that is the ``times``-th to contain ``wanted``."""
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            times -= wanted in line
            if times == 0:
                return lines
        raise AssertionError(f"it ended before: {''.join(lines)}{self.errors()}")

    def rest(self, timeout_s: float = 120) -> str:
        """What it prints until it ends."""
        out, _ = self.process.communicate(timeout=timeout_s)
        return out

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def signal(self, number: signal.Signals) -> None:
        """To the whole group, as a terminal does it."""
        os.killpg(self.process.pid, number)

    def descendants(self) -> list[int]:
        """Processes that carry the mark and still run."""
        return marked(self._mark)

    def descendants_after(self, within_s: float) -> list[int]:
        """Those that are left when all have ended or the time is over."""
        return marked_after(self._mark, within_s)

    def end(self) -> None:
        for pid in self.descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._errors.close()


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Program]]:
    """Starts ``lossevo`` in an empty folder; nothing of it outlives the test."""
    programs: list[Program] = []

    def start_(*arguments: object) -> Program:
        programs.append(Program(tmp_path, *arguments))
        return programs[-1]

    yield start_
    for program in programs:
        program.end()


@dataclass(frozen=True)
class Finished:
    """A search that ran through undisturbed, in a terminal: its run folder, how it was asked for, what was seen."""

    folder: Path
    arguments: tuple[str, ...]
    seen: str


@pytest.fixture(scope="session")
def finished(tmp_path_factory, space_file, cohort) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    arguments = ("search", str(space_file), "--data", str(cohort), "--steps", "2", "--seed", "3")
    with pytest.MonkeyPatch.context() as patch, terminal(columns=160, lines=40) as seen:
        patch.chdir(folder)
        status = exit_status(*arguments, "--run", "run", "--in-process")
    assert status == 0, seen.decode()
    return Finished(folder / "run", arguments, seen.decode())
