"""The examples of docs/examples train with an exported folder, each as its header tells the user to run it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

import nibabel
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


class Exported(Protocol):
    folder: Path


def _run(*command: str | Path, cwd: Path, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    return result.stdout


def _last_dice(output: str) -> float:
    return float(re.findall(r"Dice (\d\.\d+)", output)[-1])


@pytest.mark.parametrize("file", ["", "loss.pt2"])
def test_monai_training(tversky: Exported, tmp_path: Path, file: str) -> None:
    assert _last_dice(_run(EXAMPLES / "monai_training.py", tversky.folder / file, cwd=tmp_path)) > 0.8


def test_plain_pytorch_needs_no_lossevo(tversky: Exported, tmp_path: Path) -> None:
    (tmp_path / "lossevo.py").write_text("raise ImportError('the example must not need lossevo')")
    output = _run(EXAMPLES / "plain_pytorch.py", tversky.folder, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert _last_dice(output) > 0.9


# --- nnU-Net ---

needs_nnunet = pytest.mark.skipif(
    importlib.util.find_spec("nnunetv2") is None, reason="needs nnU-Net: pip install -e '.[test,nnunet]'"
)


def _write_dataset(folder: Path, labels: dict[str, Any]) -> None:
    """Five images with two bright boxes each, in nnU-Net's raw format."""
    rng = np.random.default_rng(0)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for case in range(5):
        label = np.zeros((24, 32, 32), np.uint8)
        z, y, x = rng.integers(3, 8, 3)
        label[z : z + 9, y : y + 10, x : x + 10] = 1
        label[z : z + 9, y + 12 : y + 20, x + 6 : x + 16] = 2
        image = label * 50.0 + rng.normal(0, 20, label.shape)
        affine = np.diag([2.0, 1.0, 1.0, 1.0])
        nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), affine), folder / f"imagesTr/c{case}_0000.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, affine), folder / f"labelsTr/c{case}.nii.gz")
    dataset = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 5, "file_ending": ".nii.gz"}
    if any(isinstance(label, list) for label in labels.values()):
        dataset["regions_class_order"] = [1, 2]
    (folder / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")


class _NnUNet:
    """nnU-Net's command line on folders of its own."""

    def __init__(self, folder: Path, labels: dict[str, Any], loss: Path) -> None:
        self.folder = folder
        trainers = folder / "my_trainers"
        trainers.mkdir()
        shutil.copy(EXAMPLES / "nnunet_trainer.py", trainers)
        shutil.copy(loss, trainers)
        self.environment = {
            "nnUNet_raw": str(folder / "raw"),
            "nnUNet_preprocessed": str(folder / "preprocessed"),
            "nnUNet_results": str(folder / "results"),
            "nnUNet_extTrainer": str(trainers),
            "nnUNet_def_n_proc": "1",
        }
        _write_dataset(folder / "raw" / "Dataset001_Boxes", labels)
        plan = "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints:plan_and_preprocess_entry"
        self(plan, "-d", "1", "-c", "3d_fullres", "-np", "1", "-npfp", "1", nnUNet_n_proc_DA="1")

    def __call__(self, entry_point: str, *arguments: str, **environment: str) -> str:
        module, function = entry_point.split(":")
        call = f"import sys; sys.argv[0] = 'nnunet'; from {module} import {function}; {function}()"
        return _run("-W", "ignore", "-c", call, *arguments, cwd=self.folder, **self.environment, **environment)

    def train(self, *arguments: str) -> str:
        given = ("1", "3d_fullres", "0", "-tr", "nnUNetTrainerEvolvedLoss_2epochs", "-device", "cpu", *arguments)
        return self("nnunetv2.run.run_training:run_training_entry", *given, nnUNet_n_proc_DA="0")


@needs_nnunet
@pytest.mark.slow
@pytest.mark.parametrize("loss", ["tversky", "dice_boundary"])
def test_nnunet_trains_two_epochs_and_validates(request: pytest.FixtureRequest, tmp_path: Path, loss: str) -> None:
    exported = request.getfixturevalue(loss).folder / "loss.py"
    nnunet = _NnUNet(tmp_path, {"background": 0, "one": 1, "two": 2}, exported)
    output = nnunet.train()
    losses = [float(value) for value in re.findall(r"train_loss (?:np\.float\d+\()?(-?[\d.]+)", output)]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    (fold,) = (tmp_path / "results").glob("*/*/fold_0")
    summary = json.loads((fold / "validation" / "summary.json").read_text(encoding="utf-8"))
    assert 0 <= summary["foreground_mean"]["Dice"] <= 1


@needs_nnunet
@pytest.mark.slow
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"background": 0, "both": [1, 2], "two": 2}, "trained with regions"),
        ({"background": 0, "one": 1, "ignore": 2}, "has an 'ignore' label"),
    ],
)
def test_nnunet_datasets_that_no_evolved_loss_can_train_are_refused(
    tversky: Exported, tmp_path: Path, labels: dict[str, Any], message: str
) -> None:
    nnunet = _NnUNet(tmp_path, labels, tversky.folder / "loss.py")
    with pytest.raises(AssertionError, match=message):
        nnunet.train()
