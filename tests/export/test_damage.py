"""Files that were damaged, swapped or written by a newer version: a clear error, or nothing of the loss has changed."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import lossevo
from lossevo.errors import LossevoError
from lossevo.export import read_document

Batch = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """PyTorch writes to the log what it cannot read."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def _flipped(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ (1 << position % 8)]) + content[position + 1 :]


def _refused_or_unchanged(path: Path, content: bytes, batch: Batch, expected: torch.Tensor) -> bool:
    """Whether a file of this content is refused; else its value is the expected one."""
    path.write_bytes(content)
    try:
        loss = lossevo.load(path)
    except LossevoError:
        return True
    assert torch.equal(loss(*batch), expected)
    return False


def _members(content: bytes) -> dict[str, range]:
    """Where the archive holds the content of its members."""
    found = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.infolist():
            header = content[member.header_offset : member.header_offset + 30]
            start = member.header_offset + 30 + sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
            found[member.filename] = range(start, start + member.file_size)
    return found


def test_pt2_cut_off(tmp_path: Path, mixed: Any, batch: Batch) -> None:
    content = (mixed.folder / "loss.pt2").read_bytes()
    ends = [end for where in _members(content).values() for end in (where.start - 5, where.start, where.stop - 1)]
    for end in [0, 1, 4, *ends, len(content) - 30, len(content) - 1]:
        assert _refused_or_unchanged(tmp_path / "loss.pt2", content[:end], batch, torch.tensor(0.0)), end


