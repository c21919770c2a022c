from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from lossevo.errors import LossevoError
from lossevo.writing import append_line


def _append_many(path: Path, name: str) -> None:
    for number in range(50):
        append_line(path, f"{name}{number} " + "x" * 5000)


class TestAppendLine:
    def test_makes_the_file_and_goes_on(self, tmp_path):
        for line in ("one", "zwö"):
            append_line(tmp_path / "lines", line)
        assert (tmp_path / "lines").read_text(encoding="utf-8") == "one\nzwö\n"

    def test_a_line_without_an_end_gets_one(self, tmp_path):
        (tmp_path / "lines").write_text("cut o", encoding="utf-8")
        append_line(tmp_path / "lines", "next")
        assert (tmp_path / "lines").read_text(encoding="utf-8") == "cut o\nnext\n"

    def test_several_processes_mix_no_lines(self, tmp_path):
        path, context = tmp_path / "lines", multiprocessing.get_context("fork")
        workers = [context.Process(target=_append_many, args=(path, name)) for name in "ab"]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        lines = path.read_text(encoding="utf-8").splitlines()
        assert sorted(line.split()[0] for line in lines) == sorted(f"{name}{n}" for name in "ab" for n in range(50))
        assert {len(line.split()[1]) for line in lines} == {5000}

    def test_a_link_is_not_followed(self, tmp_path):
        (tmp_path / "target").write_text("mine\n", encoding="utf-8")
        (tmp_path / "link").symlink_to(tmp_path / "target")
        with pytest.raises(LossevoError, match="link: cannot be written"):
            append_line(tmp_path / "link", "theirs")
        assert (tmp_path / "target").read_text(encoding="utf-8") == "mine\n"

    def test_a_pipe_or_folder_is_refused_at_once(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "pipe", tmp_path):
            with pytest.raises(LossevoError, match="cannot be written"):
                append_line(path, "line")
