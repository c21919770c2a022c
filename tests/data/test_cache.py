from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lossevo.data import Cohort, PreprocessingSettings, entry, prepare, read_nnunet
from lossevo.data import cache as cache_module
from lossevo.data.cache import Cache, CacheWarning, StoredVolume, default_cache
from lossevo.errors import LossevoError

SPACING_MM = (2.0, 2.0, 2.0)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def folder(write_nnunet_cohort) -> Path:
    """Three cases of 1 mm."""
    rng = np.random.default_rng(0)
    cases = {
        name: (rng.normal(100, 20, (6, 12, 10)).astype(np.float32), rng.integers(0, 2, (6, 12, 10), np.uint8))
        for name in "abc"
    }
    return write_nnunet_cohort(cases)


@pytest.fixture
def later(monkeypatch) -> None:
    """An hour later: all files have been at rest. (A file's ctime cannot be set back, so the clock goes on.)"""
    now = time.time
    monkeypatch.setattr(cache_module.time, "time", lambda: now() + 3600)


def unreadable(cohort: Cohort) -> Cohort:
    """The cohort, whose cases may not be loaded."""

    def load():
        raise AssertionError("read again from its source")

    return dataclasses.replace(cohort, cases=tuple(dataclasses.replace(case, load=load) for case in cohort.cases))


def assert_same(first, second) -> None:
    assert first.fingerprint == second.fingerprint
    assert first.subject_hashes == second.subject_hashes
    assert first.recipe == second.recipe
    for one, other in zip(first.volumes, second.volumes, strict=True):
        assert (one.case_id, one.subject, one.spacing_mm) == (other.case_id, other.subject, other.spacing_mm)
        assert (one.channels, one.voxels) == (other.channels, other.voxels)
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.label, other.label)
        assert (one.image.dtype, one.label.dtype) == (other.image.dtype, other.label.dtype)


def entries(cache: Cache, kind: str = "volumes") -> list[Path]:
    return sorted((cache.folder / kind).rglob("*.zip"))


def leftovers(cache: Cache) -> list[Path]:
    return [*(cache.folder / "unfinished").iterdir()]


def test_what_comes_from_the_cache_is_what_was_made_bit_for_bit(folder, cache):
    fresh = prepare(read_nnunet(folder), spacing_mm=SPACING_MM)
    first = prepare(read_nnunet(folder), spacing_mm=SPACING_MM, cache=cache)
    second = prepare(unreadable(read_nnunet(folder)), spacing_mm=SPACING_MM, cache=cache)

    assert_same(first, fresh)
    assert_same(second, fresh)
    assert all(isinstance(volume, StoredVolume) for volume in second.volumes)
    read = second.volumes[0].read()
    np.testing.assert_array_equal(read.image, fresh.volumes[0].image)
    assert len(entries(cache)) == 3
    assert not leftovers(cache)


def test_a_setting_or_the_classes_change_the_key(folder, cache):
    cohort = read_nnunet(folder)
    for options in (
        {"spacing_mm": SPACING_MM},
        {"spacing_mm": (2.0, 2.0, 1.0)},
        {"spacing_mm": SPACING_MM, "settings": PreprocessingSettings(crop="body")},
        {"spacing_mm": SPACING_MM, "settings": PreprocessingSettings(statistics="body")},
    ):
        prepare(cohort, cache=cache, **options)
    renamed = dataclasses.replace(cohort, class_names=("background", "disc"))
    prepare(renamed, spacing_mm=SPACING_MM, cache=cache)
    reread = tuple(dataclasses.replace(case, reading="another reader") for case in cohort.cases)
    prepare(dataclasses.replace(cohort, cases=reread), spacing_mm=SPACING_MM, cache=cache)
    assert len(entries(cache)) == 6 * 3


