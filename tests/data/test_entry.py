from __future__ import annotations

import ast
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lossevo.data import entry
from lossevo.errors import LossevoError

RNG = np.random.default_rng(0)
ARRAYS = {
    "image": RNG.normal(size=(2, 70, 60, 50)).astype(np.float32),  # larger than what is read at a time
    "label": np.asfortranarray(RNG.integers(0, 3, (4, 5, 6), np.uint8)),
    "distance_mm": RNG.normal(size=(3, 4, 5)).astype(np.float16)[:, ::2],
    "big endian": np.arange(5, dtype=">i2"),
    "number": np.array(2.5),
    "nothing": np.zeros((0, 3)),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "entry.zip"
    with made.open("wb") as stream:
        entry.write(stream, {"box": [[0, 3]], "name": "é"}, ARRAYS)
    return made


def test_what_is_read_is_what_was_written(file: Path):
    for name, array in ARRAYS.items():
        read = entry.read_array(file, name)
        np.testing.assert_array_equal(read, array)
        assert read.dtype == array.dtype
        assert read.flags.writeable
    assert entry.read_record(file) == {"box": [[0, 3]], "name": "é"}
    assert entry.is_whole(file)


def test_the_same_content_is_the_same_file(file: Path, tmp_path: Path):
    with (tmp_path / "again").open("wb") as stream:
        entry.write(stream, {"box": [[0, 3]], "name": "é"}, ARRAYS)
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("place", [0.02, 0.3, 0.99])
def test_a_flipped_bit_is_an_error(file: Path, place: float):
    content = bytearray(file.read_bytes())
    content[int(ARRAYS["image"].nbytes * place)] ^= 16
    file.write_bytes(content)
    assert not entry.is_whole(file)
    with pytest.raises(LossevoError, match=r"entry\.zip: cannot be read \(Bad CRC-32"):
        entry.read_array(file, "image")


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ({"dtype": "<f4", "shape": [3]}, b"123456789 12"[:11]),
        ({"dtype": "<f4", "shape": [3]}, b"123456789 123"),
        ({"dtype": "|O", "shape": [1]}, b"12345678"),
        ({"dtype": "no such type", "shape": [1]}, b"1"),
        ({"dtype": "<f4", "shape": [-1, -1]}, b"1234"),
        ({"dtype": "<f4"}, b"1234"),
        ([], b""),
        (None, b""),
    ],
)
def test_a_file_that_does_not_hold_what_it_says_is_an_error(tmp_path: Path, form: object, content: bytes):
    """In particular, no object: nothing is unpickled."""
    file = tmp_path / "forged.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(entry.HEAD, json.dumps({"arrays": {"image": form}}))
        archive.writestr("image", content)
    with pytest.raises(LossevoError, match=r"forged\.zip: cannot be read"):
        entry.read_array(file, "image")
    with pytest.raises(LossevoError, match=r"forged\.zip: cannot be read"):
        entry.read_record(file)


def test_reading_parses_no_python(file: Path, monkeypatch: pytest.MonkeyPatch):
    """As ``np.load`` does, which fails now and then where threads read at once."""

    def parsed(*args: object, **options: object) -> None:
        raise AssertionError("parsed as Python")

    monkeypatch.setattr(ast, "parse", parsed)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(entry.read_array, [file] * 50, ["label"] * 50))
        assert [entry.read_record(file)] * 50 == list(pool.map(entry.read_record, [file] * 50))
    for array in read:
        np.testing.assert_array_equal(array, ARRAYS["label"])
