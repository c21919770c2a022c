"""Losses that are not lossevo's: ``--loss-module``, and packages that bring some."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.packages import install

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "my_losses.py"
MARKING = """\
from pathlib import Path
import torch
Path("ran.txt").touch()
class Own(torch.nn.Module):
    def forward(self, logits, labels):
        return torch.nn.functional.cross_entropy(logits, labels[:, 0])
class Stuck(torch.nn.Module):
    def forward(self, logits, labels):
        return logits.argmax(1).float().mean()
"""
THEIRS = "import torch\nclass Theirs(torch.nn.Module):\n    def __init__(self, power=2):\n        super().__init__()\n"
THEIRS += "        self.power = power\n    def forward(self, logits, labels):\n"
THEIRS += "        return (logits.softmax(1)[:, 1:] - labels).abs().pow(self.power).mean()\n"


def evaluate(cli, cohort, *more):
    arguments = ("--data", cohort, "--losses", "dice", "--steps", 2, "--folds", 2, "--out", "cmp", "--in-process")
    return cli("evaluate", *arguments, *more)


@pytest.fixture
def code() -> Path:
    path = Path("my_losses.py")
    path.write_text(MARKING)
    return path


def test_the_example_of_the_docs(cli, cohort):
    shutil.copy(EXAMPLE, "my_losses.py")
    names = ("Margin", "monai_dice_ce", "DistanceWeighted")
    said = evaluate(cli, cohort, *(part for name in names for part in ("--loss-module", f"my_losses.py:{name}")))
    assert said.status == 0, said.err
    assert said.err.count("\n") == 1
    assert (
        f"Note: --loss-module runs code of yours here and on every worker: {Path.cwd()}/my_losses.py:Margin" in said.err
    )
    assert "Losses: dice, my_losses.py:Margin, my_losses.py:monai_dice_ce, my_losses.py:DistanceWeighted;" in said.out
    words = " ".join(said.out.split())
    assert "Not lossevo's: my_losses.py:Margin (code of Margin, sha256 " in words
    rows = Path("cmp/cases.csv").read_text().splitlines()[1:]
    assert len(rows) == 4 * 9
    assert all(",done," in row for row in rows)


def test_on_resume_code_is_named_again_or_not_run(cli, cohort, code, tmp_path):
    assert evaluate(cli, cohort, "--loss-module", "my_losses.py:Own").status == 0
    recorded = json.loads(Path("cmp/comparison.json").read_text())["contenders"][1]
    assert recorded["spec"]["module"] == f"{code.absolute()}:Own"
    assert len(recorded["spec"]["sha256"]) == 64
    table = Path("cmp/table.md").read_text()
    ran = Path("ran.txt")
    ran.unlink()
    sys.modules.pop(f"lossevo_loss_module_{recorded['spec']['sha256'][:16]}")

    said = cli("evaluate", "--resume", "cmp")
    assert (said.status, said.out) == (2, "")
    told = f"this comparison runs code of {code.absolute()}; if you trust it, name it again with --loss-module "
    assert said.err == f"lossevo: cmp: {told}{code.absolute()}:Own\n"
    assert cli("evaluate", "--resume", "cmp", "--loss-module", "my_losses.py:Stuck").status == 2
    code.write_text(MARKING + "# changed\n")
    said = cli("evaluate", "--resume", "cmp", "--loss-module", "my_losses.py:Own")
    assert said.status == 2
    assert "my_losses.py:Own: this is not the code that cmp began with (sha256 " in said.err
    code.unlink()
    elsewhere = tmp_path / "elsewhere.py"
    elsewhere.write_text(MARKING)
    said = cli("evaluate", "--resume", "cmp", "--loss-module", f"{elsewhere}:Own")
    assert said.status == 0
    assert Path("cmp/table.md").read_text() == table
    assert not ran.exists()  # everything was on record


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["my_losses.py:Stuck"],
            "my_losses.py:Stuck sends no gradient back to the logits, on logits (2, 2, 16, 32, 32)",
        ),
        (["my_losses.py:Onw"], "my_losses.py:Onw: there is no Onw in "),
        (["my_losses.py"], "'my_losses.py' names no loss, expected FILE.py:CLASS or package.module:CLASS"),
        (["nowhere.py:Own"], "nowhere.py: no such file"),
        (["my_losses.py:Own", "my_losses.py:Own"], "--loss-module my_losses.py:Own: the same code is named twice"),
    ],
)
def test_refused(cli, cohort, code, more, message):
    said = evaluate(cli, cohort, *(part for text in more for part in ("--loss-module", text)))
    assert said.status == 2
    assert message in said.err.splitlines()[-1]
    assert "Traceback" not in said.err
    assert not Path("cmp").exists()


def test_who_interrupts_it_is_told_to_name_the_code_again(cli, cohort, code, monkeypatch):
    from lossevo.comparison import Comparison

    monkeypatch.setattr(Comparison, "run", lambda *given, **more: (_ for _ in ()).throw(KeyboardInterrupt))
    said = evaluate(cli, cohort, "--loss-module", "my_losses.py:Own")
    assert said.status == 130
    assert f"lossevo evaluate --loss-module {code.absolute()}:Own --resume cmp" in said.out


def test_a_specification_file_names_no_code(cli, cohort, code):
    spec = {"mine": {"module": f"{code.absolute()}:Own", "sha256": "0" * 64}}
    Path("specs.yaml").write_text(json.dumps(spec))
    said = evaluate(cli, cohort, "--specs", "specs.yaml")
    assert (said.status, said.out) == (2, "")
    assert not Path("ran.txt").exists()


def test_what_only_fails_in_an_analysis(cli):
    Path("own.py").write_text(
        "import torch\nclass Own(torch.nn.Module):\n    def forward(self, x, y):\n        return x[9]\n"
    )
    said = cli("analyze", "--losses", "dice", "--loss-module", "own.py:Own", "--out", "analysis")
    assert said.status == 2
    assert "own.py:Own: fails on the scenes of an analysis: IndexError: " in said.err


class TestPackage:
    @pytest.fixture(autouse=True)
    def package(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(tmp_path)
        install(tmp_path, {"theirs": "their_losses:Theirs", "dice": "their_losses:Theirs"}, THEIRS)
        yield
        sys.modules.pop("their_losses", None)

    def test_its_losses_are_listed_and_what_is_wrong_is_said(self, cli):
        said = cli("losses", "--family", "installed")
        assert said.status == 0
        assert "theirs" in said.out
        assert "their-losses 1.2" in said.out
        assert said.err.count("\n") == 1
        assert said.err.startswith("Note: loss 'dice' of their-losses 1.2: the name is lossevo's own")
        (document,) = json.loads(cli("losses", "--family", "installed", "--json").out)
        assert (document["name"], document["distribution"]) == ("theirs", "their-losses 1.2")
        shown = cli("losses", "show", "theirs")
        assert (shown.status, "power = 2" in shown.out) == (0, True)

    def test_they_are_compared_by_name_and_the_version_is_recorded(self, cli, cohort, tmp_path):
        Path("specs.yaml").write_text("linear: {name: theirs, parameters: {power: 1}}")
        said = evaluate(cli, cohort, "--losses", "theirs", "--specs", "specs.yaml")
        assert (said.status, said.err) == (0, "")
        contenders = json.loads(Path("cmp/comparison.json").read_text())["contenders"]
        assert [contender["spec"] for contender in contenders] == [
            {"name": "theirs", "distribution": "their-losses 1.2"},
            {"name": "theirs", "parameters": {"power": 1}, "distribution": "their-losses 1.2"},
        ]
        install(tmp_path, {"theirs": "their_losses:Theirs"}, THEIRS, version="1.3")
        shutil.rmtree(tmp_path / "their_losses-1.2.dist-info")
        assert cli("evaluate", "--resume", "cmp").status == 0  # nothing is trained any more

    def test_another_version_is_no_failed_training(self, cli, cohort, tmp_path, monkeypatch):
        from lossevo.comparison import Comparison

        with monkeypatch.context() as patch:
            patch.setattr(Comparison, "run", lambda *given, **more: (_ for _ in ()).throw(KeyboardInterrupt))
            assert evaluate(cli, cohort, "--losses", "theirs").status == 130
        install(tmp_path, {"theirs": "their_losses:Theirs"}, THEIRS, version="1.3")
        shutil.rmtree(tmp_path / "their_losses-1.2.dist-info")
        said = cli("evaluate", "--resume", "cmp", "--in-process")
        assert said.status == 2
        assert "loss 'theirs' is that of 'their-losses 1.2', but here it is that of their-losses 1.3" in said.err