def test_pt2_with_a_flipped_bit(tmp_path: Path, mixed: Any, batch: Batch) -> None:
    content = (mixed.folder / "loss.pt2").read_bytes()
    expected = lossevo.load(mixed.folder / "loss.pt2")(*batch)
    members = _members(content)
    for name, where in members.items():
        flipped = _flipped(content, where[len(where) // 2])
        assert _refused_or_unchanged(tmp_path / "loss.pt2", flipped, batch, expected), name
    inside = {position for where in members.values() for position in where}
    between = [position for position in range(len(content)) if position not in inside]
    refused = [
        _refused_or_unchanged(tmp_path / "loss.pt2", _flipped(content, at), batch, expected) for at in between[::113]
    ]
    assert any(refused)


def test_py_cut_off_or_with_a_flipped_bit(tmp_path: Path, mixed: Any, batch: Batch) -> None:
    content = (mixed.folder / "loss.py").read_bytes()
    expected = lossevo.load(mixed.folder / "loss.py")(*batch)
    for position in range(0, len(content) - 1, 67):
        assert _refused_or_unchanged(tmp_path / "loss.py", content[:position], batch, expected), position
        _refused_or_unchanged(tmp_path / "loss.py", _flipped(content, position), batch, expected)


def test_py_that_was_changed_on_purpose_says_how_to_use_it(tmp_path: Path, mixed: Any, batch: Batch) -> None:
    source = (mixed.folder / "loss.py").read_text(encoding="utf-8")
    changed = source.replace("[1.5, 2.0, 0.3, 1.3]", "[1.5, 2.0, 0.4, 1.3]")
    path = tmp_path / "loss.py"
    path.write_text(changed, encoding="utf-8")
    with pytest.raises(LossevoError, match=r"its checksum differs.*remove its first line"):
        lossevo.load(path)
    path.write_text(changed.partition("\n")[2], encoding="utf-8")
    assert lossevo.load(path).coefficients[2] == 0.4
    # How lines end is for version control systems to choose.
    path.write_bytes(source.replace("\n", "\r\n").encode())
    assert torch.equal(lossevo.load(path)(*batch), lossevo.load(mixed.folder / "loss.py")(*batch))


@pytest.mark.parametrize("name", ["loss.json", "loss.py", "loss.pt2"])
def test_empty_and_foreign_files(tmp_path: Path, mixed: Any, name: str) -> None:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("photo.jpg", b"\xff\xd8" * 100)
    others = {other: (mixed.folder / other).read_bytes() for other in ("loss.json", "loss.py", "loss.pt2")}
    del others[name]
    for content in (b"", b"\x00" * 100, zipped.getvalue(), pickle.dumps({}), *others.values()):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(LossevoError) as caught:
            lossevo.load(path)
        assert str(path) in str(caught.value)


def _changed(archive: Path, path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, members.get(Path(name).name.replace(".", "_"), source.read(name)))
    return path


def test_pt2_from_the_future(tmp_path: Path, mixed: Any) -> None:
    archive, path = mixed.folder / "loss.pt2", tmp_path / "loss.pt2"
    with zipfile.ZipFile(archive) as members:
        (program,) = (json.loads(members.read(name)) for name in members.namelist() if name.endswith("model.json"))
        (document,) = (json.loads(members.read(name)) for name in members.namelist() if name.endswith("loss.json"))
    newer_program = json.dumps({**program, "schema_version": {"major": 99, "minor": 1}}).encode()
    document["metadata"]["torch"] = "99.1.0+cpu"
    del document["sha256"]
    newer_torch = json.dumps(document).encode()
    for changed in (
        _changed(archive, path, archive_version=b"99", loss_json=newer_torch),
        _changed(archive, path, model_json=newer_program, loss_json=newer_torch),
    ):
        with pytest.raises(LossevoError, match=r"which PyTorch 99\.1\.0\+cpu wrote .*update PyTorch, or load the loss"):
            lossevo.load(changed)
    for changed in (
        _changed(archive, path, archive_version=b"99"),
        _changed(archive, path, model_json=newer_program),
        _changed(archive, path, model_json=b"{}"),
    ):
        with pytest.raises(LossevoError, match=r"\); load the loss\.json beside it, and export it again"):
            lossevo.load(changed)
    with pytest.raises(LossevoError, match="update lossevo"):
        lossevo.load(_changed(archive, path, loss_json=b'{"format": "lossevo.loss/2"}'))


def test_pt2_that_is_not_ours(tmp_path: Path) -> None:
    class Square(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * x

    path = tmp_path / "square.pt2"
    torch.export.save(torch.export.export(Square(), (torch.zeros(2),)), path)
    with pytest.raises(LossevoError, match=r"not one that lossevo exported: it holds no loss\.json"):
        lossevo.load(path)


class _Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("document", [b"", b'{"format": "lossevo.loss/2"}', b'{"format": "else"}', None])
def test_nothing_is_unpickled_before_the_checks(tmp_path: Path, mixed: Any, document: bytes | None) -> None:
    bomb = pickle.dumps(_Bomb(tmp_path / "exploded"))
    (tmp_path / "loss.json").write_bytes(bomb)
    with pytest.raises(LossevoError):
        lossevo.load(tmp_path / "loss.json")
    path = _changed(mixed.folder / "loss.pt2", tmp_path / "loss.pt2", model_pt=bomb, loss_json=document or b"{}")
    if document is None:  # what is left of a truncated download
        path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(LossevoError):
        lossevo.load(path)
    assert not (tmp_path / "exploded").exists()


def _torch_bomb(file: Path) -> bytes:
    content = io.BytesIO()
    torch.save({"inputs": _Bomb(file)}, content)
    return content.getvalue()


@pytest.mark.parametrize("pack", [lambda file: pickle.dumps(_Bomb(file)), _torch_bomb], ids=["pickle", "torch.save"])
def test_pickled_objects_among_the_example_inputs_are_refused(tmp_path: Path, mixed: Any, pack: Any) -> None:
    """PyTorch would unpickle them: it falls back to ``weights_only=False``."""
    path = _changed(mixed.folder / "loss.pt2", tmp_path / "loss.pt2", model_pt=pack(tmp_path / "exploded"))
    with pytest.raises(LossevoError, match=r"UnpicklingError in its .*model\.pt; load the loss\.json beside it"):
        lossevo.load(path)
    assert not (tmp_path / "exploded").exists()


def test_pickled_weights_are_refused(tmp_path: Path, mixed: Any) -> None:
    with zipfile.ZipFile(mixed.folder / "loss.pt2") as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("weights_config.json"))
        config = json.loads(archive.read(name))
    for tensor in config["config"].values():
        tensor["use_pickle"] = True
    path = _changed(
        mixed.folder / "loss.pt2", tmp_path / "loss.pt2", model_weights_config_json=json.dumps(config).encode()
    )
    with pytest.raises(LossevoError, match=r"ValueError in its .*weights_config\.json"):
        lossevo.load(path)


SILENT = """
import sys, lossevo
for path in sys.argv[1:]:
    try:
        lossevo.load(path)
    except lossevo.errors.LossevoError as mistake:
        print(mistake)
"""


def test_a_damaged_program_is_one_line_and_nothing_on_stderr(tmp_path: Path, mixed: Any) -> None:
    paths = [
        _changed(mixed.folder / "loss.pt2", tmp_path / f"{part}.pt2", **{part: b"[" * 5000})
        for part in ("model_json", "model_weights_config_json", "version", "model_pt")
    ]
    process = subprocess.run([sys.executable, "-c", SILENT, *paths], capture_output=True, text=True, check=True)
    assert process.stderr == ""
    for path, line in zip(paths, process.stdout.splitlines(), strict=True):
        assert str(path) in line
        assert "warnings above" not in line


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + 18 * b"\0", b"hello", 1000 * b"\0"])
def test_what_is_no_program_at_all(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "loss.pt2").write_bytes(content)
    with pytest.raises(LossevoError, match=r"loss\.pt2 is (damaged|a program, but not one that lossevo exported)"):
        lossevo.load(tmp_path / "loss.pt2")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"raise SystemExit(3)", r"cannot be executed \(SystemExit: 3\)"),
        (b"a = '\0'", "cannot be executed"),
        (b"raise ValueError('first\\nsecond')", "first second"),
        (b"\xff\xfe", "cannot be executed"),
        (b"", "defines no class EvolvedLoss"),
        (
            b"from torch import nn\nclass EvolvedLoss(nn.Module):\n    def __init__(self, x): super().__init__()",
            "cannot be made",
        ),
    ],
)
def test_py_that_does_not_work(tmp_path: Path, source: bytes, message: str) -> None:
    (tmp_path / "loss.py").write_bytes(source)
    with pytest.raises(LossevoError, match=message) as caught:
        lossevo.load(tmp_path / "loss.py")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["loss.json", "loss.py", "loss.pt2"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(LossevoError, match=name):
        lossevo.load(tmp_path / name)
    if name == "loss.json":
        with pytest.raises(LossevoError, match="is no regular file"):
            read_document(tmp_path / name)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"format": "lossevo.loss/1", "format": "x"}', "1" * 5000, '{"a": ' * 60 + "1" + "}" * 60]
)
def test_json_that_is_no_plain_data(tmp_path: Path, text: str) -> None:
    (tmp_path / "loss.json").write_text(text)
    with pytest.raises(LossevoError, match="is not readable JSON") as caught:
        lossevo.load(tmp_path / "loss.json")
    assert "\n" not in str(caught.value)
