"""A Ray of our own, in programs of their own: what they print, write and leave behind. And addresses that are wrong."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import lossevo
from lossevo.cluster import ray_connection
from lossevo.cluster.ray_connection import _join
from lossevo.errors import LossevoError
from tests.processes import marked, marked_after

HERE = Path(__file__).parent


class Program:
    """``local_search.py``, with every process that descends from it marked by an environment variable."""

    def __init__(self, what: str, folder: Path, environment: dict[str, str]) -> None:
        self.mark = uuid.uuid4().hex
        self.home = folder / "home"
        self.home.mkdir()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "local_search.py"), what, str(folder)],
            env=clean
            | environment
            | {
                "HOME": str(self.home),
                "LOSSEVO_TEST_MARK": self.mark,
                "PYTHONPATH": os.pathsep.join([str(Path(lossevo.__file__).parents[1]), str(HERE)]),
                "RAY_ADDRESS": "127.0.0.1:1",  # somebody's cluster: not ours to use unasked
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def descendants(self) -> list[int]:
        """Processes that carry the mark and still run."""
        return marked(self.mark)

    def descendants_after(self, within_s: float) -> list[int]:
        """Those that are left when all have ended or the time is over."""
        return marked_after(self.mark, within_s)


@pytest.fixture
def start(tmp_path) -> Iterator:
    programs = []

    def start_(what: str, **environment: str) -> Program:
        programs.append(Program(what, tmp_path, environment))
        return programs[-1]

    yield start_
    for program in programs:
        for pid in program.descendants():
            os.kill(pid, signal.SIGKILL)
        program.process.communicate()


def test_it_is_quiet_needs_a_token_and_leaves_nothing(start):
    program = start("work")
    output, errors = program.process.communicate(timeout=120)
    assert output == "without a token: refused\noutcomes: done 1 done 2 error 1\n"
    assert errors == ""
    assert program.process.returncode == 0
    assert list(program.home.iterdir()) == []
    assert program.descendants_after(60) == []


def test_a_handler_of_sigterm_stays_while_ray_runs_and_after(start):
    program = start("terminate")
    assert program.process.communicate(timeout=120) == ("heard\nheard\n", "")
    assert program.process.returncode == 0


@pytest.mark.parametrize("kind", ["long", "absent", pytest.param("file", marks=pytest.mark.chaos)])
def test_a_folder_for_temporary_files_that_it_cannot_use(start, tmp_path, kind):
    """The paths of sockets are short: then they lie in /tmp."""
    folder = tmp_path / ("x" * 120)
    if kind == "long":
        folder.mkdir()
    elif kind == "file":
        folder = tmp_path / "file"
        folder.touch()
    program = start("square", TMPDIR=str(folder))
    assert program.process.communicate(timeout=120) == ("outcomes: done 1\n", "")


def test_no_folder_for_temporary_files_at_all_is_one_line(monkeypatch):
    def refused(**_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(ray_connection.tempfile, "mkdtemp", refused)
    with pytest.raises(LossevoError, match=r"none can be used \(.*/tmp: Permission denied.*set TMPDIR to a folder"):
        ray_connection._private_folder()


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("part", "line"),
    [("raylet", "Ray's node on this machine has not answered"), ("gcs_server", "the head of the Ray cluster at")],
)
def test_a_ray_that_ends_is_one_line_before_it_ends_the_process(start, part, line):
    program = start("wait")
    assert program.process.stdout.readline() == "ready\n"
    for pid in program.descendants():
        if Path(f"/proc/{pid}/comm").read_text().strip() == part:
            os.kill(pid, signal.SIGKILL)
    output, errors = program.process.communicate(timeout=120)
    assert output.startswith(f"error: {line}")
    assert errors == ""


@pytest.mark.slow
def test_its_files_are_for_this_user_alone_and_ctrl_c_in_the_terminal_ends_everything_quickly(start):
    program = start("wait")
    assert program.process.stdout.readline() == "ready\n"
    (folder,) = {
        Path(argument.split("=", 1)[1]).parents[1]
        for pid in program.descendants()
        for argument in Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        if argument.startswith("--session_dir=") or argument.startswith("--session-dir=")
    }
    assert folder.stat().st_mode & 0o777 == 0o700
    os.killpg(program.process.pid, signal.SIGINT)
    _, errors = program.process.communicate(timeout=60)
    assert errors.strip().endswith("KeyboardInterrupt")
    assert program.descendants_after(60) == []
    assert not folder.exists()


@pytest.mark.slow
def test_a_killed_search_leaves_no_process_behind(start):
    program = start("wait")
    assert program.process.stdout.readline() == "ready\n"
    program.process.kill()
    # Ray's processes notice by time-outs of their own, later the busier the machine is.
    assert program.descendants_after(90) == []


@pytest.mark.chaos
def test_a_worker_that_fills_the_machine_is_out_of_memory(start):
    """Ray's memory monitor kills it when the machine uses 6 GB more than now.

    Ray itself needs about one, and what other tests start meanwhile may need some.
    """
    lines = Path("/proc/meminfo").read_text().splitlines()
    kilobytes = {name: int(value.split()[0]) for name, value in (line.split(":") for line in lines)}
    limit = 1 - (kilobytes["MemAvailable"] - 6 * 2**20) / kilobytes["MemTotal"]
    program = start("fill", RAY_memory_usage_threshold=str(limit), RAY_memory_monitor_refresh_ms="100")
    output, _ = program.process.communicate(timeout=300)
    assert output.startswith("outcomes: out_of_memory ")


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:port", "ray://head:10001", ""])
def test_a_malformed_address_is_refused(address):
    with pytest.raises(LossevoError, match=r"expected HOST:PORT of the cluster's head, as in head:6379, or 'auto'"):
        _join(address)


def test_an_address_where_nobody_listens_is_refused_at_once(monkeypatch):
    monkeypatch.setattr(ray_connection, "_check_usable", None)  # takes long; a port that refuses is not asked further
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # not listening, it keeps its port from others
        port = deaf.getsockname()[1]
        with pytest.raises(LossevoError, match=f"cannot reach a Ray cluster at 127.0.0.1:{port}: .*refused"):
            _join(f"127.0.0.1:{port}")
        monkeypatch.setenv("RAY_ADDRESS", f"localhost:{port}")
        with pytest.raises(LossevoError, match=f"cannot reach a Ray cluster at localhost:{port}: .*refused"):
            _join("auto")


def test_a_listener_that_is_no_ray_head_is_refused_in_bounded_time(monkeypatch):
    monkeypatch.setattr(ray_connection, "PROBE_TIMEOUT_S", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(LossevoError, match=f"what listens at {address} does not answer as the head of"):
            _join(address)