def test_a_changed_file_is_seen_and_a_touched_or_moved_one_is_not_read_again(folder, cache, later):
    prepare(read_nnunet(folder), spacing_mm=SPACING_MM, cache=cache)
    image = folder / "imagesTr" / "a_0000.nii.gz"
    before = image.stat()

    os.utime(image)
    moved = folder.rename(folder.with_name("moved"))
    unchanged = prepare(unreadable(read_nnunet(moved)), spacing_mm=SPACING_MM, cache=cache)

    image = moved / "imagesTr" / "a_0000.nii.gz"
    other = bytearray((moved / "imagesTr" / "b_0000.nii.gz").read_bytes())
    image.write_bytes(bytes(other).ljust(before.st_size, b"\0")[: before.st_size])
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))  # same size, same time: its ctime gives it away
    assert cache.content_hash(image) == hashlib.sha256(image.read_bytes()).hexdigest()

    image.write_bytes(bytes(other))
    with pytest.raises(LossevoError, match="a and b hold the same image"):
        prepare(read_nnunet(moved), spacing_mm=SPACING_MM, cache=cache)
    assert len(unchanged.volumes) == 3


def test_a_file_is_read_once_when_at_rest_and_each_time_before(folder, cache, later, monkeypatch):
    image = folder / "imagesTr" / "a_0000.nii.gz"
    first = cache.content_hash(image)
    digest = cache_module.hashlib.file_digest
    monkeypatch.setattr(cache_module.hashlib, "file_digest", None)
    assert cache.content_hash(image) == first
    monkeypatch.setattr(cache_module.hashlib, "file_digest", digest)

    monkeypatch.undo()  # the present again: a file written just now may change within the clock's tick
    fresh = folder / "fresh"
    fresh.write_bytes(b"one")
    one = cache.content_hash(fresh)
    state = fresh.stat()
    fresh.write_bytes(b"two")
    os.utime(fresh, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert cache.content_hash(fresh) != one


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped bit", "another file"])
def test_a_damaged_entry_is_made_anew(folder, cache, damage: str):
    first = prepare(read_nnunet(folder), spacing_mm=SPACING_MM, cache=cache)
    for file in entries(cache):
        content = bytearray(file.read_bytes())
        if damage == "flipped bit":
            content[len(content) // 2] ^= 4
        file.write_bytes({"truncated": content[:-30], "empty": b"", "another file": b"PK"}.get(damage, content))
    assert_same(prepare(read_nnunet(folder), spacing_mm=SPACING_MM, cache=cache), first)
    assert_same(prepare(unreadable(read_nnunet(folder)), spacing_mm=SPACING_MM, cache=cache), first)


def test_an_entry_that_vanishes_later_is_an_error_that_says_why(folder, cache):
    volume = prepare(read_nnunet(folder), spacing_mm=SPACING_MM, cache=cache).volumes[0]
    cache.clear()
    with pytest.raises(LossevoError, match=r"zip: cannot be read .*Was the cache cleared meanwhile\?"):
        volume.image  # noqa: B018


def test_without_a_reader_s_word_a_case_is_loaded_before_it_is_looked_up(folder, cache):
    cohort = read_nnunet(folder)
    unknown = dataclasses.replace(cohort, cases=tuple(dataclasses.replace(case, reading="") for case in cohort.cases))
    first = prepare(unknown, spacing_mm=SPACING_MM, cache=cache)
    written = {file: file.stat().st_ino for file in entries(cache)}
    assert_same(prepare(unknown, spacing_mm=SPACING_MM, cache=cache), first)
    assert {file: file.stat().st_ino for file in entries(cache)} == written
    with pytest.raises(AssertionError, match="read again"):
        prepare(unreadable(unknown), spacing_mm=SPACING_MM, cache=cache)


def test_a_file_that_changes_while_it_is_read_is_not_kept(folder, cache):
    cohort = read_nnunet(folder)
    case = cohort.cases[0]

    def load():
        loaded = case.load()
        with case.files.images[0].open("ab") as stream:
            stream.write(b"more")
        return loaded

    prepare(
        dataclasses.replace(cohort, cases=(dataclasses.replace(case, load=load),)), spacing_mm=SPACING_MM, cache=cache
    )
    assert not entries(cache)


def no_folder(cache: Cache, monkeypatch) -> None:
    cache.folder.parent.mkdir(exist_ok=True)
    cache.folder.write_text("a file where the folder should be")


def no_room(cache: Cache, monkeypatch) -> None:
    def write(stream, record, arrays):
        stream.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(entry, "write", write)


@pytest.mark.parametrize("trouble", [no_folder, no_room])
def test_work_goes_on_without_a_cache_that_cannot_be_written(folder, cache, trouble, monkeypatch):
    trouble(cache, monkeypatch)
    with pytest.warns(CacheWarning, match="the cache cannot be written") as warned:
        prepared = prepare(read_nnunet(folder), spacing_mm=SPACING_MM, cache=cache)
    assert len(warned) <= 2  # two threads may meet the trouble at once, but not every case warns
    monkeypatch.undo()
    assert_same(prepared, prepare(read_nnunet(folder), spacing_mm=SPACING_MM))
    if cache.folder.is_dir():
        assert not leftovers(cache)


PREPARE = """
import sys
from pathlib import Path
from lossevo.data import prepare, read_nnunet
from lossevo.data.cache import Cache
print(prepare(read_nnunet(sys.argv[1]), spacing_mm=(2.0, 2.0, 2.0), cache=Cache(Path(sys.argv[2]))).fingerprint)
"""

KILL_HALF_WAY = """
import os, signal
from lossevo.data import entry
write, calls = entry.write, []
def half(stream, record, arrays):
    calls.append(1)
    if len(calls) == 2:
        stream.write(b"PK half of an entry")
        stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    write(stream, record, arrays)
entry.write = half
"""


def python(code: str, *arguments: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def test_two_processes_at_once(folder, cache):
    both = [python(PREPARE, folder, cache.folder) for _ in range(2)]
    printed = {process.communicate(timeout=120) for process in both}
    fresh = prepare(read_nnunet(folder), spacing_mm=SPACING_MM)
    assert printed == {(fresh.fingerprint + "\n", "")}
    assert len(entries(cache)) == 3
    assert not leftovers(cache)
    assert_same(prepare(unreadable(read_nnunet(folder)), spacing_mm=SPACING_MM, cache=cache), fresh)


def test_kill_half_way_leaves_no_half_entry(folder, cache, monkeypatch):
    killed = python(KILL_HALF_WAY + PREPARE, folder, cache.folder)
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert len(leftovers(cache)) >= 1
    assert len(entries(cache)) <= 2
    fresh = prepare(read_nnunet(folder), spacing_mm=SPACING_MM)
    assert_same(prepare(read_nnunet(folder), spacing_mm=SPACING_MM, cache=cache), fresh)
    assert len(entries(cache)) == 3
    # The leftover may be another process's that is still writing: it goes after a day.
    now = time.time
    monkeypatch.setattr(cache_module.time, "time", lambda: now() + 25 * 3600)
    prepare(read_nnunet(folder), spacing_mm=(3.0, 3.0, 3.0), cache=Cache(cache.folder))
    assert not leftovers(cache)


def test_clear_frees_what_is_counted_and_leaves_other_files_alone(folder, cache, later):
    prepare(read_nnunet(folder), spacing_mm=SPACING_MM, cache=cache)
    mine = cache.folder / "notes.txt"
    mine.write_text("not the cache's")
    size = cache.size_bytes()
    assert size > 3 * 6 * 12 * 10 / 8 * 5
    assert cache.clear() == size
    assert cache.size_bytes() == 0
    assert mine.exists()
    assert cache.clear() == 0
    prepare(read_nnunet(folder), spacing_mm=SPACING_MM, cache=cache)
    assert len(entries(cache)) == 3


def test_files_are_for_their_owner_only(folder, cache):
    prepare(read_nnunet(folder), spacing_mm=SPACING_MM, cache=cache)
    assert {file.stat().st_mode & 0o077 for file in entries(cache)} == {0}


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("LOSSEVO_CACHE", str(tmp_path / "mine"))
    assert default_cache().folder == tmp_path / "mine"
    monkeypatch.setenv("LOSSEVO_CACHE", "off")
    assert default_cache() is None
    monkeypatch.delenv("LOSSEVO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache().folder == tmp_path / "xdg" / "lossevo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache().folder == tmp_path / ".cache" / "lossevo"
