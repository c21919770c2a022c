from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import lossevo
from lossevo.installation import code_hash, installation


def hash_of(folder: Path) -> str:
    program = "from lossevo.installation import code_hash; print(code_hash())"
    return subprocess.check_output([sys.executable, "-c", program], cwd=folder, text=True, env={"PYTHONPATH": "."})


def test_the_hash_changes_with_any_line_of_code(tmp_path):
    shutil.copytree(Path(lossevo.__file__).parent, tmp_path / "lossevo", ignore=shutil.ignore_patterns("__pycache__"))
    assert hash_of(tmp_path).strip() == code_hash()
    (tmp_path / "lossevo" / ".#region.py").symlink_to("me@here.1234")  # Emacs
    assert hash_of(tmp_path).strip() == code_hash()
    file = tmp_path / "lossevo" / "losses" / "region.py"
    file.write_text(file.read_text() + "# changed\n")
    assert hash_of(tmp_path).strip() != code_hash()


def test_a_part_has_a_hash_of_its_own():
    assert len({code_hash(), code_hash("data"), code_hash("losses")}) == 3


def test_what_is_installed_is_named_with_versions_that_cpu_and_gpu_builds_share():
    assert {"lossevo", "torch", "numpy", "monai"} <= installation().keys()
    assert installation()["lossevo"] == f"code {code_hash()}"
    assert not any("+" in version for version in installation().values())
