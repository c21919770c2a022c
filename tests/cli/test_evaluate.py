"""``lossevo evaluate``: folds that are not drawn, losses with parameters, trajectories."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lossevo.data import read_splits, splits_json

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
        (["--splits", "cohort"], "the data set states 0 fold(s), expected at least 2"),
    ],
)
def test_refused(cli, cohort, splits, more, message):
    said = evaluate(cli, cohort, *(splits if word == "SPLITS" else word for word in more))
    assert said.status == 2
    assert message in said.err
    assert not Path("cmp").exists()


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
