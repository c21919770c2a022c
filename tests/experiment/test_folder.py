from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from lossevo.errors import LossevoError
from lossevo.experiment.folder import (
    LOCK,
    UNFINISHED,
    FolderInUseError,
    locked,
    new_folder,
    refuse_unfinished,
    write_json,
    write_text,
)


def make(folder: Path) -> None:
    with new_folder(folder, made_by="search", configuration="run.json"):
        write_text(folder / "run.json", "{}")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class TestNewFolder:
    def test_it_is_made_with_its_parents_and_no_mark_is_left(self, tmp_path):
        make(tmp_path / "a" / "b")
        assert names(tmp_path / "a" / "b") == {LOCK, "run.json"}

    def test_nothing_is_left_when_it_fails(self, tmp_path):
        folder = tmp_path / "a" / "b"
        with (
            pytest.raises(ValueError, match="not JSON compliant"),
            new_folder(folder, made_by="search", configuration="c"),
        ):
            write_json(folder / "file", {"number": float("nan")})
        assert names(tmp_path) == set()

    def test_an_empty_folder_is_empty_again_when_it_fails(self, tmp_path):
        (tmp_path / "mine").mkdir()
        with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "mine", made_by="search", configuration="c"):
            raise KeyboardInterrupt
        assert names(tmp_path / "mine") == set()

    def test_a_full_disk_leaves_nothing(self, tmp_path, monkeypatch):
        """The real thing, a file system without room, is in tests/cli."""

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(LossevoError, match="No space left on device"):
            make(tmp_path / "run")
        assert names(tmp_path) == set()

    def test_what_a_killed_process_left_may_be_used_again(self, tmp_path):
        folder = tmp_path / "run"
        child = multiprocessing.get_context("fork").Process(target=_make_for_ever, args=(folder,))
        child.start()
        while not (folder / "half").exists():
            time.sleep(0.01)
        with pytest.raises(FolderInUseError, match="another process works in this folder"):
            make(folder)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert UNFINISHED in names(folder)
        with pytest.raises(LossevoError, match="was not finished when it was made"):
            refuse_unfinished(folder, "search")
        make(folder)
        assert names(folder) == {LOCK, "run.json"}

    def test_a_finished_one_is_not_overwritten(self, tmp_path):
        make(tmp_path / "run")
        with pytest.raises(FolderInUseError, match=r"exists already; go on with 'lossevo search --resume .*run', or"):
            make(tmp_path / "run")

    def test_nor_is_anything_else_and_no_lock_is_left_there(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("…")
        with pytest.raises(FolderInUseError, match="exists already; nothing is overwritten; give another folder"):
            make(tmp_path)
        assert names(tmp_path) == {"thesis.tex"}

    def test_a_link_to_nowhere_above_it_is_no_folder_in_use(self, tmp_path):
        """Else the next free number would be tried for ever."""
        (tmp_path / "runs").symlink_to(tmp_path / "nowhere")
        with pytest.raises(LossevoError, match="runs: not a folder; remove it, or name another folder") as caught:
            make(tmp_path / "runs" / "search-1")
        assert not isinstance(caught.value, FolderInUseError)

    @pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
    def test_nor_is_one_on_a_file_system_without_locks(self, tmp_path, monkeypatch, number):
        """As Lustre without ``-o flock`` and NFS without its lock service answer."""

        def flock(descriptor: int, operation: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)
        with pytest.raises(LossevoError, match=r"run: cannot be locked \(.*; choose a folder on a file") as caught:
            make(tmp_path / "run")
        assert not isinstance(caught.value, FolderInUseError)
        assert names(tmp_path) == set()

    def test_of_many_at_once_one_gets_it(self, tmp_path):
        context = multiprocessing.get_context("fork")
        results = context.SimpleQueue()
        children = [context.Process(target=_race, args=(tmp_path / "run", n, results)) for n in range(8)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        (winner,) = [number for number, got in (results.get() for _ in children) if got]
        assert (tmp_path / "run" / "run.json").read_text() == str(winner)


def _make_for_ever(folder: Path) -> None:
    with new_folder(folder, made_by="search", configuration="run.json"):
        write_text(folder / "half", "")
        time.sleep(60)


def _race(folder: Path, number: int, results: multiprocessing.SimpleQueue) -> None:
    try:
        with new_folder(folder, made_by="search", configuration="run.json"):
            write_text(folder / "run.json", str(number))
    except LossevoError:
        results.put((number, False))
    else:
        results.put((number, True))


class TestLinks:
    """A folder may come from somebody else."""

    @pytest.fixture
    def victim(self, tmp_path) -> Path:
        (tmp_path / "elsewhere").mkdir()
        victim = tmp_path / "elsewhere" / "precious"
        victim.write_text("precious")
        return victim

    def test_a_file_that_is_a_link_is_replaced(self, tmp_path, victim):
        (tmp_path / "hall_of_fame.json").symlink_to(victim)
        write_json(tmp_path / "hall_of_fame.json", {"a": 1})
        assert victim.read_text() == "precious"
        assert not (tmp_path / "hall_of_fame.json").is_symlink()

    @pytest.mark.parametrize("name", ["hall_of_fame.json.part", ".hall_of_fame.json.part"])
    def test_a_link_in_the_place_of_a_part_is_not_followed(self, tmp_path, victim, name):
        (tmp_path / name).symlink_to(victim)
        write_json(tmp_path / "hall_of_fame.json", {"a": 1})
        assert victim.read_text() == "precious"

    def test_the_user_s_own_link_to_a_run_folder_is_followed(self, tmp_path):
        (tmp_path / "scratch").mkdir()
        (tmp_path / "run").symlink_to(tmp_path / "scratch")
        with locked(tmp_path / "run"):
            write_text(tmp_path / "run" / "file", "x")
        assert (tmp_path / "scratch" / "file").read_text() == "x"

    def test_a_lock_that_is_a_link_is_refused(self, tmp_path, victim):
        (tmp_path / LOCK).symlink_to(victim)
        with pytest.raises(LossevoError, match=r"\.lock: a symbolic link"), locked(tmp_path):
            pass
        assert victim.read_text() == "precious"


def test_a_written_file_has_the_rights_that_the_user_s_mask_gives(tmp_path):
    mask = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "x")
    finally:
        os.umask(mask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
