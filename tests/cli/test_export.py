"""``lossevo export`` of a loss that a real search found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import lossevo
from lossevo.experiment import Subjects, hall_of_fame
from lossevo.losses.symbolic import ExpressionLoss


@pytest.fixture(scope="module")
def exported(finished, cli_in, tmp_path_factory) -> tuple[Path, str]:
    """The best loss of a run, exported; the folder and what was said."""
    folder = tmp_path_factory.mktemp("exported")
    said = cli_in(folder, "export", finished.folder, 1, "--out", "my_loss")
    assert said.status == 0, said.err
    return folder / "my_loss", said.out


def test_every_file_is_the_loss_that_was_found(exported, finished):
    folder, _ = exported
    assert sorted(path.name for path in folder.iterdir()) == ["loss.json", "loss.pt2", "loss.py"]
    best = ExpressionLoss(hall_of_fame.read(finished.folder)[0].expression)
    generator = torch.Generator().manual_seed(1)
    logits, labels = torch.randn(2, 3, 6, 5, 4, generator=generator), torch.randint(0, 3, (2, 1, 6, 5, 4))
    for name in ("loss.json", "loss.pt2", "loss.py", ""):
        assert torch.allclose(lossevo.load(folder / name)(logits, labels), best(logits, labels), rtol=1e-5)


def test_it_says_what_was_verified_and_how_to_use_it(exported):
    _, out = exported
    assert "\x1b" not in out
    for name in ("loss.json", "loss.pt2", "loss.py"):
        assert f"my_loss/{name}  deviation in a fresh process: value" in out
    assert "lossevo.load('my_loss')" in out


def test_the_loss_carries_whom_its_search_has_seen(exported, finished):
    document = json.loads((exported[0] / "loss.json").read_text(encoding="utf-8"))
    subjects = Subjects.read(finished.folder)
    text = json.dumps(document)
    for subject in (*subjects.train, *subjects.validation, *subjects.untouched):
        assert subject in text
        assert subjects.hashes[subject] in text


def test_an_earlier_export_is_kept_unless_asked(exported, finished, cli):
    folder, _ = exported
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    said = cli("export", finished.folder, "2", "--out", folder)
    assert said.status == 2
    assert "--overwrite" in said.err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
