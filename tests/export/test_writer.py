"""export_loss: verified files or nothing; never over what is not ours."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lossevo.errors import LossevoError
from lossevo.export import export_loss, read_document, writer
from lossevo.export.document import LossDocument
from lossevo.export.source import source_of
from lossevo.export.verification import TOLERANCE, deviation, deviations, expected_cases
from lossevo.expression import Expression
from lossevo.losses import expression_of
from lossevo.losses.symbolic import ExpressionLoss


@pytest.mark.parametrize("name", ["mixed", "learned"])
def test_report_and_files(name: str, request: pytest.FixtureRequest, metadata: dict[str, Any]) -> None:
    report = request.getfixturevalue(name)
    assert [path.name for path in report.files] == ["loss.json", "loss.py", "loss.pt2"]
    assert all(path.is_file() for path in report.files)
    assert [path for path in report.folder.parent.iterdir() if path != report.folder] == []
    assert {name: (found.value, found.gradient) for name, found in report.deviations.items()} == dict.fromkeys(
        ("loss.json", "loss.py", "loss.pt2"), (0, 0)
    )
    assert 0 < report.seconds < 300
    document = json.loads((report.folder / "loss.json").read_text(encoding="utf-8"))
    assert {key: document["metadata"][key] for key in metadata} == metadata


def test_py_and_pt2_run_where_there_is_no_lossevo(mixed: Any, learned: Any, tmp_path: Path) -> None:
    files = []
    for report in (mixed, learned):
        definition = read_document(report.folder / "loss.json").definition
        cases = [case for case in expected_cases(definition) if case.name in ("one-hot target", "saturated logits")]
        plain = [(case.logits, case.target, case.distance_map, case.value, case.gradient) for case in cases]
        files += [report.folder, tmp_path / f"{report.folder.name}.pt"]
        torch.save(plain, files[-1])
    program = """
        import copy, runpy, sys, torch

        class Blocker:
            def find_spec(self, name, *_):
                assert name.partition(".")[0] != "lossevo", "the exported files must not need lossevo"

        sys.meta_path.insert(0, Blocker())
        for folder, cases in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
            module = torch.export.load(f"{folder}/loss.pt2").module()
            loaded = torch.fx.GraphModule(module, copy.deepcopy(module.graph)).train().eval()
            written = runpy.run_path(f"{folder}/loss.py")["EvolvedLoss"]()
            for logits, target, distance_map, value, gradient in torch.load(cases, weights_only=True):
                classes = torch.arange(logits.shape[1]).view(1, -1, 1, 1, 1)
                one_hot = target == classes if target.shape[1] == 1 else target
                for loss, given in ((written, target), (loaded, one_hot), (module, one_hot)):
                    leaf = logits.clone().requires_grad_()
                    found = loss(leaf, given, distance_map)
                    found.backward()
                    assert torch.equal(found, value) and torch.equal(leaf.grad, gradient)
        assert "lossevo" not in sys.modules
        print("equal")
    """
    result = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", textwrap.dedent(program), *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "equal\n", result.stderr


def test_a_file_that_is_not_the_candidate_is_reported_and_nothing_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another(document: LossDocument) -> str:
        return source_of(replace(document, definition=document.definition.with_coefficients([0.31, 0.7])))

    monkeypatch.setattr(writer, "source_of", another)
    with pytest.raises(LossevoError, match=r"loss\.py is not the loss that was evaluated.*deviates by"):
        export_loss(expression_of("tversky"), tmp_path / "export", metadata={})
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(LossevoError, match=r"overwrite=True|is a file"):
            export_loss(expression_of("tversky"), folder, metadata={})
    (tmp_path / "loss.json").write_text('{"loss": "of another program"}')
    with pytest.raises(LossevoError, match="overwrite=True"):
        export_loss(expression_of("tversky"), tmp_path, metadata={})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loss.json", "notes.txt"]


def test_replaces_an_earlier_export_and_leaves_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "save_program", lambda document, path: path.write_bytes(b"program"))
    monkeypatch.setattr(writer, "verify", lambda folder, files, expression: {})
    folder = tmp_path / "export"
    folder.mkdir()
    for name in ("first", "second"):
        export_loss(expression_of("tversky"), folder, metadata={"name": name})
        assert json.loads((folder / "loss.json").read_text(encoding="utf-8"))["metadata"]["name"] == name
        (folder / "notes.txt").write_text("mine")
    (folder / "loss.json").unlink()
    export_loss(expression_of("tversky"), folder, metadata={"name": "third"}, overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == ["loss.json", "loss.pt2", "loss.py", "notes.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LossevoError, match="cannot write to"):
        export_loss(expression_of("tversky"), tmp_path / "file" / "export", metadata={})


def test_deviation_is_relative_and_strict_about_what_is_not_finite() -> None:
    expected = torch.tensor([1000.0, 1.0])
    assert deviation(expected.clone(), expected) == 0
    assert deviation(torch.tensor([1000.0, 1.5]), expected) == pytest.approx(5e-4)
    nan, inf = torch.tensor([float("nan"), 1.0]), torch.tensor([float("inf"), 1.0])
    assert deviation(nan, nan) == deviation(inf, inf) == 0
    for found in (nan, inf, expected.double(), expected[:1]):
        assert deviation(found, expected) > TOLERANCE
    assert deviation(expected, nan) > TOLERANCE


def test_a_file_that_forgets_the_progress_of_a_training_is_not_the_candidate(tmp_path: Path) -> None:
    """At the start of a training the second term is 0, whatever a file makes of it."""
    changing = Expression.parse("class_mean(mean(square(p - y))) + t * class_mean(mean(abs(p - y)))")
    loss = ExpressionLoss(changing)
    assert max(found.value for found in deviations(loss, expected_cases(changing))) == 0
    stuck = ExpressionLoss(changing)
    stuck.step = lambda: None  # type: ignore[method-assign]
    assert max(found.value for found in deviations(stuck, expected_cases(changing))) > TOLERANCE
