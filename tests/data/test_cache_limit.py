"""The cache stays below its limit, and never removes what a running process uses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lossevo.data import cache_limit
from lossevo.data.cache import Cache, default_cache
from lossevo.data.cache_limit import limit_bytes
from lossevo.data.entry import read_array
from lossevo.errors import LossevoError

ROOT = Path(__file__).parents[2]
ENTRY = np.arange(25_000, dtype=np.float32)  # 100 kB

USE = """
import sys
from pathlib import Path
import numpy as np
from lossevo.data.cache import Cache
cache, command, *keys = Cache(Path(sys.argv[1]), int(sys.argv[2])), *sys.argv[3:]
for key in keys:
    if command == "put":
        cache.put("volumes", key, {}, image=np.arange(25_000, dtype=np.float32))
    else:
        assert cache.find("volumes", key)
print("done", flush=True)
sys.stdin.read()
"""


def process(folder: Path, limit: int, command: str, *keys: str) -> subprocess.Popen[str]:
    """A process that has used some entries, and lives until its input is closed."""
    started = subprocess.Popen(
        [sys.executable, "-c", USE, folder, str(limit), command, *keys],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "done\n"
    return started


def end(started: subprocess.Popen[str]) -> None:
    started.communicate(timeout=60)
    assert started.returncode == 0


def keys(folder: Path) -> set[str]:
    return {file.stem for file in (folder / "volumes").rglob("*.zip")}


def test_what_was_used_longest_ago_makes_room(tmp_path):
    end(process(tmp_path, 10**9, "put", "a1", "b2", "c3", "d4"))
    end(process(tmp_path, 10**9, "find", "a1"))
    Cache(tmp_path, 350_000).put("volumes", "e5", {}, image=ENTRY)
    assert keys(tmp_path) == {"d4", "a1", "e5"}
    assert sum(file.stat().st_size for file in (tmp_path / "volumes").rglob("*.zip")) <= 350_000


def test_what_a_running_process_has_used_stays_and_goes_when_it_is_killed(tmp_path):
    end(process(tmp_path, 10**9, "put", "a1", "b2", "c3"))
    reader = process(tmp_path, 10**9, "find", "a1", "c3")
    try:
        mine = Cache(tmp_path, 50_000)
        mine.put("volumes", "d4", {}, image=ENTRY)
        assert keys(tmp_path) == {"a1", "c3", "d4"}  # more than the limit, and all of it in use
    finally:
        reader.send_signal(signal.SIGKILL)
        reader.communicate(timeout=60)
    mine.put("volumes", "e5", {}, image=ENTRY)
    assert keys(tmp_path) == {"d4", "e5"}
    np.testing.assert_array_equal(read_array(mine.find("volumes", "d4"), "image"), ENTRY)
    assert len(list((tmp_path / "in-use").iterdir())) == 1


def test_two_processes_that_write_at_once_keep_what_each_has_written(tmp_path):
    end(process(tmp_path, 10**9, "put", *(f"old{n}" for n in range(5))))
    written = [f"{letter}{n}" for letter in "xy" for n in range(5)]
    both = [process(tmp_path, 300_000, "put", *written[:5]), process(tmp_path, 300_000, "put", *written[5:])]
    try:
        assert keys(tmp_path) == {*written}
    finally:
        for started in both:
            end(started)
    Cache(tmp_path, 300_000).put("volumes", "last", {}, image=ENTRY)
    assert len(keys(tmp_path)) <= 3
    assert "last" in keys(tmp_path)


def test_the_folder_is_not_looked_through_at_every_write(tmp_path, monkeypatch):
    looks = []
    remove = cache_limit.Limit._remove
    monkeypatch.setattr(cache_limit.Limit, "_remove", lambda self, step: looks.append(1) or remove(self, step))
    cache = Cache(tmp_path, 10**7)
    for n in range(50):
        cache.put("volumes", f"k{n}", {}, image=ENTRY)
    assert 1 <= len(looks) <= 3


def test_without_locks_nothing_is_removed(tmp_path, monkeypatch):
    end(process(tmp_path, 10**9, "put", "a1", "b2"))
    monkeypatch.setattr(cache_limit, "fcntl", None)
    Cache(tmp_path, 50_000).put("volumes", "c3", {}, image=ENTRY)
    assert keys(tmp_path) == {"a1", "b2", "c3"}


def test_a_folder_that_may_only_be_read_is_read(tmp_path, monkeypatch):
    end(process(tmp_path, 10**9, "put", "a1"))

    def utime(file, *arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "utime", utime)
    assert Cache(tmp_path).find("volumes", "a1") is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, 50 * 2**30),
        ("500MiB", 500 * 2**20),
        ("1.5GiB", 3 * 2**29),
        ("2 TB", 2 * 10**12),
        ("1000 B", 1000),
        ("off", None),
    ],
)
def test_the_limit_is_a_setting(monkeypatch, tmp_path, text, expected):
    monkeypatch.setenv("LOSSEVO_CACHE", str(tmp_path))
    monkeypatch.delenv("LOSSEVO_CACHE_LIMIT", raising=False)
    if text:
        monkeypatch.setenv("LOSSEVO_CACHE_LIMIT", text)
    assert limit_bytes() == expected
    assert default_cache().limit_bytes == expected


@pytest.mark.parametrize("text", ["much", "-1", "1000", "1,5GiB", "50 apples", "nan"])
def test_a_limit_that_is_no_size(monkeypatch, text: str):
    monkeypatch.setenv("LOSSEVO_CACHE_LIMIT", text)
    with pytest.raises(LossevoError, match=rf"LOSSEVO_CACHE_LIMIT: '{text}' is no size; expected such as 50GiB"):
        limit_bytes()
