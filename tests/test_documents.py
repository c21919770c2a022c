"""Text and JSON from files that anybody may have written: bounded, one line that names the file, and nothing hangs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lossevo import documents
from lossevo.documents import parse_json, read_json, read_text
from lossevo.errors import LossevoError


def refused(path: Path) -> str:
    with pytest.raises(LossevoError) as caught:
        read_json(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


def test_text_with_and_without_a_byte_order_mark(tmp_path):
    for start in (b"", b"\xef\xbb\xbf"):
        (tmp_path / "x").write_bytes(start + "µ".encode())
        assert read_text(tmp_path / "x", kind="text") == "µ"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged, the file is empty"),
        (b" \n", "damaged, the file is empty"),
        (b"{", r"damaged \(no JSON: Expecting"),
        (b"{}{}", "Extra data"),
        (b"\xff\xfe{\x00}\x00", "no text in UTF-8 \\(byte 0xff at position 0\\)"),
        (b'{"a": "\x00"}', "holds a NUL character at position 7"),
        (b'{"a": NaN}', "NaN is no number in JSON"),
        (b'{"a": -Infinity}', "-Infinity is no number in JSON"),
        (b'{"a": 1, "a": 2}', "the key 'a' is given twice"),
        (b"[" * 100_000, "nested too deep"),
        (b"[" * 60 + b"]" * 60, "nested more than 50 deep"),
        (b"1" * 5000, "damaged"),
        (b"[" + b"1" * 400 + b"]", r"11111111111111111111… is a whole number of more than 64 bits"),
    ],
)
def test_what_is_no_plain_data_is_refused(tmp_path, content, message):
    (tmp_path / "x.json").write_bytes(content)
    said = refused(tmp_path / "x.json")
    assert said.startswith(f"{tmp_path / 'x.json'}: ")
    with pytest.raises(LossevoError, match=message):
        read_json(tmp_path / "x.json")


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "it is a pipe or a device" in refused(tmp_path / "pipe")
    assert "it is a pipe or a device" in refused(Path("/dev/zero"))
    assert "it is a folder" in refused(tmp_path)
    assert "no such file" in refused(tmp_path / "absent")
    assert "File name too long" in refused(tmp_path / ("n" * 300))
    assert "null byte" in refused(tmp_path / "a\0b")
    (tmp_path / "file").touch()
    assert "Not a directory" in refused(tmp_path / "file" / "below")


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "large.json").open("wb") as stream:
        stream.truncate(documents.MAX_BYTES + 1)
    assert "it has 67,108,865 bytes, expected at most 67,108,864" in refused(tmp_path / "large.json")


def test_nan_where_it_is_allowed():
    assert str(parse_json("[NaN]", source="here", any_number=True)) == "[nan]"


def test_50_levels_and_64_bits_are_plain():
    assert parse_json("[" * 51 + "]" * 51, source="here")
    assert parse_json(str(2**64 - 1), source="here") == 2**64 - 1
