"""Code of the user's: named, hashed, carried to where it runs, and never run by a specification alone."""

from __future__ import annotations

import hashlib
import pickle
import sys
from pathlib import Path

import pytest
import torch

from lossevo.errors import LossevoError
from lossevo.losses import LossModule, from_spec

CODE = """\
from dataclasses import dataclass
from pathlib import Path
import torch

with Path("{ran}").open("a") as stream:
    stream.write("ran ")

class Mean(torch.nn.Module):
    def forward(self, logits, labels):
        return logits.mean()

@torch.jit.script
def squared(x: torch.Tensor) -> torch.Tensor:
    return x * x

@dataclass
class Options:
    power: int = 2
"""
LOGITS, LABELS = torch.ones(1, 2, 3, 3), torch.zeros(1, 1, 3, 3)


@pytest.fixture
def ran(tmp_path) -> Path:
    return tmp_path / "ran.txt"


@pytest.fixture
def file(tmp_path, ran) -> Path:
    path = tmp_path / "my_losses.py"
    path.write_text(CODE.format(ran=ran))
    return path


def test_a_file_is_read_and_run_only_when_the_loss_is_made(file, ran):
    module = LossModule.read(f"{file}:Mean")
    assert module.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert module.spec == {"module": f"{file}:Mean", "sha256": module.sha256}
    assert not ran.exists()
    assert from_spec(module.spec, [module])(LOGITS, LABELS) == 1
    module.make()
    assert ran.read_text() == "ran "  # once in a process


def test_a_specification_alone_runs_nothing(file, ran):
    module = LossModule.read(f"{file}:Mean")
    other = LossModule(module.place, "Other", module.sha256, module.source)
    changed = LossModule(module.place, "Mean", "0" * 64, module.source)
    for allowed in ((), [other], [changed]):
        with pytest.raises(LossevoError, match=r"is code of .*:Mean, which is not run unless it is named"):
            from_spec(module.spec, allowed)
    with pytest.raises(LossevoError, match="is not run unless it is named"):
        from_spec({"name": "adaptive", "parameters": {"loss": module.spec}})
    assert not ran.exists()


def test_its_source_travels(file):
    sent = pickle.dumps(LossModule.read(f"{file}:Mean"))
    file.unlink()
    assert pickle.loads(sent).make()(LOGITS, LABELS) == 1


def test_a_module_to_import(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "their_package_of_losses.py").write_text("import torch\nclass Mean(torch.nn.L1Loss): pass\n")
    module = LossModule.read("their_package_of_losses:Mean")
    assert module.source is None
    assert "their_package_of_losses" not in sys.modules
    module.make()
    (tmp_path / "their_package_of_losses.py").write_text("class Mean: pass  # and so on\n")
    with pytest.raises(
        LossevoError, match=r"their_package_of_losses:Mean: on .* the module is another one than was named"
    ):
        module.make()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("my_losses.py", "'my_losses.py' names no loss, expected FILE.py:CLASS or package.module:CLASS"),
        ("my_losses.py:", "names no loss"),
        (":Mean", "names no loss"),
        ("my losses:Mean", "names no loss"),
        ("my_losses.py:Mean()", "names no loss"),
        ("nowhere.py:Mean", "nowhere.py: no such file"),
        ("nowhere_to_be_found:Mean", "nowhere_to_be_found: there is no module of this name that Python can import"),
        ("nowhere_to_be_found.losses:Mean", "nowhere_to_be_found.losses cannot be imported on .*: ModuleNotFoundError"),
        ("itertools:count", "itertools: there is no module of this name that Python can import"),
    ],
)
def test_what_names_no_code(text, message):
    with pytest.raises(LossevoError, match=message):
        LossModule.read(text)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("class Mean(:\n", r"my_losses.py cannot be run on .*: SyntaxError"),
        (
            "import nowhere_to_be_found\n",
            r"my_losses.py cannot be run on .*: ModuleNotFoundError: .*\(my_losses.py:1\)",
        ),
        ("import sys\nsys.exit(0)\n", "my_losses.py cannot be run on .*: SystemExit"),
        ("class Meen: pass\n", r"there is no Mean in .*my_losses.py \(did you mean 'Meen'\?\)"),
        ("Mean = 3\n", "my_losses.py:Mean is 3, expected a subclass of torch.nn.Module"),
    ],
)
def test_code_that_makes_no_loss(tmp_path, code, message):
    (tmp_path / "my_losses.py").write_text(code)
    module = LossModule.read(f"{tmp_path}/my_losses.py:Mean")
    for _ in range(2):  # what failed is not taken for done
        with pytest.raises(LossevoError, match=message):
            module.make()


@pytest.mark.parametrize(
    "spec",
    [
        {"module": "a.py:B"},
        {"module": "a.py", "sha256": ""},
        {"module": 1, "sha256": ""},
        {"module": "a:B", "sha256": "", "x": 1},
    ],
)
def test_a_damaged_specification(spec):
    with pytest.raises(LossevoError, match=r"loss specification .* is not"):
        from_spec(spec)
