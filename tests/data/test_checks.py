"""Every problem is planted in a cohort on disk and found; a clean cohort has none."""

from __future__ import annotations

import dataclasses
import gzip
import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lossevo.data import CohortWarning, prepare, read_cohort
from lossevo.data.checks import Report, check
from lossevo.data.labels import label_scheme
from lossevo.data.loading import read_case
from lossevo.data.readers import scan
from lossevo.data.scan import CaseFiles, LabelFile, Scan, Severity
from lossevo.errors import LossevoError

SHAPE = (6, 8, 10)
SPACING_MM = (4.0, 1.0, 1.0)
LABELS = {"background": 0, "L1": 1, "L2": 2}


def case(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise, and two structures that are like no other case's."""
    rng = np.random.default_rng([7, number])
    label = np.zeros(SHAPE, np.uint8)
    label[1:5, 2:6, 1:5] = rng.random((4, 4, 4)) < 0.8
    label[1:5, 2:6, 6:9] = 2 * (rng.random((4, 4, 3)) < 0.8)
    return rng.integers(1, 200, size=SHAPE).astype(np.int16), label


@pytest.fixture
def cohort(write_nnunet_cohort) -> Path:
    """Twelve cases with nothing wrong."""
    cases = {f"case{number:02d}": case(number) for number in range(12)}
    return write_nnunet_cohort(cases, labels=LABELS, spacing_mm=SPACING_MM)


def image(cohort: Path, number: int = 3) -> Path:
    return cohort / "imagesTr" / f"case{number:02d}_0000.nii.gz"


def label(cohort: Path, number: int = 3) -> Path:
    return cohort / "labelsTr" / f"case{number:02d}.nii.gz"


def rewrite(file: Path, change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> None:
    stored = nib.load(file)
    nib.save(nib.Nifti1Image(*change(np.asanyarray(stored.dataobj).copy(), stored.affine.copy())), file)


def describe(cohort: Path, **entries: object) -> None:
    file = cohort / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def found(report: Report) -> list[tuple[str, str | None]]:
    return [(problem.code, problem.case_id) for problem in report.problems]


class TestClean:
    def test_nothing_is_found(self, cohort):
        report = check(scan(cohort))
        assert report.problems == ()
        assert report.notes == ()
        assert (report.format, len(report.cases), len(report.subjects)) == ("nnunet", 12, 12)

    def test_what_a_case_holds(self, cohort):
        first = check(scan(cohort)).cases[0]
        _, labelled = case(0)
        assert (first.case_id, first.subject, first.channels) == ("case00", "case00", 1)
        assert first.shape == SHAPE
        assert first.spacing_mm == pytest.approx(SPACING_MM)
        assert first.volumes_cm3 == pytest.approx(
            {name: np.count_nonzero(labelled == value) * 4 / 1000 for name, value in (("L1", 1), ("L2", 2))}
        )

    def test_classes_are_those_of_the_scheme(self, cohort):
        whole = check(scan(cohort)).cases[0].volumes_cm3
        merged = check(scan(cohort), scheme=label_scheme("merged"))
        assert merged.class_names == ("vertebra",)
        assert merged.cases[0].volumes_cm3 == pytest.approx({"vertebra": sum(whole.values())})
        of_a_level = check(scan(cohort), scheme=label_scheme("separate", "L2"))
        assert of_a_level.cases[0].volumes_cm3 == pytest.approx({"L2": whole["L2"]})
        assert of_a_level.problems == ()
        with pytest.raises(LossevoError, match="C3"):
            check(scan(cohort), scheme=label_scheme("separate", "C3-C7"))

    def test_workers_change_nothing_and_progress_is_told(self, cohort):
        told = []
        alone = check(scan(cohort), lambda *step: told.append(step), workers=1)
        assert told == [(done, 12, f"case{done - 1:02d}") for done in range(1, 13)]
        assert check(scan(cohort), workers=3) == alone

    def test_orientation_and_type_do_not_matter(self, cohort):
        before = check(scan(cohort))
        for file in (image(cohort), label(cohort)):
            stored = nib.load(file)
            turned = stored.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
            nib.save(nib.Nifti1Image(np.asarray(turned.dataobj, np.float32), turned.affine), file)
        assert check(scan(cohort)) == before

    def test_the_document_is_plain_json(self, cohort):
        rewrite(image(cohort), constant(7))
        document = check(scan(cohort)).to_document()
        assert json.loads(json.dumps(document)) == document
        assert (document["errors"], document["warnings"]) == (1, 0)
        assert document["problems"][0]["code"] == "constant-image"
        assert document["cases"][0]["volumes_cm3"].keys() == {"L1", "L2"}

    @pytest.mark.cohort
    @pytest.mark.parametrize(("name", "count"), [("myosegmentum", 38), ("vb2", 17)])
    def test_the_real_cohorts_are(self, real_cohorts, name, count):
        report = check(scan(real_cohorts / name))
        assert report.problems == ()
        assert len(report.cases) == count
        if name == "myosegmentum":
            volumes = [volume for case in report.cases for volume in case.volumes_cm3.values()]
            assert len(volumes) == 5 * 38
            assert 25 < min(volumes) < max(volumes) < 70


def nearly_constant(voxels, affine):
    """One of 480 voxels differs, which clipping to percentiles takes away."""
    voxels[:] = 7
    voxels[0, 0, 0] = 9
    return voxels, affine


def with_nan(voxels, affine):
    voxels = voxels.astype(np.float32)
    voxels[0, 0, :3] = np.nan
    voxels[1, 1, 1] = np.inf
    return voxels, affine


def with_values(voxels, affine):
    voxels[0, 0, 0], voxels[0, 0, 1:3] = 9, 7
    return voxels, affine


def interpolated(voxels, affine):
    voxels = voxels.astype(np.float32)
    voxels[voxels == 1] = 0.7
    return voxels, affine


def without_geometry(file: Path, sizes: tuple[float, float, float] = (1, 1, 1)) -> None:
    """Sform and qform code 0, as tools leave them that write a bare array."""
    content = gzip.decompress(file.read_bytes())
    header = nib.Nifti1Header(content[:348])
    header["sform_code"] = header["qform_code"] = 0
    header["pixdim"][1:4] = sizes
    file.write_bytes(gzip.compress(header.binaryblock + content[348:]))


def shorter(voxels, affine):
    return voxels[:, :-1], affine


def scaled(voxels, affine):
    return voxels, affine @ np.diag([1, 1.2, 1.2, 1])


def moved(mm: float):
    def change(voxels, affine):
        affine[1, 3] += mm
        return voxels, affine

    return change


def tilted(voxels, affine):
    sin, cos = np.sin(0.2), np.cos(0.2)
    return voxels, np.array([[1, 0, 0, 0], [0, cos, -sin, 0], [0, sin, cos, 0], [0, 0, 0, 1]]) @ affine


def constant(value: int):
    return lambda voxels, affine: (np.where(voxels > 100, value, 0).astype(np.int16), affine)


def resized(*sides: float):
    return lambda voxels, affine: (voxels, np.diag([*sides, 1.0]))


def nothing(voxels, affine):
    return np.zeros_like(voxels), affine


def without_second(voxels, affine):
    return np.where(voxels == 2, 0, voxels), affine


ERROR, WARNING = Severity.ERROR, Severity.WARNING


class TestOneFile:
    """What is wrong with one file of one case."""

    @pytest.mark.parametrize(
        ("which", "change", "severity", "code", "message"),
        [
            (image, with_nan, ERROR, "not-finite", r"case03_0000.*: 4 voxel\(s\) are NaN or infinite; replace them"),
            (label, with_nan, ERROR, "not-finite", "case03.nii.gz: the label has NaN or infinite voxels"),
            (
                label,
                with_values,
                ERROR,
                "unexpected-label-value",
                r"value\(s\) 7 \(2 voxels\), 9 \(1 voxels\) are not named in dataset.json, which has 0 and 1 to 2;",
            ),
            (label, interpolated, ERROR, "label-not-integer", r"\d+ voxel\(s\) are not integers, such as 0.7; was the"),
            (label, shorter, ERROR, "shape-mismatch", r"shape \(6, 7, 10\) differs from \(6, 8, 10\) of .*case03_0000"),
            (label, scaled, ERROR, "spacing-mismatch", "voxels of 4×1.2×1.2 mm differ from 4×1×1 mm of .*case03_0000"),
            (label, moved(3), ERROR, "affine-mismatch", "places voxels up to 3 mm away from where .*case03_0000"),
            (image, moved(-0.2), ERROR, "affine-mismatch", "up to 0.2 mm away .*resample one to the grid of the other"),
            (image, moved(0.05), WARNING, "affine-mismatch", "up to 0.05 mm away .*so little is ignored"),
            (label, tilted, ERROR, "affine-mismatch", r"its origin or direction places voxels up to \S+ mm away"),
            (image, constant(7), ERROR, "constant-image", "99 % of the voxels that are not 0 are 7: no image"),
            (image, nearly_constant, ERROR, "constant-image", "99 % of the voxels that are not 0 are 7: no image"),
            (image, constant(0), ERROR, "constant-image", "all voxels are 0: no image"),
            (label, nothing, WARNING, "empty-label", "no voxel of L1, L2; leave the case out, or label it"),
        ],
    )
    def test_is_found(self, cohort, which, change, severity, code, message):
        rewrite(which(cohort), change)
        report = check(scan(cohort))
        (problem,) = report.problems
        assert (problem.severity, problem.code, problem.case_id) == (severity, code, "case03")
        assert problem.file in (image(cohort), label(cohort))
        assert str(problem.file) in problem.message
        assert re.search(message, problem.message), problem.message

    def test_a_shift_within_rounding_is_none(self, cohort):
        rewrite(label(cohort), moved(0.005))
        assert check(scan(cohort)).problems == ()

    @pytest.mark.parametrize("which", [image, label])
    @pytest.mark.parametrize(
        ("content", "code", "message"),
        [
            (lambda whole: whole[: len(whole) // 2], "truncated-gzip", r"ends early.*; copy it again"),
            (lambda whole: whole[:-3], "truncated-gzip", "ends early"),
            (
                lambda whole: whole[:-8] + b"12345678",
                "damaged-gzip",
                "its compressed content is damaged: incorrect data check",
            ),
            (lambda whole: b"<html>404 Not Found</html>" * 99, "unreadable", "no NIfTI header"),
            (
                lambda whole: b"/annex/objects/MD5E-s1234--0f.nii.gz\n",
                "pointer",
                "only a pointer to the content; fetch it with 'git annex get",
            ),
            (
                lambda whole: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
                "pointer",
                "fetch it with 'git lfs pull",
            ),
        ],
    )
    def test_that_is_damaged_or_not_there(self, cohort, which, content, code, message):
        file = which(cohort)
        file.write_bytes(content(file.read_bytes()))
        (problem,) = check(scan(cohort)).problems
        assert (problem.severity, problem.code, problem.file, problem.case_id) == (ERROR, code, file, "case03")
        assert re.search(message, problem.message), problem.message

    def test_an_annexed_file_that_was_not_fetched_is_a_link_to_nowhere(self, cohort):
        image(cohort).unlink()
        image(cohort).symlink_to("../.git/annex/objects/aa/bb/MD5E-s1.nii.gz")
        (problem,) = check(scan(cohort)).problems
        assert (problem.code, problem.file) == ("pointer", image(cohort))

    def test_a_file_that_is_no_volume(self, cohort):
        image(cohort).write_bytes(gzip.compress(b"no header" * 100))
        (problem,) = check(scan(cohort)).problems
        assert (problem.severity, problem.code) == (ERROR, "unreadable")
        assert "not a readable NIfTI file" in problem.message

    def test_forms_that_disagree(self, cohort):
        stored = nib.load(image(cohort))
        volume = nib.Nifti1Image(np.asarray(stored.dataobj), stored.affine)
        volume.set_sform(stored.affine, code=1)
        volume.set_qform(np.diag([4.0, 2.0, 2.0, 1.0]), code=1)
        volume.header["pixdim"][1:4] = 4, 2, 2
        nib.save(volume, image(cohort))
        (problem,) = check(scan(cohort)).problems
        assert (problem.severity, problem.code, problem.case_id) == (WARNING, "sform-qform", "case03")
        assert "place voxels up to 11.4 mm apart" in problem.message

    def test_a_label_without_geometry_lies_where_its_image_lies(self, cohort):
        before = read_cohort(cohort).cases[3].load()
        without_geometry(label(cohort))
        (problem,) = check(scan(cohort)).problems
        assert (problem.severity, problem.code, problem.file) == (WARNING, "no-geometry", label(cohort))
        assert "it is taken to lie where the file of the case with its shape lies" in problem.message
        after = read_cohort(cohort).cases[3].load()
        np.testing.assert_array_equal(after.label, before.label)
        np.testing.assert_array_equal(after.image, before.image)
        assert after.spacing_mm == before.spacing_mm

    def test_an_image_without_geometry_lies_where_its_label_lies(self, cohort):
        before = read_cohort(cohort).cases[3].load()
        without_geometry(image(cohort))
        assert found(check(scan(cohort))) == [("no-geometry", "case03")]
        after = read_cohort(cohort).cases[3].load()
        np.testing.assert_array_equal(after.image, before.image)
        assert after.spacing_mm == before.spacing_mm

    def test_without_any_geometry_it_is_assumed(self, cohort):
        for file in (image(cohort), label(cohort)):
            without_geometry(file)
        report = check(scan(cohort))
        assert [problem.code for problem in report.problems if problem.code != "odd-spacing"] == ["no-geometry"]
        assert "nor does any other file of the case" in report.problems[0].message
        assert read_cohort(cohort).cases[3].load().spacing_mm == (1, 1, 1)

    @pytest.mark.parametrize("which", [label, image])
    def test_without_any_geometry_the_voxel_sizes_of_one_file_are_the_others_too(self, cohort, which):
        for file in (image(cohort), label(cohort)):
            without_geometry(file, sizes=(1, 1, 1) if file == which(cohort) else SPACING_MM)
        report = check(scan(cohort))
        assert found(report) == [("no-geometry", "case03")]
        assert not report.errors
        assert read_cohort(cohort).cases[3].load().spacing_mm == pytest.approx(SPACING_MM)

    def test_the_thickness_of_a_plane_may_be_assumed(self, write_nnunet_cohort):
        voxels, labelled = (volume[:, :, 2:3] for volume in case(0))
        cohort = write_nnunet_cohort({"a": (voxels, labelled)}, labels=LABELS)
        thick = np.diag([1.0, 1.0, 3.0, 1.0])
        rewrite(cohort / "imagesTr" / "a_0000.nii.gz", lambda voxels, affine: (voxels, thick))
        assert not check(scan(cohort)).errors
        assert read_cohort(cohort).cases[0].load().spacing_mm == (1, 1, 3)

    def test_a_label_without_geometry_of_another_shape_or_voxel_size_lies_nowhere(self, cohort):
        rewrite(label(cohort), shorter)
        without_geometry(label(cohort))
        without_geometry(label(cohort, 4), sizes=(4, 2, 1))
        shape, size = check(scan(cohort)).problems
        assert (shape.severity, shape.code, shape.case_id) == (ERROR, "no-geometry", "case03")
        assert "no label has its shape (6, 7, 10) (case03_0000.nii.gz (6, 8, 10))" in shape.message
        assert (size.severity, size.code, size.case_id) == (ERROR, "no-geometry", "case04")
        assert "its voxels of 4×2×1 mm are not those of" in size.message

    def test_what_other_programs_refuse_is_told(self, cohort):
        label(cohort).write_bytes(gzip.decompress(label(cohort).read_bytes()))
        sheared = np.diag([4.0, 1.0, 1.0, 1.0])
        sheared[1, 2] = 2e-4
        for file in (image(cohort, 5), label(cohort, 5)):
            rewrite(file, lambda voxels, affine: (voxels, sheared))
        report = check(scan(cohort))
        assert found(report) == [("misnamed", "case03"), ("sheared-affine", "case05"), ("sheared-affine", "case05")]
        assert not report.errors

    def test_scaled_labels_count_as_the_integers_that_they_were(self, cohort):
        before = check(scan(cohort))
        stored = nib.load(label(cohort))
        scaled = nib.Nifti1Image(np.asarray(stored.dataobj, np.float32), stored.affine)
        scaled.set_data_dtype(np.uint8)
        nib.save(scaled, label(cohort))
        assert nib.load(label(cohort)).dataobj.slope != 1
        assert check(scan(cohort)) == before

    @pytest.mark.parametrize("sides", [(12.0, 1.0, 1.0), (1.0, 0.05, 1.0), (9.0, 0.4, 0.4)])
    def test_extreme_spacing(self, cohort, sides):
        for number in range(12):
            for file in (image(cohort, number), label(cohort, number)):
                rewrite(file, resized(*sides))
        report = check(scan(cohort))
        assert found(report) == [("extreme-spacing", f"case{number:02d}") for number in range(12) for _ in range(2)]
        assert "expected 0.1 to 10 mm and sides that differ by at most a factor of 20" in report.problems[0].message

    def test_nothing_labelled_at_all_is_an_error(self, cohort):
        for number in range(12):
            rewrite(label(cohort, number), lambda voxels, affine: (0 * voxels, affine))
        report = check(scan(cohort))
        assert [problem.code for problem in report.errors] == ["no-foreground"]
        assert report.errors[0].message.endswith("no case has any voxel of L1, L2: there is nothing to learn")

    def test_a_label_without_background(self, cohort):
        rewrite(label(cohort), lambda voxels, affine: (np.maximum(voxels, 1), affine))
        (problem,) = check(scan(cohort)).problems
        assert (problem.severity, problem.code, problem.case_id) == (WARNING, "no-background", "case03")

    def test_a_fat_fraction_is_judged_as_such(self, cohort):
        """By the unit that preparing it takes, and refuses."""
        description = json.loads((cohort / "dataset.json").read_text())
        (cohort / "dataset.json").write_text(json.dumps({**description, "channel_names": {"0": "PDFF"}}))
        assert "no-fat-fraction" not in [problem.code for problem in check(scan(cohort)).problems]
        rewrite(image(cohort), lambda voxels, affine: (np.linspace(0, 4095, voxels.size).reshape(voxels.shape), affine))
        (problem,) = check(scan(cohort)).errors
        assert (problem.code, problem.case_id) == ("no-fat-fraction", "case03")
        assert "a fat fraction ends at 1, 100 % or 1000" in problem.message

    def test_an_image_is_judged_as_it_is_trained_on(self, cohort):
        """Of integers around 2^40, 32-bit floats tell none apart."""
        rewrite(image(cohort), lambda voxels, affine: (voxels.astype(np.float64) + 2**40, affine))
        (problem,) = check(scan(cohort)).problems
        assert (problem.severity, problem.code, problem.case_id) == (ERROR, "constant-image", "case03")

    def test_a_header_in_metres_is_converted_and_one_that_only_says_so_is_suspicious(self, cohort):
        def in_metres(file: Path, factor: float) -> None:
            stored = nib.load(file)
            volume = nib.Nifti1Image(np.asarray(stored.dataobj), np.diag([*3 * [factor], 1.0]) @ stored.affine)
            volume.header.set_xyzt_units("meter")
            nib.save(volume, file)

        for number, factor in ((2, 0.001), (3, 1.0)):
            in_metres(image(cohort, number), factor)
            in_metres(label(cohort, number), factor)
        report = check(scan(cohort))
        assert report.cases[2].spacing_mm == pytest.approx(SPACING_MM)
        assert {problem for problem in found(report) if problem[0] == "extreme-spacing"} == {
            ("extreme-spacing", "case03")
        }
        assert "voxels of 4e+03×1e+03×1e+03 mm" in report.problems[0].message
        assert "a wrong header (it is in metres)?" in report.problems[0].message


class TestLayout:
    """What the reader finds without opening a file is reported with the rest."""

    def test_missing_files_and_a_wrong_count(self, cohort):
        image(cohort, 3).unlink()
        label(cohort, 5).unlink()
        describe(cohort, numTraining=13)
        codes = {problem.code for problem in check(scan(cohort)).errors}
        assert {"missing-image", "missing-label", "case-count"} <= codes

    def test_channels(self, write_nnunet_cohort):
        cases = {f"case{number:02d}": case(number) for number in range(12)}
        cases = {name: (np.stack([voxels, 300 - voxels]), labelled) for name, (voxels, labelled) in cases.items()}
        cohort = write_nnunet_cohort(cases, labels=LABELS, spacing_mm=SPACING_MM)
        assert check(scan(cohort)).problems == ()
        assert {found.channels for found in check(scan(cohort)).cases} == {2}
        shutil.copy(image(cohort, 1), cohort / "imagesTr" / "case01_0001.nii.gz")
        rewrite(cohort / "imagesTr" / "case02_0001.nii.gz", shorter)
        report = check(scan(cohort))
        assert found(report) == [("shape-mismatch", "case02"), ("duplicate-channel", "case01")]

    def test_another_number_of_channels_in_one_file(self, cohort):
        rewrite(image(cohort), lambda voxels, affine: (np.stack([voxels, 300 - voxels], axis=-1), affine))
        (problem,) = check(scan(cohort)).problems
        assert (problem.severity, problem.code) == (ERROR, "channel-count")
        assert "case case03 has 2 channel(s), the data set names 1 (channel 0)" in problem.message


class TestCohort:
    """What only shows when cases are compared."""

    def test_a_copy_under_another_name_and_type_leaks(self, cohort):
        stored = nib.load(image(cohort, 2))
        turned = stored.as_reoriented(np.array([[1, 1], [0, -1], [2, 1]]))
        nib.save(nib.Nifti1Image(np.asarray(turned.dataobj, np.float64), turned.affine), image(cohort, 8))
        (problem,) = check(scan(cohort)).problems
        assert (problem.severity, problem.code, problem.file) == (ERROR, "duplicate-image", image(cohort, 8))
        assert f"the same image as {image(cohort, 2)}: subjects case02 and case08 would leak" in problem.message

    def test_of_one_subject_it_counts_twice(self, cohort):
        shutil.copy(image(cohort, 2), image(cohort, 8))
        describe(cohort, subjects={"case02": "anna", "case08": "anna"})
        (problem,) = check(scan(cohort)).problems
        assert (problem.severity, problem.code) == (ERROR, "duplicate-image")
        assert "subject anna would count twice" in problem.message

    def test_every_copy_is_told(self, cohort):
        for number in (4, 5, 6):
            shutil.copy(image(cohort, 2), image(cohort, number))
        assert found(check(scan(cohort))) == [("duplicate-image", f"case{number:02d}") for number in (4, 5, 6)]

    def test_a_label_copied_to_another_subject(self, cohort):
        shutil.copy(label(cohort, 2), label(cohort, 8))
        (problem,) = check(scan(cohort)).problems
        assert (problem.severity, problem.code, problem.case_id) == (WARNING, "duplicate-label", "case08")
        describe(cohort, subjects={"case02": "anna", "case08": "anna"})
        assert check(scan(cohort)).problems == ()  # two series of a patient may share an outline

    def test_a_class_that_few_cases_lack_and_one_that_none_has(self, cohort):
        rewrite(label(cohort), without_second)
        describe(cohort, labels={**LABELS, "L3": 3, "L4": 4})
        empty, missing = check(scan(cohort)).problems
        assert (empty.severity, empty.code) == (WARNING, "empty-class")
        assert "no case has any voxel of L3, L4" in empty.message
        assert (missing.severity, missing.code) == (WARNING, "missing-class")
        assert "L2 is labelled in 11 of 12 cases, but not in case03" in missing.message

    def test_of_a_format_with_names_for_a_whole_spine_only_those_asked_for_are_missed(self, cohort):
        whole = dataclasses.replace(scan(cohort), label_names={1: "L1", 2: "L2", 3: "C1"}, names_of_format=True)
        for scheme in (None, label_scheme("separate"), label_scheme("merged")):
            assert check(whole, scheme=scheme).problems == ()
        (problem,) = check(whole, scheme=label_scheme("separate", "C1,L1")).problems
        assert problem.code == "empty-class"
        assert "no case has any voxel of C1;" in problem.message

    def test_another_plane_or_sequence(self, cohort):
        for file in (image(cohort), label(cohort)):
            rewrite(file, resized(0.9, 0.9, 4.0))
        (problem,) = check(scan(cohort)).problems
        assert (problem.severity, problem.code, problem.case_id) == (WARNING, "odd-spacing", "case03")
        assert "voxels of 0.9×0.9×4 mm, where the median of the cohort is 4×1×1 mm" in problem.message

    def test_one_slice_where_others_have_many(self, cohort):
        for number in (3, 8):
            for file in (image(cohort, number), label(cohort, number)):
                rewrite(file, lambda voxels, affine: (voxels[2:3], affine))
        first, second = check(scan(cohort)).problems
        assert (first.severity, first.code, first.case_id) == (WARNING, "single-slice", "case03")
        assert "one slice (right-left), where most cases have more, 6 in the median" in first.message
        assert second.case_id == "case08"

    def test_a_cohort_of_slices_is_one(self, write_nnunet_cohort):
        cases = {f"case{number:02d}": tuple(part[2:3] for part in case(number)) for number in range(12)}
        assert check(scan(write_nnunet_cohort(cases, labels=LABELS, spacing_mm=SPACING_MM))).problems == ()

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("101_t1", "101_t2_SPACE"),
            ("p7-visit1", "p7-visit2"),
            ("01_ses-1_T2w", "01_ses-2_T2w"),
            ("a_T1w", "a_T2w"),
        ],
    )
    def test_names_that_look_like_series_of_one_patient(self, write_nnunet_cohort, one, other):
        names = [one, other, *(f"case{number:02d}" for number in range(10))]
        cohort = write_nnunet_cohort(
            {name: case(number) for number, name in enumerate(names)}, labels=LABELS, spacing_mm=SPACING_MM
        )
        (problem,) = check(scan(cohort)).problems
        assert (problem.severity, problem.code) == (WARNING, "unclear-subject")
        assert (
            f"2 cases have names that differ only in a sequence or visit, such as {one} and {other}" in problem.message
        )
        with pytest.warns(CohortWarning, match=f"2 cases have names .* such as {one} and {other}") as warned:
            read_cohort(cohort)
        assert str(warned[0].message) == problem.message
        describe(cohort, subjects={one: "anna", other: "anna"})
        assert check(scan(cohort)).problems == ()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read_cohort(cohort)

    def test_names_that_share_the_name_of_the_cohort(self, write_nnunet_cohort):
        cases = {f"spine_mri_{number:03d}": case(number) for number in range(12)}
        assert check(scan(write_nnunet_cohort(cases, labels=LABELS, spacing_mm=SPACING_MM))).problems == ()

    def test_what_is_constant_is_what_preparing_refuses(self, cohort):
        rewrite(image(cohort), nearly_constant)
        prepared = dataclasses.replace(read_cohort(cohort), cases=read_cohort(cohort).cases[3:4])
        with pytest.raises(LossevoError, match="case03: the image is constant"):
            prepare(prepared, spacing_mm=SPACING_MM)
        # A fat fraction keeps its scale, so that few voxels that differ are enough.
        describe(cohort, channel_names={"0": "PDFF"})
        assert check(scan(cohort)).problems == ()
        as_fat = prepare(dataclasses.replace(prepared, channel_names=("PDFF",)), spacing_mm=SPACING_MM)
        assert len(as_fat.volumes) == 1

    def test_few_subjects(self, cohort):
        describe(cohort, subjects={f"case{number:02d}": f"patient{number % 4}" for number in range(12)})
        report = check(scan(cohort))
        assert found(report) == [("few-subjects", None)]
        assert "4 subject(s)" in report.problems[0].message
        assert report.notes == (
            "4 of 4 subjects have several cases (12 in all); splits keep the cases of a subject together",
        )

    def test_all_of_it_is_reported_errors_first(self, cohort):
        rewrite(image(cohort, 1), with_nan)
        rewrite(label(cohort, 1), with_values)
        rewrite(label(cohort, 2), nothing)
        label(cohort, 4).unlink()
        shutil.copy(image(cohort, 5), image(cohort, 6))
        report = check(scan(cohort))
        assert [case for _, case in found(report)] == ["case04", "case01", "case01", "case06", "case02"]
        assert len(report.errors) == 4
        assert len(report.warnings) == 1


class TestMasks:
    """Data sets with one mask per structure."""

    @pytest.fixture
    def masks(self, cohort) -> Scan:
        """The same cohort with a mask file for each vertebra."""
        cases = []
        for number in range(12):
            labelled = nib.load(label(cohort, number))
            files = []
            for value in (1, 2):
                file = cohort / f"L{value}_{number}.nii.gz"
                mask = (np.asarray(labelled.dataobj) == value).astype(np.uint8)
                nib.save(nib.Nifti1Image(mask, labelled.affine), file)
                files.append(LabelFile(file, value))
            cases.append(CaseFiles(f"case{number:02d}", f"case{number:02d}", (image(cohort, number),), tuple(files)))
        return Scan("masks", cohort, tuple(cases), {1: "L1", 2: "L2"}, ("T2",), resample_labels=True)

    def test_are_as_good_as_a_label_map(self, masks, cohort):
        report = check(masks)
        assert report.problems == ()
        assert [case.volumes_cm3 for case in report.cases] == [case.volumes_cm3 for case in check(scan(cohort)).cases]

    def test_of_several_values(self, masks, cohort):
        rewrite(cohort / "L1_3.nii.gz", with_values)
        (problem,) = check(masks).problems
        assert (problem.severity, problem.code) == (ERROR, "mask-values")
        assert "values 1, 7, 9, expected a mask of one structure (0 and 1)" in problem.message

    def test_on_another_grid_are_resampled_where_that_is_known_of_the_format(self, masks, cohort):
        rewrite(cohort / "L1_3.nii.gz", shorter)
        (problem,) = check(masks).problems
        assert (problem.severity, problem.code) == (WARNING, "shape-mismatch")
        assert "it is resampled to the image" in problem.message

    def test_on_grids_of_their_own_under_an_image_without_geometry(self, masks, cohort):
        rewrite(cohort / "L1_3.nii.gz", shorter)
        without_geometry(image(cohort))
        report = check(masks)
        assert found(report) == [("no-geometry", "case03"), ("shape-mismatch", "case03")]
        assert not report.errors
        assert report.cases[0].spacing_mm == pytest.approx(SPACING_MM)

    def test_that_lie_outside_the_image_cannot_be(self, masks, cohort):
        rewrite(cohort / "L1_3.nii.gz", moved(300))
        report = check(masks)
        assert found(report) == [("unusable", "case03"), ("affine-mismatch", "case03")]
        assert "do not belong together" in report.problems[0].message

    def test_a_folder_in_the_place_of_a_file(self, masks, cohort):
        (cohort / "L1_3.nii.gz").unlink()
        (cohort / "L1_3.nii.gz").mkdir()
        (problem,) = check(masks).problems
        assert (problem.severity, problem.code, problem.case_id) == (ERROR, "missing-file", "case03")
        assert "L1_3.nii.gz: is a folder, expected a file" in problem.message

    def test_a_file_that_is_not_there(self, masks, cohort):
        (cohort / "L1_3.nii.gz").unlink()
        (problem,) = check(masks).problems
        assert (problem.severity, problem.code, problem.case_id) == (ERROR, "missing-file", "case03")


class TestStatedFolds:
    def report(self, cohort: Path, folds: int, subjects: int) -> Report:
        found = scan(cohort)
        cases = tuple(
            dataclasses.replace(files, subject=f"patient{number % subjects}", fold=number % folds)
            for number, files in enumerate(found.cases)
        )
        return check(dataclasses.replace(found, cases=cases))

    def test_are_mentioned(self, cohort):
        report = self.report(cohort, folds=3, subjects=12)
        assert report.problems == ()
        assert report.notes == ("the data set states 3 folds; 'lossevo evaluate --splits cohort' uses them",)

    def test_that_part_a_patient(self, cohort):
        report = self.report(cohort, folds=3, subjects=10)
        (problem,) = report.problems
        assert (problem.severity, problem.code) == (ERROR, "folds")
        message = "fold 0 trains and tests on the same 1 subject(s): patient0 (cases case00, case10)"
        assert message in problem.message
        assert not any("states" in note for note in report.notes)

    def test_a_single_one(self, cohort):
        report = self.report(cohort, folds=1, subjects=12)
        (problem,) = report.problems
        assert (problem.severity, problem.code) == (WARNING, "single-fold")
        assert "states fold 0 alone" in problem.message
        assert report.notes == ()


def test_no_case_at_all(tmp_path):
    (problem,) = check(Scan("bids", tmp_path, (), {1: "L1"}, ("T2",))).problems
    assert (problem.severity, problem.code) == (ERROR, "no-cases")


@given(
    kind=st.sampled_from(["image", "label"]),
    damage=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=6),
    kept=st.none() | st.integers(0, 900),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damaged_byte_ends_the_check(plain_pair, kind, damage, kept):
    """Uncompressed, so that nothing but the header and the voxels is there to notice."""
    folder, originals = plain_pair
    for name, original in originals.items():
        content = bytearray(original)
        if name == kind:
            for place, value in damage:
                content[place] = value
            content = content[:kept]
        (folder / f"{name}.nii").write_bytes(content)
    files = CaseFiles("case", "subject", (folder / "image.nii",), (LabelFile(folder / "label.nii"),))
    found = Scan("any", folder, (files,), {1: "L1", 2: "L2"}, ("T2",))
    report = check(found, workers=1)
    assert all("\n" not in problem.message for problem in report.problems)
    if not report.errors:
        assert read_case(files, found).label.shape == report.cases[0].shape
    json.dumps(report.to_document(), allow_nan=False)


@pytest.fixture(scope="module")
def plain_pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    originals = {}
    for name, voxels in zip(("image", "label"), case(0), strict=True):
        nib.save(nib.Nifti1Image(voxels, np.diag([*SPACING_MM, 1.0])), folder / f"{name}.nii")
        originals[name] = (folder / f"{name}.nii").read_bytes()
    return folder, originals
