"""Whatever is wrong: one clear line on standard error, exit status 2, nothing overwritten and nothing made."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lossevo.experiment.ledger import SCHEMA
from tests.cohorts import write_balls


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for what SQLite keeps beside a database while it is open."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


@pytest.fixture
def refused(cli, tmp_path):
    """Runs a command that must be refused with a message that matches ``pattern``."""

    def refused_(pattern: str, *arguments: object) -> str:
        before = contents(tmp_path)
        said = cli(*arguments)
        assert said.status == 2
        assert said.err.startswith("lossevo: ")
        assert said.err.count("\n") == 1, said.err
        assert re.search(pattern, said.err), said.err
        assert "Traceback" not in said.err
        after = contents(tmp_path)
        assert after == before or after == before | {"run/.lock": b""}
        return said.out

    return refused_


@pytest.fixture
def run(tmp_path, finished) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(finished.folder, tmp_path / "run", ignore=shutil.ignore_patterns(".lock")))


def spoil(cohort: Path, file: str, change) -> None:
    """Write one file of a cohort anew: ``change(voxels, affine)`` returns both."""
    path = cohort / file
    image = nib.load(path)
    nib.save(nib.Nifti1Image(*change(image.get_fdata(), image.affine.copy())), path)


IMAGE, LABEL = "imagesTr/ball_04_0000.nii.gz", "labelsTr/ball_04.nii.gz"


def not_a_number(voxels, affine):
    voxels[3, 3, 3] = np.nan
    return voxels, affine


def shifted(voxels, affine):
    affine[0, 3] += 3.0
    return voxels, affine


def interpolated(voxels, affine):
    voxels[8, 12, 12] = 0.5
    return voxels, affine


def unnamed(voxels, affine):
    voxels[8, 12, 12] = 7
    return voxels, affine


class TestCohort:
    @pytest.fixture
    def data(self, tmp_path) -> Path:
        return write_balls(tmp_path / "data")

    @pytest.fixture
    def search(self, refused, space_file, data):
        return lambda pattern: refused(pattern, "search", space_file, "--data", data, "--steps", 2, "--in-process")

    def test_missing_folder(self, refused, space_file):
        refused(r"absent: no such folder", "search", space_file, "--data", "absent")

    def test_another_folder(self, refused, space_file, tmp_path):
        (tmp_path / "photos").mkdir()
        refused(
            r"photos: no known layout of a data set\. Found nothing",
            "search",
            space_file,
            "--data",
            tmp_path / "photos",
        )

    def test_a_file(self, refused, space_file, tmp_path):
        (tmp_path / "scan.nii.gz").write_bytes(b"")
        refused(
            r"no known layout of a data set\. Found a file scan\.nii\.gz",
            "search",
            space_file,
            "--data",
            tmp_path / "scan.nii.gz",
        )

    def test_empty_cohort(self, refused, space_file, tmp_path):
        empty = write_balls(tmp_path / "empty", 0)
        refused("the cohort is empty", "search", space_file, "--data", empty)

    def test_too_few_subjects(self, refused, space_file, tmp_path):
        two = write_balls(tmp_path / "two", 2)
        refused(r"2 subject\(s\) cannot be split", "search", space_file, "--data", two)

    def test_image_without_label(self, search, data):
        (data / LABEL).unlink()
        search(r"ball_04_0000\.nii\.gz: no label")

    def test_label_without_image(self, search, data):
        (data / IMAGE).unlink()
        search(r"ball_04\.nii\.gz: no image")

    @pytest.mark.parametrize(
        ("file", "change", "complains"),
        [
            (IMAGE, lambda voxels, affine: (voxels[1:], affine), r"ball_04_0000\.nii\.gz: shape .* differs"),
            (IMAGE, shifted, r"ball_04_0000\.nii\.gz: its affine places voxels up to 3 mm away"),
            (IMAGE, not_a_number, r"ball_04_0000\.nii\.gz: 1 voxel\(s\) are NaN or infinite"),
            (LABEL, interpolated, r"ball_04\.nii\.gz: 1 voxel\(s\) are not integers, such as 0\.5"),
            (LABEL, unnamed, r"ball_04\.nii\.gz: label value\(s\) 7 not named in dataset\.json"),
            (IMAGE, lambda voxels, affine: (np.stack([voxels, voxels], -1), affine), r"expected a 3D volume"),
            (IMAGE, lambda voxels, affine: (0 * voxels, affine), "case ball_04: the image is constant"),
        ],
        ids=["shape", "affine", "NaN", "not integer", "unnamed", "4D", "constant"],
    )
    def test_a_file_that_does_not_fit(self, search, data, file, change, complains):
        spoil(data, file, change)
        search(complains)

    def test_a_file_that_cannot_be_read(self, search, data):
        (data / IMAGE).write_bytes((data / IMAGE).read_bytes()[:500])
        search(r"ball_04_0000\.nii\.gz: not a readable NIfTI file")

    def test_a_case_that_is_there_twice(self, search, data):
        shutil.copy(data / IMAGE, data / "imagesTr/ball_05_0000.nii.gz")
        search("ball_04 and ball_05 hold the same image")

    def test_no_foreground_at_all(self, search, data):
        for label in (data / "labelsTr").iterdir():
            spoil(data, f"labelsTr/{label.name}", lambda voxels, affine: (0 * voxels, affine))
        search("no label has any foreground")

    def test_a_spacing_that_is_none(self, refused, space_file, data):
        refused(r"three sizes above 0 mm", "search", space_file, "--data", data, "--spacing", 4, 0, 4)


class TestSearch:
    def test_unknown_space(self, refused):
        refused(r"no search space 'segmentaton' \(did you mean 'segmentation'\?\)", "search", "segmentaton")

    def test_wrong_space(self, refused, tmp_path, space_file):
        wrong = tmp_path / "wrong.yaml"
        wrong.write_text(space_file.read_text().replace("elites", "elits"))
        refused(r"wrong\.yaml: unknown key 'allocation\.elits' \(did you mean 'elites'\?\)", "search", wrong)

    def test_too_small_a_budget(self, refused, space_file, cohort):
        refused("a budget of 5 trainings is too small", "search", space_file, "--data", cohort, "--budget", 5)

    def test_an_existing_run(self, refused, space_file, cohort, run):
        refused("exists already; go on with 'lossevo search --resume", "search", space_file, "--data", cohort,
                "--run", run)  # fmt: skip

    def test_a_folder_in_use(self, refused, space_file, cohort, tmp_path):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "notes.txt").write_text("…")
        refused("nothing is overwritten", "search", space_file, "--data", cohort, "--run", tmp_path / "mine")

    def test_a_window_beyond_the_limit(self, refused, space_file, cohort):
        refused("--window: window: .*less than or equal to 4096", "search", space_file, "--data", cohort,
                "--run", "run", "--window", 5000)  # fmt: skip

    @pytest.mark.parametrize(
        "command",
        [
            ("search", "--run", "run"),
            ("metalearn", "--run", "run"),
            ("evaluate", "--losses", "dice,focal", "--out", "run"),
            ("evaluate", "--losses", "dice,focal", "--tune", "lr", "--out", "run"),
            ("tune", "dice", "--out", "run"),
        ],
    )
    def test_a_cluster_that_is_not_there_leaves_no_folder(self, refused, cohort, command):
        refused("cannot reach a Ray cluster at 127.0.0.1:1", *command, "--data", cohort, "--address", "127.0.0.1:1")
        assert not Path("run").exists()

    def test_in_process_and_on_a_cluster(self, refused, space_file, cohort):
        refused("--in-process needs no cluster, but --address is auto", "search", space_file, "--data", cohort,
                "--in-process", "--address", "auto")  # fmt: skip

    @pytest.mark.parametrize(
        ("arguments", "option"),
        [
            (["--labels", "mergd"], "--labels"),
            (["--labels", "absent.yaml"], "absent.yaml"),
            (["--levels", "L5-L1"], "--levels"),
            (["--format", "nnunet"], "--format"),
            (["--budget", "0"], "--budget"),
            (["--steps", "many"], "--steps"),
            (["--seed", "-1"], "--seed"),
            (["--bugdet", "60"], "--budget"),
            (["--spacing", "4", "4"], "--spacing"),
            (["--horizon", "3x"], "--horizon"),
            (["--horizon", "0"], "--horizon"),
            (["--horizon", "10"], "--horizon"),
            (["--confirm-lr", "0.01"], "--confirm-lr"),
            (["--confirm-lr", "0.01,-1"], "--confirm-lr"),
            (["--propose", "no-such-program"], "--propose"),
            (["--audit-screening", "0"], "--audit-screening"),
        ],
    )
    def test_a_wrong_option_is_named(self, cli, arguments, option):
        said = cli("search", *arguments)
        assert said.status == 2
        assert option in said.err.splitlines()[-1]
        assert list(Path().iterdir()) == []


class TestResume:
    @pytest.mark.parametrize("name", ["absent", "here"])
    def test_what_is_no_run_folder(self, refused, tmp_path, name):
        refused(r"not a run folder \(it has no run\.json\)", "search", "--resume", tmp_path / name)

    @pytest.mark.parametrize(
        "arguments",
        [
            ["glo"],
            ["--seed", 4],
            ["--seed", 3],
            ["--task", "task.yaml"],
            ["--steps", 5],
            ["--window", 2],
            ["--labels", "separate"],
            ["--levels", "L1-L5"],
            ["--format", "nnunet"],
            ["--spacing", 4, 4, 4],
            ["--data", "elsewhere"],
            ["--run", "another"],
        ],
        ids=lambda arguments: arguments[0],
    )
    def test_options_that_are_fixed(self, refused, run, arguments):
        named = "SPACE" if arguments[0] == "glo" else arguments[0]
        refused(f"{named} cannot be given with --resume", "search", *arguments, "--resume", run)

    def test_a_newer_ledger(self, refused, run):
        newer(run)
        refused("ledger.sqlite: written by a newer lossevo", "search", "--resume", run, "--in-process")

    def test_a_newer_run(self, refused, run):
        document = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps({**document, "format": "lossevo.run/9"}))
        refused(r"run\.json: format 'lossevo\.run/9', but this lossevo reads", "search", "--resume", run)

    @pytest.mark.parametrize("name", ["ledger.sqlite", "subjects.json"])
    def test_a_file_that_is_gone(self, refused, run, name):
        (run / name).unlink()
        refused(re.escape(name), "search", "--resume", run, "--in-process")

    def test_a_cohort_that_has_changed(self, refused, run, tmp_path):
        data = write_balls(tmp_path / "data")
        document = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps({**document, "cohort": {**document["cohort"], "path": str(data)}}))
        spoil(data, IMAGE, lambda voxels, affine: (voxels + 1, affine))
        refused("has changed since this run began", "search", "--resume", run)

    def test_a_run_of_another_version(self, refused, run):
        with closing(sqlite3.connect(run / "ledger.sqlite")) as ledger, ledger:
            ledger.execute("UPDATE trials SET trial = replace(trial, 'steps\": 2', 'steps\": 3')")
        refused(
            "training 0 on record is not one that this search could have asked for",
            "search",
            "--resume",
            run,
            "--in-process",
        )


def newer(run: Path) -> None:
    with closing(sqlite3.connect(run / "ledger.sqlite")) as ledger:
        ledger.execute(f"PRAGMA user_version={SCHEMA + 1}")


class TestHallOfFame:
    @pytest.mark.parametrize("command", [["hof"], ["hof", "--json"], ["export", "--out", "x"]])
    def test_what_is_no_run_folder(self, refused, tmp_path, command):
        arguments = [command[0], tmp_path / "absent", *(["1"] if command[0] == "export" else []), *command[1:]]
        refused(r"absent: no hall_of_fame\.json there; give the folder of a run", *arguments)

    @pytest.mark.parametrize("unknown", ["0", "99", "ffffffff"])
    def test_an_unknown_rank_or_id(self, refused, run, unknown):
        pattern = rf"no loss '{unknown}' in the hall of fame; give a rank from 1 to \d+ or an id"
        refused(pattern, "hof", run, "--show", unknown)
        refused(pattern, "export", run, unknown, "--out", "my_loss")

    def test_a_newer_ledger(self, refused, run):
        newer(run)
        refused("written by a newer lossevo", "hof", run, "--show", "1")

    def test_a_damaged_one(self, refused, run):
        (run / "hall_of_fame.json").write_text("[")
        refused(r"hall_of_fame\.json: damaged", "hof", run)

    def test_a_run_without_a_result_yet(self, refused, cli, space_file, cohort, monkeypatch):
        from lossevo.search import Run

        monkeypatch.setattr(Run, "search", lambda *given, **named: [])
        assert cli("search", space_file, "--data", cohort, "--run", "early").status == 0
        refused(r"early: no training has ended yet; go on with 'lossevo search --resume early'", "hof", "early")

    def test_an_export_on_top_of_something_else(self, refused, run, tmp_path):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.tex").write_text("…")
        refused("mine is not empty", "export", run, "1", "--out", tmp_path / "mine")
