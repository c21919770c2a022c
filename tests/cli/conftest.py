from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
strategy: {population: 8, elites: 2}
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


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path) -> Cli:
    """Runs the command line in this process, in an empty folder of its own."""
    from lossevo.cli.app import main

    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["lossevo", *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        return Said(status, *capsys.readouterr())

    return run


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

    def __init__(self, folder: Path, *arguments: object, **popen: Any) -> None:
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
            **{"stdout": subprocess.PIPE, "stderr": self._errors, "text": True, **popen},
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
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
    program = Program(folder, *arguments, "--run", "run", "--in-process", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = bytearray()
    with contextlib.suppress(OSError):  # a terminal whose last user has gone
        while part := os.read(ours, 65536):
            seen += part
    os.close(ours)
    assert program.process.wait(120) == 0, seen.decode()
    program.end()
    return Finished(folder / "run", arguments, seen.decode())
