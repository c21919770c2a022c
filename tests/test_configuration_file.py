"""YAML that is damaged, huge or hostile: one line that names file and place, within a second, and nothing runs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lossevo.data.labels import label_scheme
from lossevo.errors import LossevoError
from lossevo.metalearning.settings import MetaSettings
from lossevo.search.space import load_space
from lossevo.training.task import load_task


def read_settings(path: Path) -> MetaSettings:
    from lossevo.configuration_file import read

    return read(MetaSettings, path, expects="inner_steps, …")


def read_labels(path: Path) -> object:
    return label_scheme(str(path), None)


READERS = (load_task, lambda path: load_space(str(path)), read_settings, read_labels)
BILLION = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{there}: &{there} [{', '.join(9 * [f'*{here}'])}]" for here, there in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize("reader", READERS, ids=["task", "space", "settings", "labels"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: " + "[" * 1500 + "]" * 1500, "nest"),
        ("a: " + "[" * 60 + "]" * 60, "line 1: nested more than 50 deep"),
        ("\n".join(" " * depth + "a:" for depth in range(300)), "line 51: nested more than 50 deep"),
        ("\nseed: " + "1" * 5000, r"'1111.*… is no whole number of up to 64 bits in .*line 2"),
        ("\nseed: " + "1" * 30, r"is no whole number of up to 64 bits in .*line 2"),
        ("a: {" + ", ".join(f"key{number}: {number}" for number in range(30_000)) + "}", "bytes, expected at most"),
        (BILLION, "more than 200,000 values"),
        ("a: &a [*a]", "nested more than 50 deep"),
        ("a: 1\nb: 2\na: 3", "the key 'a' is given twice in .*line 3"),
        ("a: !!python/object/apply:os.system ['touch exploded']", "could not determine a constructor"),
        ("a: !!bool x", "'x' is no tag:yaml.org,2002:bool"),
        ("a: 2001-99-99", r"'2001-99-99' is no .*month must be in 1..12.*line 1"),
        ("a: b\0c", "NUL character at position 4"),
        ("", "found NoneType, an empty file"),
        ("- a", "found list"),
        ("a: 1\n---\nb: 1", "expected a single document"),
        ("? [a]\n: 1", "unhashable key"),
    ],
)
def test_one_line_says_what_is_wrong(tmp_path, monkeypatch, reader, text, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    start = time.monotonic()
    with pytest.raises(LossevoError, match=message) as caught:
        reader(path)
    assert time.monotonic() - start < 5
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert [*tmp_path.iterdir()] == [path]


def test_thousands_of_unknown_keys_are_told_at_once(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("\n".join(f"learning_rat{number}: {number}" for number in range(8000)))
    start = time.monotonic()
    with pytest.raises(
        LossevoError, match=r"unknown key 'learning_rat0' \(did you mean 'learning_rate'\?\).*7999 more"
    ):
        load_task(path)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("text", ["channels: {foo: 1}", "learning_rate: .nan", "patch_size: [1.5, {a: b}, [c]]"])
def test_a_wrong_value_names_its_key(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(LossevoError, match=rf"x\.yaml: {text.partition(':')[0]}"):
        load_task(path)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfbatch_size: 3\n")
    assert load_task(path).batch_size == 3
