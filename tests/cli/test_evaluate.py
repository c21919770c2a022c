"""``lossevo evaluate``: folds that are not drawn, losses with parameters, trajectories."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lossevo.data import read_splits, splits_json
from tests.cohorts import write_balls

EVERYONE = [f"ball_{number:02d}" for number in range(9)]
FOLDS = (EVERYONE[:4], EVERYONE[4:])


@pytest.fixture
def splits(tmp_path) -> Path:
    file = tmp_path / "splits_final.json"
    file.write_text(splits_json(FOLDS, {name: name for name in EVERYONE}))
    return file


def evaluate(cli, cohort, *more):
    arguments = ("--data", cohort, "--losses", "dice", "--steps", 1, "--out", "cmp", "--in-process")
    return cli("evaluate", *arguments, *more)


def test_folds_of_nnunet(cli, cohort, splits):
    said = evaluate(cli, cohort, "--splits", splits)
    assert (said.status, said.err) == (0, "")
    assert "9 tested in 2 folds" in said.out
    assert read_splits("cmp/splits_final.json") == read_splits(splits)
    assert json.loads(Path("cmp/folds.json").read_text())["test"] == [list(fold) for fold in FOLDS]
    splits.unlink()
    assert cli("evaluate", "--resume", "cmp").status == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--splits", "SPLITS", "--folds", "3"], "--folds is 3, but the folds are given by --splits"),
        (["--splits", "nowhere.json"], "nowhere.json: cannot be read"),
        (["--rope", "-0.1"], "--rope of dice is '-0.1'; give a difference from 0 to 1, such as 'dice=0.005'"),
        (["--rope", "hd=1"], "--rope names hd, which is not among --metrics dice,nsd@2mm,hd95; leave it out"),
        (["--metrics", "dice,nsd"], "--metrics: metric 'nsd' needs a tolerance in mm, as in 'nsd@2mm'"),
        (["--metrics", "hd95,dise"], "--metrics: unknown metric 'dise' (did you mean 'dice'?)"),
        (["--metrics", "hd95,hd95"], "--metrics: metric 'hd95' is given twice; name each metric once"),
        (["--registry", "nowhere/looks.jsonl"], "there is no folder"),
        (["--splits", "cohort"], "the data set states 0 fold(s), expected at least 2"),
    ],
)
def test_refused(cli, cohort, splits, more, message):
    said = evaluate(cli, cohort, *(splits if word == "SPLITS" else word for word in more))
    assert (said.status, said.err.count("\n")) == (2, 1)
    assert message in said.err
    assert not Path("cmp").exists()


def test_several_metrics(cli, cohort):
    """The first is the main one; each has a column and a verdict, and differences its unit."""
    arguments = ("--losses", "dice,cross_entropy", "--metrics", "hd95,nsd@0.5mm,dice", "--rope", "0.7,dice=0.02")
    said = evaluate(cli, cohort, *arguments, "--folds", 2, "--steps", 2)
    assert said.status == 0
    assert said.err.count("the tolerance of nsd@0.5mm is below a quarter of the voxel size (4 mm)") == 1
    words = " ".join(said.out.split())
    assert "HD95 (mm) mean ± SD 95 % CI rank NSD@0.5mm Dice subjects" in words
    assert "Δ HD95 (mm)" in words
    assert "better / same / worse by 0.7 mm" in words
    assert "Δ Dice" not in words  # in table.md alone
    assert "By Dice: " in words
    assert "By NSD@0.5mm: " in words
    assert "Δ Dice" in Path("cmp/table.md").read_text()
    assert (
        Path("cmp/cases.csv")
        .read_text()
        .startswith(
            "loss,fold,seed,training_seed,subject,case,class,hd95,nsd@0.5mm,dice,false_voxels,false_ml,status,leakage\n"
        )
    )
    config = json.loads(Path("cmp/comparison.json").read_text())
    assert config["metrics"] == ["hd95", "nsd@0.5mm", "dice"]
    assert config["ropes"] == {"hd95": 0.7, "nsd@0.5mm": 0.005, "dice": 0.02}
    refused = cli("evaluate", "--resume", "cmp", "--metrics", "dice")
    assert (refused.status, "--metrics cannot be given with --resume" in refused.err) == (2, True)


def test_verdict_and_what_was_looked_at(cli, cohort):
    arguments = ("--losses", "dice,cross_entropy", "--registry", "looks.jsonl", "--rope", "0.02")
    assert evaluate(cli, cohort, *arguments).status == 0
    said = evaluate(cli, cohort, *arguments, "--seeds", "2", "--out", "again")
    assert (said.status, said.err) == (0, "")
    words = " ".join(said.out.split())
    assert "cannot be told apart from the best" in words or "can be told apart from" in words
    assert "better / same / worse by 0.02" in words
    assert "Signal to noise of the task: " in words
    assert "looked at by 1 earlier comparison of hand-crafted losses alone (cmp)" in words
    assert json.loads(Path("again/comparison.json").read_text())["ropes"]["dice"] == 0.02
    assert json.loads(Path("again/summary.json").read_text())["metrics"][0]["statistics"]["rope"] == 0.02
    assert len(Path("looks.jsonl").read_text().splitlines()) == 2
    refused = cli("evaluate", "--resume", "again", "--rope", "0.01")
    assert (refused.status, "--rope cannot be given with --resume" in refused.err) == (2, True)


def test_folds_that_the_cohort_states(cli, cohort, tmp_path):
    items = [
        {
            "image": f"{cohort}/imagesTr/{name}_0000.nii.gz",
            "label": f"{cohort}/labelsTr/{name}.nii.gz",
            "fold": number % 3,
        }
        for number, name in enumerate(EVERYONE)
    ]
    datalist = tmp_path / "datalist.json"
    labels = {"0": "background", "1": "vertebra"}
    datalist.write_text(json.dumps({"labels": labels, "modality": {"0": "T2"}, "training": items}))
    said = evaluate(cli, datalist, "--splits", "cohort")
    assert (said.status, said.err) == (0, "")
    assert [len(fold.val) for fold in read_splits("cmp/splits_final.json")] == [3, 3, 3]
    assert json.loads(Path("cmp/comparison.json").read_text())["folds"] == 3


def test_losses_with_parameters_and_what_moved_in_them(cli, cohort):
    Path("mine.yaml").write_text("mine: {name: adaptive, parameters: {loss: tversky, every: 1}}")
    said = evaluate(cli, cohort, "--specs", "mine.yaml", "--folds", 2, "--steps", 3)
    assert (said.status, said.err) == (0, "")
    assert "Losses: dice, mine;" in said.out
    assert "trajectories.csv" in said.out
    written = Path("cmp/trajectories.csv").read_text().splitlines()
    assert written[0] == "loss,fold,seed,step,quantity,value"
    assert len(written) == 1 + 2 * 2 * 2  # folds, rows, quantities
    assert sorted(path.name for path in Path("cmp/figures").iterdir()) == ["trajectory-mine.png", "trajectory-mine.svg"]


def test_losses_without_parameters_that_move_have_no_figures(cli, cohort):
    said = evaluate(cli, cohort, "--folds", 2)
    assert "trajectories" not in said.out
    assert not Path("cmp/figures").exists()


def test_a_mistake_among_the_losses_with_parameters(cli, cohort):
    Path("mine.yaml").write_text("mine: {name: adaptiv}")
    said = evaluate(cli, cohort, "--specs", "mine.yaml")
    assert (said.status, said.out) == (2, "")
    assert "mine.yaml: mine: unknown loss 'adaptiv' (did you mean 'adaptive'?)" in said.err


class TestOfARun:
    """Without --data a loss is compared on the cohort that it was found on."""

    def test_cohort_and_settings_are_the_runs(self, cli, finished, cohort):
        said = cli(
            "evaluate", "--losses", "focal", "--hof", finished.folder, "--folds", 3, "--out", "cmp", "--in-process"
        )
        assert (said.status, said.err) == (0, "")
        assert f"--hof {finished.folder} names no rank, so its rank 1 is taken." in " ".join(said.out.split())
        assert "Not the setting of the search" not in said.out
        config = json.loads(Path("cmp/comparison.json").read_text())
        run = json.loads((finished.folder / "run.json").read_text())
        assert {key: config[key] for key in ("cohort", "labels", "spacing_mm")} == {
            key: run[key] for key in ("cohort", "labels", "spacing_mm")
        }
        assert config["task"]["budget_steps"] == 2 * run["task"]["budget_steps"]

    def test_what_is_given_and_differs_is_told(self, cli, finished, cohort, tmp_path):
        copy = shutil.copytree(cohort, tmp_path / "copy")
        arguments = ("--losses", "focal", "--hof", f"{finished.folder}:1", "--folds", 3, "--steps", 1, "--in-process")
        said = cli("evaluate", *arguments, "--data", copy, "--spacing", 8, 8, 8, "--out", "cmp")
        assert (said.status, said.err) == (0, "")
        assert f"run:1 was found on {cohort} (here {copy}), at spacing" in said.out
        assert "names no rank" not in said.out
        assert "Not the setting of the search" in json.loads(Path("cmp/summary.json").read_text())["notes"][0]

    def test_a_cohort_that_is_gone(self, cli, finished, tmp_path):
        run = shutil.copytree(finished.folder, tmp_path / "moved")
        document = json.loads((run / "run.json").read_text())
        document["cohort"]["path"] = str(tmp_path / "nowhere")
        (run / "run.json").write_text(json.dumps(document))
        said = cli("evaluate", "--losses", "focal", "--hof", run, "--out", "cmp", "--in-process")
        assert said.status == 2
        assert f"moved:1 was found on {tmp_path / 'nowhere'}, which is not there; say with --data" in said.err
        assert not Path("cmp").exists()

    def test_a_hand_crafted_loss_of_its_hall_of_fame_is_one_everywhere(self, cli, finished):
        """Tested on everybody, it leaks nothing, is not marked, and no evolved loss is said to be compared."""
        entries = json.loads((finished.folder / "hall_of_fame.json").read_text())
        rank = next(entry["rank"] for entry in entries if entry["origin"].get("name") == "dice")
        arguments = ("--losses", "focal", "--hof", f"{finished.folder}:{rank}", "--test-on", "all", "--steps", 1)
        said = cli("evaluate", *arguments, "--folds", 2, "--in-process", "--out", "cmp")
        assert (said.status, said.err) == (0, "")
        assert "LEAKAGE" not in said.out
        document = json.loads(Path("cmp/summary.json").read_text())
        assert document["leakage"] is False
        assert [loss["evolved"] for loss in document["losses"]] == [False, False]
        assert any(note.startswith("No evolved loss is compared") for note in document["notes"])
        refused = cli("evaluate", "--losses", "dice", "--hof", f"{finished.folder}:{rank}", "--out", "again")
        assert "the same loss twice: 'dice' of the catalogue" in refused.err

    def test_subjects_of_another_run(self, cli, finished, tmp_path):
        run = shutil.copytree(finished.folder, tmp_path / "mixed")
        document = json.loads((run / "subjects.json").read_text())
        document["train"], document["untouched"] = document["untouched"], document["train"]
        (run / "subjects.json").write_text(json.dumps(document))
        for command in (("evaluate", "--hof", f"{run}:1"), ("export", run, 1)):
            said = cli(*command, "--out", "new")
            assert (said.status, said.err.count("\n")) == (2, 1)
            assert "these are files of different runs and leakage cannot be ruled out" in said.err
            assert not Path("new").exists()


def test_empty_labels(cli, tmp_path):
    """Subjects without the structure have no score with any loss; what is found there is told as false alarms."""
    cohort = write_balls(tmp_path / "some", 9)
    for number in (1, 3, 5, 6):
        file = cohort / "labelsTr" / f"ball_{number:02d}.nii.gz"
        label = nib.load(file)
        nib.save(nib.Nifti1Image(np.zeros_like(np.asanyarray(label.dataobj)), label.affine), file)
    arguments = ("--losses", "dice,cross_entropy", "--folds", 2, "--steps", 2, "--in-process", "--out", "cmp")
    said = cli("evaluate", "--data", cohort, *arguments)
    assert (said.status, said.err) == (0, "")
    assert "9 tested in 2 folds (4 of them without a label, so without a score)" in said.out
    assert "4 of 9 tested subjects have no labelled structure (ball_01, ball_03, ball_05, ball_06)" in said.out
    assert "false alarms" in said.out
    summary = json.loads(Path("cmp/summary.json").read_text())
    assert [loss["without_class"] for loss in summary["losses"]] == [4, 4]
    assert [loss["subjects"] for metric in summary["metrics"] for loss in metric["losses"]] == [5] * 6


def test_how_fast_losses_train_and_a_consensus(cli, cohort, tmp_path):
    other = tmp_path / "other" / "balls2"
    shutil.copytree(cohort, other)
    for data, out in ((cohort, "cmp1"), (other, "cmp2")):
        arguments = ("--data", data, "--losses", "dice,dice_ce", "--metrics", "dice", "--out", out, "--in-process")
        said = cli("evaluate", *arguments, "--steps", 4, "--folds", 2, "--checkpoints", 2)
        assert (said.status, said.err) == (0, "")
    assert "Training speed: steps to a share of the best hand-crafted loss's final Dice" in said.out
    assert "speed.csv, curves.csv, figures/learning-curves.png" in said.out
    assert Path("cmp1/curves.csv").read_text().count("\n") == 1 + 2 * 2 * 2
    assert Path("cmp1/figures/learning-curves.svg").is_file()
    said = cli("evaluate", "--combine", "cmp1", "--combine", "cmp2", "--out", "both")
    assert (said.status, said.err) == (0, "")
    assert "Kendall's τ between cohorts is 1.00 on average" in said.out
    assert "## Dice" in Path("both/consensus.md").read_text(encoding="utf-8")
    refused = cli("evaluate", "--combine", "cmp1", "--combine", "cmp2", "--steps", 3)
    assert (refused.status, refused.err) == (
        2, "lossevo: --steps cannot be given with --combine, which trains nothing; leave it out\n",
    )  # fmt: skip
    assert json.loads(cli("evaluate", "--combine", "cmp1", "--combine", "cmp2", "--json").out)["left_out"] == []


def test_ablation_of_nothing_is_refused(cli, cohort):
    said = evaluate(cli, cohort, "--ablate")
    assert (said.status, said.err.count("\n")) == (2, 1)
    assert "--ablate: no evolved loss is compared" in said.err
