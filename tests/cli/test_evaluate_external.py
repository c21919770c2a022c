"""``lossevo evaluate --test-on DIR2``: train on one cohort, test on another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cohorts import write_balls


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> Path:
    """Five other balls, called as the first five of the cohort."""
    return write_balls(tmp_path_factory.mktemp("others") / "others", 5, first=20)


def evaluate(cli, cohort, others, *more):
    arguments = ("--losses", "dice,cross_entropy", "--metrics", "dice,hd95", "--steps", 2, "--in-process")
    return cli("evaluate", "--data", cohort, "--test-on", others, *arguments, *more)


def test_every_output_says_who_was_trained_on_and_who_tested(cli, cohort, others):
    said = evaluate(cli, cohort, others, "--seeds", 2, "--out", "cmp", "--train-fraction", "0.5")
    assert said.status == 0
    assert said.err.count("\n") == 1
    assert f"5 subjects of {cohort} and of {others} have one name" in said.err
    words = " ".join(said.out.split())
    assert f"Trained on: {cohort}; vertebra against background at 4 × 4 × 4 mm. Tested on: {others}." in words
    assert "Subjects: 9 trained on, 5 tested." in words
    assert "8 trainings of 2 steps, 4 of them with 0.5 of the training subjects." in words
    assert "[1/8] dice, external test, seed 0: dice 0." in words
    assert "dice, external test, seed 1, fraction 0.5: dice 0." in words
    title = "trained on balls (9 subjects), tested on others (5 subjects), 2 steps, 2 seeds"
    note = "External test: every loss is trained 2 times on the whole of balls, 9 subjects, and tested on others, 5"
    table = Path("cmp/table.md").read_text(encoding="utf-8")
    document = json.loads(Path("cmp/summary.json").read_text(encoding="utf-8"))
    for output in (words, table, document["title"]):
        assert title in output
    for output in (words, table, " ".join(document["notes"])):
        assert note in output
        assert "There is one training set. How lucky it is is in no interval, no p and no smallest difference" in output
        assert "fold" not in output.partition("External test")[2].partition("Metrics of lossevo")[0]
    protocol = document["protocol"]
    assert (protocol["trained_on"], protocol["cohort"], protocol["folds"]) == ("balls", "others", 1)
    assert protocol["tested"] == [f"ball_{number:02d}" for number in range(5)]
    assert protocol["train_only"] == [f"balls/ball_{number:02d}" for number in range(9)]
    assert "others: vertebra: dice,ball_00,dice," in Path("cmp/challenger.csv").read_text()
    assert not Path("cmp/splits_final.json").exists()
    assert {"ball_00", "balls/ball_08"} <= json.loads(Path("cmp/folds.json").read_text())["hashes"].keys()

    before = Path("cmp/cases.csv").read_text()
    Path("cmp/cases.csv").unlink()
    again = cli("evaluate", "--resume", "cmp", "--json")
    assert again.status == 0
    assert json.loads(again.out) == document
    assert Path("cmp/cases.csv").read_text() == before
    refused = cli("evaluate", "--resume", "cmp", "--test-on", others, "--test-format", "nnunet")
    assert "--test-on, --test-format cannot be given with --resume" in refused.err


def test_a_loss_of_a_run_is_not_tested_on_whom_its_search_has_seen(cli, finished, cohort, tmp_path):
    """Trained on another cohort, tested on that of the run; a copy of it under another name is the same."""
    trained, copy = write_balls(tmp_path / "trained", 6, first=40), shutil.copytree(cohort, tmp_path / "copy")
    entries = json.loads((finished.folder / "hall_of_fame.json").read_text())
    rank = next((entry["rank"] for entry in entries if entry["origin"]["kind"] != "hand-crafted"), None)
    subjects = json.loads((finished.folder / "subjects.json").read_text())
    arguments = (
        "--hof",
        f"{finished.folder}:{rank}",
        "--metrics",
        "dice",
        "--steps",
        1,
        "--in-process",
        "--out",
        "cmp",
    )
    said = cli("evaluate", "--losses", "focal", "--data", trained, "--test-on", copy, *arguments)
    assert said.status == 0
    left_out = len(subjects["train"] + subjects["validation"])
    tested = len(subjects["untouched"])
    words = " ".join(said.out.split())
    assert f"6 trained on, {tested} tested; {left_out} more left out, which a compared search has seen" in words
    assert f"tested on copy ({tested} subjects; {left_out} more left out, which a search has seen)" in words
    assert "LEAKAGE" not in words

    gone = tmp_path / "seen"
    shutil.copytree(cohort, gone)
    for name in subjects["untouched"]:
        for file in gone.rglob(f"{name}*"):
            file.unlink()
    description = json.loads((gone / "dataset.json").read_text()) | {"numTraining": left_out}
    (gone / "dataset.json").write_text(json.dumps(description))
    arguments = (*arguments[:-1], "seen_only")
    said = cli("evaluate", "--losses", "focal", "--data", trained, "--test-on", gone, *arguments)
    assert (said.status, "is left to test: of 6 subjects, the search of run:" in said.err) == (2, True), said.err
    assert not Path("seen_only").exists()
    said = cli("evaluate", "--losses", "focal", "--data", trained, "--test-on", gone, "--allow-leakage", *arguments)
    assert said.status == 0
    for output in (said.out, Path("seen_only/table.md").read_text(), Path("seen_only/summary.json").read_text()):
        assert "LEAKAGE (allowed by" in " ".join(output.split())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--folds", "3"], "--folds is 3, but --test-on"),
        (["--splits", "cohort"], "--splits is cohort, but --test-on"),
        (["--test-format", "spider"], "images and masks hold no .mha file: the cohort is empty"),
        (["--test-on", "nowhere"], "--test-on is 'nowhere'"),
        (["--test-on", "COHORT"], "is the cohort that is trained on; name another, or leave --test-on out"),
        (["--test-on", "COPY"], "subject ball_00 has the same image as subject ball_00 of"),
        (
            ["--test-on", "RESCALED"],
            "has other images than, but voxel for voxel the same labels as, subject ball_00 of",
        ),
        (["--levels", "L1-L5"], "nothing in"),
    ],
)
def test_refused(cli, cohort, others, tmp_path, more, message):
    import nibabel as nib
    import numpy as np

    places = {"COHORT": cohort}
    for name in {"COPY", "RESCALED"}.intersection(more):
        places[name] = shutil.copytree(cohort, tmp_path / name)
    for file in (tmp_path / "RESCALED").glob("imagesTr/*"):
        image = nib.load(file)
        nib.save(nib.Nifti1Image(2 * np.asanyarray(image.dataobj) + 1, image.affine), file)
    said = evaluate(cli, cohort, others, "--out", "cmp", *(places.get(word, word) for word in more))
    assert said.status == 2
    assert message in said.err
    assert said.err.splitlines()[-1].startswith("lossevo: ")
    assert not Path("cmp").exists()
