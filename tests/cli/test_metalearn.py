"""``lossevo metalearn`` as its users run it."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

SETTINGS = """\
hidden: [4]
inner_steps: 2
tasks: 3
outer_steps: 12
evaluate_every: 6
evaluation_seeds: 1
confirmation_seeds: 2
baselines: [dice, cross_entropy]
distillation_budget: 4
"""
TASK = """\
patch_size: [8, 16, 16]
patches_per_volume: 2
channels: [4, 8]
strides: [2]
"""


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory, cohort: Path) -> list[object]:
    folder = tmp_path_factory.mktemp("settings")
    (folder / "settings.yaml").write_text(SETTINGS)
    (folder / "task.yaml").write_text(TASK)
    files = ["--settings", folder / "settings.yaml", "--task", folder / "task.yaml"]
    return ["metalearn", "--data", cohort, *files, "--steps", 6, "--seed", 3]


def found(run: Path) -> dict[str, bytes]:
    names = ("hall_of_fame.json", "hall_of_fame.csv", "metalearning.csv", "evaluations.csv", "distillation.json")
    return {name: (run / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def finished(arguments: list[object], cli_in: Callable, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run folder, undisturbed and in process, and what was printed."""
    folder = tmp_path_factory.mktemp("metalearned")
    said = cli_in(folder, *arguments, "--run", "run", "--in-process")
    assert said.status == 0, said.err
    return folder / "run", said.out


def test_it_tells_what_it_does_and_what_to_do_next(finished: tuple[Path, str], cohort: Path) -> None:
    folder, out = finished
    assert "Loss network: 2-4-1 elu of margin, target; outer loss dice_ce." in out
    assert "12 outer steps of 3 tasks, each 2 steps of a U-Net (adam) out of a training of 6; " in out
    assert "whole trainings by dice; seed 3." in out
    assert re.search(r"\[meta-training 12/12\] outer loss \d\.\d+ → \d\.\d+ \| best learned \d", out)
    assert "after 6 outer steps: validation dice " in out
    assert "Distilled: " in out
    entries = json.loads((folder / "hall_of_fame.json").read_text(encoding="utf-8"))
    rank = next(entry["rank"] for entry in entries if entry["origin"]["kind"] == "metalearned")
    for command in (f"hof run --show {rank}", f"export run {rank} --out", f"evaluate --data {cohort} --losses"):
        assert f"lossevo {command}" in out
    figures = {path.name for path in (folder / "figures").iterdir()}
    assert figures == {f"metalearning-{name}.{kind}" for name in ("course", "gradients") for kind in ("png", "svg")}


def test_its_losses_can_be_listed_shown_exported_and_loaded(finished: tuple[Path, str], cli: Callable) -> None:
    import torch

    import lossevo

    folder, _ = finished
    listed = cli("hof", folder, "--json")
    entries = json.loads(listed.out)
    learned = next(entry for entry in entries if entry["origin"]["kind"] == "metalearned")
    shown = cli("hof", folder, "--show", learned["rank"])
    assert shown.status == 0, shown.err
    assert "margin, target" in shown.out
    exported = cli("export", folder, learned["rank"], "--out", "loss")
    assert exported.status == 0, exported.err
    logits = torch.randn(1, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    label = (logits[:, :1] > 0.5).long()
    values = [float(lossevo.load(f"loss/loss.{kind}")(logits, label)) for kind in ("json", "py", "pt2")]
    assert values == pytest.approx([values[0]] * 3, rel=1e-6)


@pytest.mark.chaos
def test_ctrl_c_and_kill_9_cost_nothing(
    finished: tuple[Path, str], arguments: list[object], start: Callable, tmp_path: Path
) -> None:
    """Interrupted with two workers, resumed with two and killed, resumed with one: as if nothing had been."""
    folder, _ = finished
    run = tmp_path / "run"
    first = start(*arguments, "--run", run, "--workers", 2)
    first.lines_until("[meta-training 3/12]")
    first.signal(signal.SIGINT)
    out = first.rest()
    assert first.process.returncode == 130
    assert out.splitlines()[-1].endswith(f"Go on with:  lossevo metalearn --resume {run}")
    assert first.descendants_after(20) == []

    second = start("metalearn", "--resume", run, "--workers", 2)
    second.lines_until("[meta-training 8/12]")
    second.signal(signal.SIGKILL)
    second.process.wait()
    second.end()

    third = start("metalearn", "--resume", run, "--in-process")
    third.rest(300)
    assert third.process.returncode == 0, third.errors()
    assert found(run) == found(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("outer_step: 3", r"settings.yaml: unknown key 'outer_step' \(did you mean 'outer_steps'\?\)"),
        ("inputs: [margin]", "expected target and margin or probability"),
        ("inputs: [margins, target]", "expected some of margin, probability"),
        ("hidden: [1000]", "layers of 1 to 64 units"),
        ("outer_loss: dise", "outer_loss 'dise' is no loss of the catalogue"),
        ("baselines: [lovasz]", "baseline 'lovasz': expected some of"),
        ("activation: tanh", "tanh is odd, and without biases makes no cross-entropy"),
        ("baselines: [dice, dice]", "each once"),
        ("tasks: 0", "tasks: Input should be greater than or equal to 1"),
        ("optimiser: adagrad", "optimiser: found 'adagrad', expected 'adam' or 'sgd'"),
    ],
)
def test_bad_settings_are_one_line(settings: str, message: str, cli: Callable, tmp_path: Path, cohort: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(settings)
    said = cli("metalearn", "--data", cohort, "--settings", file, "--run", tmp_path / "run")
    assert said.status == 2
    assert re.search(message, said.err), said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_what_is_fixed_cannot_be_changed_on_resume(finished: tuple[Path, str], cli: Callable) -> None:
    folder, _ = finished
    said = cli("metalearn", "--resume", folder, "--outer-steps", 20)
    assert (said.status, said.err.partition(" cannot")[0]) == (2, "lossevo: --outer-steps")
    assert "lossevo metalearn --resume" in cli("search", "--resume", folder).err
