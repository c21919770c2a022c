"""Names and places that the file system refuses: one line says which and why, at once, and nothing is left behind."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from lossevo.cli import folders
from lossevo.errors import LossevoError

MAKING = {
    "search": ["search", "--in-process", "--run"],
    "metalearn": ["metalearn", "--in-process", "--run"],
    "evaluate": ["evaluate", "--losses", "dice,focal", "--in-process", "--out"],
    "tune": ["tune", "dice", "--out"],
    "analyze": ["analyze", "--losses", "dice,focal", "--out"],
    "export": ["export", "run", "1", "--out"],
}
READING = {
    "search": ["search", "--in-process", "--resume"],
    "metalearn": ["metalearn", "--in-process", "--resume"],
    "evaluate": ["evaluate", "--in-process", "--resume"],
    "tune": ["tune", "--resume"],
    "hof": ["hof"],
    "task": ["search", "--task"],
    "space": ["search"],
    "labels": ["search", "--labels"],
    "settings": ["metalearn", "--settings"],
    "specs": ["evaluate", "--out", "new", "--specs"],
    "loss file": ["evaluate", "--out", "new", "--loss-file"],
    "data": ["search", "--data"],
    "tree": ["hof", "run", "--show", "1", "--tree"],
}
LONG = {"letters": "n" * 300, "two bytes each": "é" * 130, "many parts": "/".join(["part"] * 1000)}


@pytest.fixture
def refused(cli):
    def refused_(arguments: list[str], *told: str) -> None:
        said = cli(*arguments)
        assert said.status == 2, said
        assert said.err.count("\n") == 1, said.err
        assert said.err.startswith("lossevo: ")
        for part in told:
            assert part in said.err
        assert [path.name for path in Path().iterdir()] in ([], ["file"])

    return refused_


@pytest.mark.parametrize("arguments", [*MAKING.values(), *READING.values()], ids=[*MAKING, *READING])
@pytest.mark.parametrize("name", LONG.values(), ids=LONG)
def test_a_name_that_is_too_long(refused, arguments, name):
    suffix = {"--tree": ".svg", "--task": ".yaml", "--labels": ".yaml"}.get(arguments[-1], "")
    refused([*arguments, name + suffix])


@pytest.mark.parametrize("arguments", MAKING.values(), ids=MAKING)
def test_what_to_do_about_a_long_name_is_told(refused, arguments):
    refused([*arguments, "n" * 300], "nnn: File name too long; give a shorter name, of at most 255 bytes")


@pytest.mark.parametrize("arguments", MAKING.values(), ids=MAKING)
def test_a_place_below_a_file(refused, arguments):
    Path("file").touch()
    refused([*arguments, "file/below/it"], "file/below/it: ", "is a file, so nothing can be below it")


@pytest.mark.parametrize("arguments", [*MAKING.values(), *READING.values()], ids=[*MAKING, *READING])
def test_a_nul_character(refused, arguments):
    refused([*arguments, "a\0b"], r"'a\x00b' holds a NUL character")


def test_a_place_that_cannot_be_written(refused, monkeypatch):
    """Told before the cohort is read; to the superuser, whom nothing is forbidden, the system itself has to say it."""
    monkeypatch.setattr(folders.os, "access", lambda path, mode: False)
    for arguments in MAKING.values():
        refused([*arguments, "new"], "new: nothing can be written to")


def test_a_place_is_looked_at_from_its_nearest_folder(tmp_path):
    assert folders.new_place(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    (tmp_path / "file").touch()
    with pytest.raises(LossevoError, match="is a file"):
        folders.new_place(tmp_path / "file" / "a" / "b")


def test_an_error_of_the_file_system_is_a_line_and_another_is_a_bug(cli, monkeypatch):
    def fail(problem):
        def read(folder):
            raise problem

        monkeypatch.setattr("lossevo.experiment.hall_of_fame.read", read)
        return cli("hof", "x")

    said = fail(PermissionError(errno.EACCES, "Permission denied", "x/y"))
    assert said.status == 2
    assert said.err == "lossevo: x/y: Permission denied; get the right to it, or give another place\n"
    assert fail(OSError(errno.ENOSPC, "No space left on device", "x/y")).err.endswith("; free space there\n")
    with pytest.raises(OSError, match="Bad file descriptor"):
        fail(OSError(errno.EBADF, "Bad file descriptor"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written():
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "lossevo", "losses", "--json"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert process.returncode == 2
    assert process.stderr == "lossevo: the output cannot be written: No space left on device; free space there\n"
