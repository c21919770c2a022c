"""``lossevo data``: check, show, convert, phantom."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lossevo.data import read_cohort, read_splits
from lossevo.data.cache import KINDS, default_cache
from tests.cohorts import write_balls


@pytest.fixture
def balls(cohort, tmp_path) -> Path:
    """A cohort that may be spoilt: nine cases."""
    return Path(shutil.copytree(cohort, tmp_path / "balls"))


class TestCheck:
    def test_a_clean_cohort(self, cli, tmp_path):
        said = cli("data", "check", write_balls(tmp_path / "ten", 10))
        assert (said.status, said.err) == (0, "")
        assert re.search(r"ball_00 +16×24×24 +4×4×4 +1 +vertebra\s\d+\.\d", said.out)
        assert re.search(
            r"ten \(nnunet\): 10 cases of 10 subjects, checked in .* s: no errors, 0 warnings\n$", said.out
        )
        assert "subject  " not in said.out

    def test_warnings_alone_are_status_0(self, cli, balls):
        said = cli("data", "check", balls)
        assert said.status == 0
        assert "warning: " in said.out
        assert said.out.endswith("no errors, 1 warning\n")

    def test_errors_are_status_2_and_all_are_told(self, cli, balls):
        label = balls / "labelsTr" / "ball_04.nii.gz"
        volume = nib.load(label)
        voxels = np.asarray(volume.dataobj).copy()
        voxels[0, 0, 0] = 7
        nib.save(nib.Nifti1Image(voxels, volume.affine), label)
        broken = balls / "imagesTr" / "ball_06_0000.nii.gz"
        broken.write_bytes(broken.read_bytes()[:500])
        said = cli("data", "check", balls)
        assert (said.status, said.err) == (2, "")
        assert f"error: {label}: label value(s) 7 (1 voxels) are not named in dataset.json" in said.out
        assert (
            f"error: {broken}: not a readable NIfTI file, perhaps truncated (its compressed content ends early)"
            in said.out
        )
        assert re.search(r"ball_04 .* unexpected-label-value", said.out)
        assert re.search(r"ball_06 .* truncated-gzip", said.out)
        assert "2 errors, 1 warning" in said.out

    def test_json_is_all_there_is(self, cli, balls):
        (balls / "labelsTr" / "ball_04.nii.gz").write_bytes(b"")
        said = cli("data", "check", balls, "--json")
        assert (said.status, said.err) == (2, "")
        document = json.loads(said.out)
        assert document["errors"] >= 1
        assert {problem["case"] for problem in document["problems"] if problem["severity"] == "error"} == {"ball_04"}
        assert len(document["cases"]) == 9

    def test_many_warnings_of_a_kind_are_summed_up(self, cli, balls):
        for file in sorted((balls / "labelsTr").iterdir())[1:]:
            volume = nib.load(file)
            nib.save(nib.Nifti1Image(np.zeros(volume.shape, np.uint8), volume.affine), file)
        said = cli("data", "check", balls)
        assert said.status == 0
        assert said.out.count("warning: ") == 3 + 1
        assert "and 5 more warnings 'empty-label'; --json lists all" in said.out

    def test_subjects_with_several_cases(self, cli, balls):
        document = json.loads((balls / "dataset.json").read_text())
        document["subjects"] = {f"ball_{number:02d}": f"patient{number % 3}" for number in range(9)}
        (balls / "dataset.json").write_text(json.dumps(document))
        said = cli("data", "check", balls)
        assert re.search(r"ball_04 +patient1 ", said.out)
        assert "note: 3 of 3 subjects have several cases (9 in all)" in said.out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nowhere"], "nowhere: no such folder or file"),
            ([".", "--format", "niftii"], "unknown format 'niftii'"),
            (["BALLS", "--levels", "L1-L9"], "--levels"),
            (["BALLS", "--labels", "both"], "--labels is 'both'"),
        ],
    )
    def test_refused(self, cli, balls, arguments, message):
        said = cli("data", "check", *(balls if argument == "BALLS" else argument for argument in arguments))
        assert (said.status, said.out) == (2, "")
        assert said.err.startswith("lossevo: ")
        assert message in said.err


class TestShow:
    def test_pictures(self, cli, balls, tmp_path):
        out = tmp_path / "pictures"
        said = cli("data", "show", balls, "--out", out, "--cases", 2)
        assert (said.status, said.err) == (0, "")
        assert f"Written to {out}: contact_sheet.png and 2 cases, each in three planes" in said.out
        pngs = sorted(file.name for file in out.glob("*.png"))
        assert pngs == ["ball_00.png", "ball_01.png", "contact_sheet.png"]
        assert cli("data", "show", balls, "--out", out, "--cases", 1).status == 0

    def test_what_cannot_be_read_is_said(self, cli, balls, tmp_path):
        broken = balls / "imagesTr" / "ball_00_0000.nii.gz"
        broken.write_bytes(broken.read_bytes()[:-200])
        said = cli("data", "show", balls, "--out", tmp_path / "pictures", "--cases", 2)
        assert said.status == 0
        assert f"Not drawn: {broken}" in said.out
        assert "and 1 cases" in said.out

    def test_a_header_that_cannot_be_read_is_said(self, cli, balls, tmp_path):
        broken = balls / "imagesTr" / "ball_00_0000.nii.gz"
        broken.write_bytes(b"no image at all")
        said = cli("data", "show", balls, "--out", tmp_path / "pictures", "--cases", 2)
        assert said.status == 0
        assert f"Not drawn: {broken}" in said.out
        assert "and 1 cases" in said.out

    def test_cases_that_may_be_of_one_patient_are_noted_in_one_line(self, cli, balls, tmp_path):
        for number, visit in ((0, 1), (1, 2)):
            for folder, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
                file = balls / folder / f"ball_{number:02d}{ending}"
                file.rename(file.with_name(f"anna_visit{visit}{ending}"))
        for command in (
            ("show", balls, "--cases", 1, "--out", tmp_path / "pictures"),
            ("convert", balls, tmp_path / "raw"),
        ):
            said = cli("data", *command)
            assert said.status == 0
            assert said.err.startswith(
                f"Note: {balls}: 2 cases have names that differ only in a sequence or visit, such"
            )
            assert said.err.count("\n") == 1

    def test_out_is_needed_and_nothing_is_overwritten(self, cli, balls, tmp_path):
        assert cli("data", "show", balls).err == "lossevo: --out is missing; name a new folder for the pictures\n"
        said = cli("data", "show", balls, "--out", balls.parent / "here" / "..")
        assert (said.status, "holds the current folder" in said.err) == (2, True)
        other = tmp_path / "other"
        other.mkdir()
        (other / "thesis.txt").touch()
        said = cli("data", "show", balls, "--out", other)
        assert said.status == 2
        assert "exists already and holds no overlays" in said.err


class TestOutputFolders:
    """What is around, inside or the same as the source or the current folder is refused, and nothing is touched."""

    @pytest.fixture
    def tree(self, balls, tmp_path, monkeypatch):
        """All files there are; the command line works in tmp_path / here, which is empty."""
        (balls / "empty").mkdir()

        def tree() -> list[tuple[Path, float]]:
            return [(file, file.stat().st_ino) for file in sorted(tmp_path.rglob("*"))]

        return tree

    @pytest.mark.parametrize(
        ("out", "told"),
        [
            (".", ".: is the current folder"),
            ("..", "..: holds the current folder"),
            ("x/..", "x/..: is the current folder"),
            ("../here", "../here: is the current folder"),
            ("../link", "../link: is the current folder"),
            ("../balls", "../balls: is the data set that is read"),
            ("../balls/out", "../balls/out: inside of the data set that is read"),
            ("../balls/empty", "../balls/empty: inside of the data set that is read"),
            ("../data", "../data: is the data set that is read"),
            ("../data/out", "../data/out: inside of the data set that is read"),
        ],
    )
    def test_refused(self, cli, balls, tree, tmp_path, out, told):
        (tmp_path / "link").symlink_to(tmp_path / "here")
        (tmp_path / "data").symlink_to(balls)
        before = tree()
        for command in (("convert", balls, out), ("show", balls, "--out", out)):
            said = cli("data", *command)
            assert said.status == 2
            assert said.err.startswith(f"lossevo: {told}")
            assert said.err.count("\n") == 1
        if "current" in told:
            said = cli("data", "phantom", out, "--cases", 1)
            assert (said.status, said.err.startswith(f"lossevo: {told}")) == (2, True)
        assert tree() == before

    def test_beside_a_list_is_fine(self, cli, balls, tmp_path):
        rows = (f"{n},imagesTr/ball_0{n}_0000.nii.gz,labelsTr/ball_0{n}.nii.gz" for n in range(3))
        (balls / "list.csv").write_text("\n".join(["subject,image,label", *rows]))
        assert cli("data", "convert", balls / "list.csv", balls / "out").status == 0
        assert "is the data set" in cli("data", "convert", balls / "list.csv", balls / "list.csv").err
        assert "holds the data set" in cli("data", "convert", balls / "list.csv", balls).err


class TestConvert:
    def test_to_nnunet(self, cli, balls, tmp_path):
        out = tmp_path / "raw" / "Dataset101_Balls"
        said = cli("data", "convert", balls, out, "--name", "Balls")
        assert (said.status, said.err) == (0, "")
        assert f"Written to {out}: 9 cases of 9 subjects, classes vertebra\n" in said.out
        assert len(read_cohort(out).cases) == 9
        assert json.loads((out / "dataset.json").read_text())["name"] == "Balls"
        again = cli("data", "convert", balls, out)
        assert again.status == 2
        assert "exists already; nothing is overwritten" in again.err

    def test_splits_are_told_of(self, cli, balls, tmp_path):
        document = json.loads((balls / "dataset.json").read_text())
        document["subjects"] = {f"ball_{number:02d}": f"patient{number % 3}" for number in range(9)}
        (balls / "dataset.json").write_text(json.dumps(document))
        said = cli("data", "convert", balls, tmp_path / "out")
        assert "splits_final.json (copy it to nnUNet_preprocessed/DATASET)" in said.out
        assert len(read_splits(tmp_path / "out" / "splits_final.json")) == 3


class TestPhantom:
    @pytest.mark.parametrize(("region", "classes"), [("lumbar", "L1, L2, L3, L4, L5"), ("cervical", "C2, C3")])
    def test_is_a_data_set(self, cli, tmp_path, region, classes):
        out = tmp_path / region
        spacing = ("--spacing", 8, 8, 8) if region == "lumbar" else ("--spacing", 4, 3, 3)
        said = cli("data", "phantom", out, "--region", region, "--cases", 2, "--seed", 4, *spacing)
        assert (said.status, said.err) == (0, "")
        assert f"Written to {out}: 2 cases, classes {classes}" in said.out
        assert "error" not in cli("data", "check", out).out.replace("no errors", "")
        again = tmp_path / "again"
        cli("data", "phantom", again, "--region", region, "--cases", 2, "--seed", 4, *spacing)
        for one, two in zip(read_cohort(out).cases, read_cohort(again).cases, strict=True):
            np.testing.assert_array_equal(one.load().image, two.load().image)

    def test_refused(self, cli, tmp_path):
        said = cli("data", "phantom", tmp_path / "out", "--spacing", 100, 1, 1)
        assert said.status == 2
        assert "spacing" in said.err
        assert not (tmp_path / "out").exists()


class TestCache:
    def test_size_and_clearing(self, cli, monkeypatch, tmp_path):
        monkeypatch.setenv("LOSSEVO_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("LOSSEVO_CACHE_LIMIT", "500MiB")
        assert cli("data", "cache").out == f"{tmp_path / 'cache'}: 0.0 MB, of at most 524 MB\n"
        entry = default_cache().put(KINDS[0], "ab12", {"n": 1}, image=np.zeros(500_000, np.float32))
        assert entry is not None
        monkeypatch.setenv("LOSSEVO_CACHE_LIMIT", "off")
        assert cli("data", "cache").out == f"{tmp_path / 'cache'}: 2.0 MB, no limit\n"
        assert cli("data", "cache", "--clear").out == f"{tmp_path / 'cache'}: 2.0 MB removed\n"
        assert not entry.exists()

    def test_off(self, cli, monkeypatch):
        monkeypatch.setenv("LOSSEVO_CACHE", "off")
        assert "LOSSEVO_CACHE is off" in cli("data", "cache").out


@pytest.mark.parametrize("command", ["check", "show", "convert", "phantom", "cache"])
def test_every_command_has_examples(cli, command):
    said = cli("data", command, "--help")
    assert (said.status, said.err) == (0, "")
    examples = said.out[said.out.index("Examples:") : said.out.index("Options:")]
    assert re.search(rf"\n +lossevo data {command}\b", examples)
