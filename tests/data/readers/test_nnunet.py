from __future__ import annotations

import gzip
import json
import pickle
import shutil
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from lossevo.data import MERGED, CohortWarning, prepare, read_cohort, read_nnunet, relabel
from lossevo.data.convert import convert
from lossevo.data.readers import scan
from lossevo.data.scan import Severity
from lossevo.errors import LossevoError
from tests.data.readers.volumes import SAGITTAL, in_ras, write_itk

SHAPE = (5, 6, 7)


def image_and_label(seed: int = 0, classes: int = 2):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 200, SHAPE, np.int16), rng.integers(0, classes, SHAPE, np.uint8)


def stored_in(array, affine, code: str):
    """The same volume with its voxels stored in another axis order, and its affine."""
    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(code))
    return apply_orientation(array, change), affine @ inv_ornt_aff(change, array.shape)


@pytest.fixture
def cohort_folder(write_nnunet_cohort) -> Path:
    return write_nnunet_cohort({"a": image_and_label(1), "b": image_and_label(2)})


def rewrite_description(folder: Path, **entries):
    file = folder / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def save(array, file: Path, affine=None):
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), file)


# What is read


def test_reads_names_cases_voxels_and_spacing(write_nnunet_cohort):
    cases = {"b": image_and_label(1, classes=3), "a_01": image_and_label(2, classes=3)}
    folder = write_nnunet_cohort(
        cases, labels={"L2": 2, "background": 0, "L1": 1}, spacing_mm=(4.0, 0.9, 0.8), channel_names={"0": "T2"}
    )
    (folder / "imagesTr" / "._b_0000.nii.gz").touch()
    cohort = read_nnunet(folder)
    assert cohort.name == "cohort"
    assert cohort.class_names == ("background", "L1", "L2")
    assert cohort.channel_names == ("T2",)
    assert [case.case_id for case in cohort.cases] == ["a_01", "b"]
    assert cohort.subjects == ("a_01", "b")
    for case in cohort.cases:
        volume = case.load()
        image, label = cases[case.case_id]
        assert volume.image.dtype == np.float32
        assert volume.label.dtype == np.uint8
        np.testing.assert_array_equal(volume.image[0], image)
        np.testing.assert_array_equal(volume.label, label)
        assert volume.spacing_mm == pytest.approx((4.0, 0.9, 0.8))


def test_channels_are_stacked_in_order(write_nnunet_cohort):
    image, label = image_and_label()
    folder = write_nnunet_cohort({"a": (np.stack([image, image + 1000]), label)})
    volume = read_nnunet(folder).cases[0].load()
    np.testing.assert_array_equal(volume.image, np.stack([image, image + 1000]))


@pytest.mark.parametrize("code", ["IPR", "LPS", "PIR", "SAL", "ARI"])
def test_any_stored_orientation_gives_the_same_volume(write_nnunet_cohort, code: str):
    image, label = image_and_label()
    affine = np.diag([4.0, 1.5, 0.7, 1.0])
    stored_image, stored_affine = stored_in(image, affine, code)
    stored_label, _ = stored_in(label, affine, code)
    assert "".join(nib.aff2axcodes(stored_affine)) == code
    (case,) = read_nnunet(write_nnunet_cohort({"a": (stored_image, stored_label)}, affine=stored_affine)).cases
    volume = case.load()
    assert (case.grid.shape, case.grid.spacing_mm) == (SHAPE, pytest.approx(volume.spacing_mm))
    np.testing.assert_array_equal(volume.image[0], image)
    np.testing.assert_array_equal(volume.label, label)
    assert volume.spacing_mm == pytest.approx((4.0, 1.5, 0.7))


def test_image_and_label_may_be_stored_in_different_orientations(cohort_folder):
    image, label = image_and_label(1)
    stored, affine = stored_in(label, np.eye(4), "PIR")
    save(stored, cohort_folder / "labelsTr" / "a.nii.gz", affine)
    volume = read_nnunet(cohort_folder).cases[0].load()
    np.testing.assert_array_equal(volume.label, label)
    np.testing.assert_array_equal(volume.image[0], image)


def test_spacing_of_an_oblique_acquisition_is_the_affines_column_norms(write_nnunet_cohort):
    angle = np.deg2rad(20)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([4.0, 0.9, 0.8])
    volume = read_nnunet(write_nnunet_cohort({"a": image_and_label()}, affine=affine)).cases[0].load()
    assert volume.spacing_mm == pytest.approx((4.0, 0.9, 0.8), rel=1e-5)


def test_sform_decides_when_the_header_disagrees_with_itself(cohort_folder):
    for file in (cohort_folder / "imagesTr" / "a_0000.nii.gz", cohort_folder / "labelsTr" / "a.nii.gz"):
        volume = nib.load(file)
        volume = nib.Nifti1Image(np.asarray(volume.dataobj), np.eye(4))
        volume.header.set_qform(np.diag([2.0, 2.0, 2.0, 1.0]), code=1)
        volume.header.set_sform(np.diag([1.0, 1.0, 1.0, 1.0]), code=1)
        nib.save(volume, file)
    assert read_nnunet(cohort_folder).cases[0].load().spacing_mm == (1.0, 1.0, 1.0)


def test_float_labels_with_whole_values_and_uncompressed_files(write_nnunet_cohort):
    image, label = image_and_label()
    folder = write_nnunet_cohort({"a": (image, label.astype(np.float64))}, file_ending=".nii")
    for file in [*folder.glob("*/*.nii.gz")]:
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    np.testing.assert_array_equal(read_nnunet(folder).cases[0].load().label, label)


def test_older_style_description(cohort_folder):
    description = {"modality": {"0": "MRI"}, "labels": {"1": "L1", "0": "background", "2": "L2"}}
    (cohort_folder / "dataset.json").write_text(json.dumps(description))
    cohort = read_nnunet(cohort_folder)
    assert cohort.class_names == ("background", "L1", "L2")
    assert cohort.channel_names == ("MRI",)


def test_nnunet_v1_lists_files_by_names_that_they_do_not_have(cohort_folder):
    listed = [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in "ab"]
    labels = {"0": "background", "1": "L1"}
    rewrite_description(cohort_folder, modality={"0": "MRI"}, labels=labels, training=listed)
    found = scan(cohort_folder)
    assert (found.format, [case.case_id for case in found.cases]) == ("nnunet", ["a", "b"])


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_other_file_endings(write_nnunet_cohort, ending: str):
    pytest.importorskip("SimpleITK")
    folder = write_nnunet_cohort({"a": image_and_label(1)}, file_ending=ending)
    for file in folder.glob("*/*.nii.gz"):
        voxels = np.asarray(nib.load(file).dataobj)
        write_itk(file.with_name(file.name.replace(".nii.gz", ending)), voxels, SAGITTAL)
    volume = read_nnunet(folder).cases[0].load()
    for array, stored in ((volume.image[0], image_and_label(1)[0]), (volume.label, image_and_label(1)[1])):
        np.testing.assert_array_equal(array, in_ras(stored))


@pytest.mark.parametrize("ending", [".nii.gz", ".NII.GZ"])
def test_endings_in_capitals(cohort_folder, ending: str):
    plain = read_nnunet(cohort_folder)
    rewrite_description(cohort_folder, file_ending=ending)
    for file in cohort_folder.rglob("a*.nii.gz"):
        file.rename(file.with_name(file.name.replace(".nii.gz", ".NII.gz")))
    found = read_nnunet(cohort_folder)
    assert [case.case_id for case in found.cases] == ["a", "b"]
    for case, other in zip(found.cases, plain.cases, strict=True):
        assert case.grid == other.grid
    shutil.copy(cohort_folder / "imagesTr" / "b_0000.nii.gz", cohort_folder / "imagesTr" / "b_0000.NII.GZ")
    with pytest.raises(LossevoError, match=r"b_0000\.nii\.gz: the same name as .*b_0000\.NII\.GZ; remove one"):
        read_nnunet(cohort_folder)


def test_a_description_with_a_byte_order_mark(cohort_folder):
    file = cohort_folder / "dataset.json"
    file.write_text(file.read_text(), encoding="utf-8-sig")
    assert len(read_cohort(cohort_folder).cases) == 2


def test_files_named_in_the_description_instead_of_folders(cohort_folder):
    listed = {
        "x": {"images": ["imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz"], "label": "labelsTr/b.nii.gz"},
        "y": {"images": ["imagesTr/b_0000.nii.gz", "imagesTr/a_0000.nii.gz"], "label": "labelsTr/b.nii.gz"},
    }
    rewrite_description(cohort_folder, dataset=listed, channel_names={"0": "T1", "1": "T2"})
    cohort = read_cohort(cohort_folder)
    assert [case.case_id for case in cohort.cases] == ["x", "y"]
    volume = cohort.cases[0].load()
    np.testing.assert_array_equal(volume.image, [image_and_label(seed)[0] for seed in (1, 2)])
    np.testing.assert_array_equal(volume.label, image_and_label(2)[1])
    del listed["x"]["images"][1]
    rewrite_description(cohort_folder, dataset=listed)
    assert [problem.code for problem in scan(cohort_folder).problems] == ["missing-image"]
    rewrite_description(cohort_folder, dataset=["x"])
    with pytest.raises(LossevoError, match=r'dataset\.json: "dataset" must map each case to'):
        scan(cohort_folder)


def test_variables_in_the_paths_of_the_description(cohort_folder, tmp_path, monkeypatch):
    store = cohort_folder.rename(tmp_path / "store")
    cohort_folder.mkdir()
    (store / "dataset.json").rename(cohort_folder / "dataset.json")
    listed = {
        case: {"images": [f"${{STORE_1}}/imagesTr/{case}_0000.nii.gz"], "label": f"$STORE_1/labelsTr/{case}.nii.gz"}
        for case in "ab"
    }
    rewrite_description(cohort_folder, dataset=listed)
    monkeypatch.delenv("STORE_1", raising=False)
    with pytest.raises(
        LossevoError, match=r"'\$\{STORE_1\}/imagesTr/a_0000\.nii\.gz', but the variable STORE_1 is not set; set it"
    ):
        read_cohort(cohort_folder)
    for value in (store, Path("..") / store.name):  # also relative to dataset.json
        monkeypatch.setenv("STORE_1", str(value))
        volume = read_cohort(cohort_folder).cases[0].load()
        np.testing.assert_array_equal(volume.image[0], image_and_label(1)[0])
    monkeypatch.setenv("STORE_1", "/nowhere")
    with pytest.raises(LossevoError, match=r"^/nowhere/imagesTr/a_0000\.nii\.gz: no such file, .* \(the first of 4"):
        read_cohort(cohort_folder)


def test_a_dollar_in_a_name_is_one(cohort_folder):
    for file in (cohort_folder / "imagesTr" / "a_0000.nii.gz", cohort_folder / "labelsTr" / "a.nii.gz"):
        file.rename(file.with_name(f"$A{file.name}"))
    assert [case.case_id for case in read_nnunet(cohort_folder).cases] == ["$Aa", "b"]
    entry = {"images": ["imagesTr/$Aa_0000.nii.gz"], "label": "labelsTr/$Aa.nii.gz"}
    rewrite_description(cohort_folder, dataset={"x": entry}, numTraining=1)
    assert read_nnunet(cohort_folder).cases[0].load().case_id == "x"


def test_gaps_in_the_label_values(write_nnunet_cohort, tmp_path):
    """SPIDER's values: as they are in its dataset.json, where nnU-Net wants 0, 1, 2, …"""
    rng = np.random.default_rng(0)
    values = [0, *range(1, 8), 100, *range(201, 208)]
    labels = {case: rng.choice(values, SHAPE).astype(np.uint8) for case in "ab"}
    cases = {case: (rng.normal(size=SHAPE).astype(np.float32), label) for case, label in labels.items()}
    names = {"background" if not value else f"structure {value}": value for value in values}
    folder = write_nnunet_cohort(cases, labels=names)
    cohort = read_nnunet(folder)
    assert cohort.class_names == tuple(names)
    for case in cohort.cases:
        np.testing.assert_array_equal(np.array(values)[case.load().label], labels[case.case_id])
    (gaps,) = scan(folder).problems
    assert (gaps.severity, gaps.code) == (Severity.WARNING, "label-gaps")
    assert "gaps (0, 1 to 7, 100, 201 to 207), which nnU-Net itself refuses" in gaps.message

    convert(folder, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["labels"] == {
        name: number for number, name in enumerate(names)
    }
    written = np.asarray(nib.load(tmp_path / "out" / "labelsTr" / "a.nii.gz").dataobj)
    np.testing.assert_array_equal(np.array(values)[written], labels["a"])
    assert not scan(tmp_path / "out").problems


def test_patients_that_names_tell(write_nnunet_cohort):
    names = ("sub-01_ses-1", "sub-01_ses-2", "x_sub-02_t1", "sub-02_t2", "p_1")
    folder = write_nnunet_cohort({name: image_and_label(seed) for seed, name in enumerate(names)})
    with pytest.warns(CohortWarning, match="sub-02_t2 and x_sub-02_t1 count as one patient, sub-02. If each site has"):
        cohort = read_nnunet(folder)
    assert cohort.subjects == ("p_1", "sub-01", "sub-02")
    rewrite_description(folder, subjects={"x_sub-02_t1": "p_1"})
    with warnings.catch_warnings():
        warnings.simplefilter("error", CohortWarning)
        assert read_nnunet(folder).subjects == ("p_1", "sub-01", "sub-02")
    assert [case.subject for case in read_nnunet(folder).cases] == ["p_1", "sub-01", "sub-01", "sub-02", "p_1"]


def test_cases_of_one_patient(cohort_folder):
    rewrite_description(cohort_folder, subjects={"a": "anna", "b": "anna"})
    assert read_nnunet(cohort_folder).subjects == ("anna",)
    rewrite_description(cohort_folder, subjects={"a": "anna", "B": "anna"})
    with pytest.raises(LossevoError, match="\"subjects\" names 'B', which is no case here"):
        read_nnunet(cohort_folder)
    rewrite_description(cohort_folder, subjects=["anna"])
    with pytest.raises(LossevoError, match='"subjects" must map case ids to patients'):
        read_nnunet(cohort_folder)


def test_cases_travel_between_processes(cohort_folder):
    case = pickle.loads(pickle.dumps(read_nnunet(cohort_folder))).cases[0]
    np.testing.assert_array_equal(case.load().label, image_and_label(1)[1])


# What is refused when the folder is read


def test_missing_folder(tmp_path):
    with pytest.raises(LossevoError, match="nowhere: no such folder; expected an nnU-Net raw data set"):
        read_nnunet(tmp_path / "nowhere")


def test_missing_description(cohort_folder):
    (cohort_folder / "dataset.json").unlink()
    with pytest.raises(LossevoError, match=r"dataset\.json: missing"):
        read_nnunet(cohort_folder)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b""])
def test_description_that_is_no_json(cohort_folder, content: bytes):
    (cohort_folder / "dataset.json").write_bytes(content)
    with pytest.raises(LossevoError, match=r"dataset\.json: not readable as JSON"):
        read_nnunet(cohort_folder)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"labels": None}, '"labels" must map names to values'),
        ({"labels": {}}, '"labels" must map names to values'),
        ({"labels": {"background": 0}}, "at least one foreground class"),
        ({"labels": {"L1": 1, "L2": 2}}, r"the value 0 \(background\) .* got \[1, 2\]"),
        ({"labels": {"L1": 0, "background": 1}}, '"background" has the value 1, expected 0'),
        ({"labels": {"background": 0, "L1": 1, "L2": 1}}, r"unique values, got \[0, 1, 1\]"),
        ({"labels": {"background": 0, "L1": 1, "spine": [1, 2]}}, r'"spine" is the region \[1, 2\], .* --labels FILE'),
        ({"labels": {"background": 0, "L1": 70000}}, "'L1' has the label value 70000, expected 1 to 65535"),
        ({"labels": {"background": 0, "L1": True}}, '"L1" has the value True'),
        ({"labels": {"background": 0, "L1": "one"}}, "\"L1\" has the value 'one'"),
        ({"labels": {"0": "background", "1": "L1", "2": "L1"}}, "same name to several values"),
        ({"labels": {"background": 0, "L1": 1, "ignore": 2}}, '"ignore" label is not supported'),
        ({"channel_names": {}}, '"channel_names" must map "0", "1"'),
        ({"channel_names": ["T2"]}, '"channel_names" must map "0", "1"'),
        ({"channel_names": {"1": "T2"}}, '"channel_names" must map "0", "1"'),
        ({"file_ending": ".gif"}, r"file_ending '\.gif' cannot be read, only \.nii\.gz, \.nii, \.mha"),
        ({"numTraining": 3}, r"numTraining is 3, but imagesTr holds 2 case\(s\)"),
    ],
)
def test_invalid_description(cohort_folder, entries, message: str):
    rewrite_description(cohort_folder, **entries)
    with pytest.raises(LossevoError, match=message):
        read_nnunet(cohort_folder)


def test_description_that_is_no_object(cohort_folder):
    (cohort_folder / "dataset.json").write_text("[1, 2]")
    with pytest.raises(LossevoError, match="expected a JSON object"):
        read_nnunet(cohort_folder)


@pytest.mark.parametrize("folder", ["imagesTr", "labelsTr"])
def test_missing_folder_of_files(cohort_folder, folder: str):
    shutil.rmtree(cohort_folder / folder)
    with pytest.raises(LossevoError, match=f"{folder}: no such folder"):
        read_nnunet(cohort_folder)


def test_empty_cohort(write_nnunet_cohort):
    with pytest.raises(LossevoError, match="the cohort is empty"):
        read_nnunet(write_nnunet_cohort({}))


def test_image_without_label(cohort_folder):
    (cohort_folder / "labelsTr" / "b.nii.gz").unlink()
    with pytest.raises(LossevoError, match=r"b_0000\.nii\.gz: no label .*labelsTr/b\.nii\.gz"):
        read_nnunet(cohort_folder)


def test_label_without_image(cohort_folder):
    (cohort_folder / "imagesTr" / "b_0000.nii.gz").unlink()
    with pytest.raises(LossevoError, match=r"b\.nii\.gz: no image .*imagesTr/b_0000\.nii\.gz"):
        read_nnunet(cohort_folder)


def test_missing_channel(cohort_folder):
    rewrite_description(cohort_folder, channel_names={"0": "T1", "1": "T2"})
    with pytest.raises(LossevoError, match=r"a\.nii\.gz: no image .*imagesTr/a_0001\.nii\.gz"):
        read_nnunet(cohort_folder)


def test_channel_that_the_description_does_not_name(cohort_folder):
    shutil.copy(cohort_folder / "imagesTr" / "b_0000.nii.gz", cohort_folder / "imagesTr" / "b_0001.nii.gz")
    with pytest.raises(LossevoError, match=r"b_0001\.nii\.gz: dataset\.json names 1 channel\(s\) only"):
        read_nnunet(cohort_folder)


def test_image_named_without_channel(cohort_folder):
    (cohort_folder / "imagesTr" / "b_0000.nii.gz").rename(cohort_folder / "imagesTr" / "b.nii.gz")
    with pytest.raises(LossevoError, match=r"imagesTr/b\.nii\.gz: expected a name like CASE_0000\.nii\.gz"):
        read_nnunet(cohort_folder)


# What is refused when a case is loaded


def refused(folder: Path, message: str, case: int = 0):
    with pytest.raises(LossevoError, match=message) as caught:
        read_nnunet(folder).cases[case].load()
    assert "\n" not in str(caught.value)


def test_shapes_that_differ(cohort_folder):
    save(np.zeros((5, 6, 8), np.uint8), cohort_folder / "labelsTr" / "a.nii.gz")
    refused(cohort_folder, r"a_0000\.nii\.gz: shape \(5, 6, 7\) differs from \(5, 6, 8\) of .*a\.nii\.gz")


@pytest.mark.parametrize("affine", [np.diag([1.0, 1.0, 1.1, 1.0]), nib.affines.from_matvec(np.eye(3), [0, 0, 0.5])])
def test_affines_that_differ(cohort_folder, affine):
    save(image_and_label(1)[1], cohort_folder / "labelsTr" / "a.nii.gz", affine)
    refused(cohort_folder, r"a_0000\.nii\.gz: its affine places voxels up to 0\.[56] mm away from where .*a\.nii\.gz")


def test_channels_of_different_shapes(write_nnunet_cohort):
    image, label = image_and_label(1)
    folder = write_nnunet_cohort({"a": (np.stack([image, image]), label)})
    save(np.zeros((5, 6, 8), np.uint8), folder / "imagesTr" / "a_0001.nii.gz")
    refused(folder, r"a_0001\.nii\.gz: shape \(5, 6, 8\) differs from \(5, 6, 7\) of .*a_0000\.nii\.gz; resample all")


def test_affines_that_differ_by_rounding_are_the_same(cohort_folder):
    affine = np.eye(4) + 1e-5
    affine[3] = (0, 0, 0, 1)
    save(image_and_label(1)[1], cohort_folder / "labelsTr" / "a.nii.gz", affine)
    read_nnunet(cohort_folder).cases[0].load()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_image_voxels_that_are_not_finite(cohort_folder, value: float):
    image = image_and_label(1)[0].astype(np.float32)
    image[1, 2, 3] = image[0, 0, 0] = value
    save(image, cohort_folder / "imagesTr" / "a_0000.nii.gz")
    refused(cohort_folder, r"a_0000\.nii\.gz: 2 voxel\(s\) are NaN or infinite")


def test_label_voxels_that_are_not_finite(cohort_folder):
    label = image_and_label(1)[1].astype(np.float32)
    label[1, 2, 3] = np.nan
    save(label, cohort_folder / "labelsTr" / "a.nii.gz")
    refused(cohort_folder, r"labelsTr/a\.nii\.gz: the label has NaN")


def test_labels_that_are_not_integers(cohort_folder):
    save(image_and_label(1)[1] * np.float32(0.75), cohort_folder / "labelsTr" / "a.nii.gz")
    refused(cohort_folder, r"labelsTr/a\.nii\.gz: \d+ voxel\(s\) are not integers, such as 0\.75")


@pytest.mark.parametrize(("value", "dtype"), [(2, np.uint8), (-1, np.int16), (256, np.int16)])
def test_label_values_that_the_description_does_not_name(cohort_folder, value: int, dtype):
    label = image_and_label(1)[1].astype(dtype)
    label[0, 0, 0] = value
    save(label, cohort_folder / "labelsTr" / "a.nii.gz")
    refused(cohort_folder, rf"labelsTr/a\.nii\.gz: label value\(s\) {value} not named in dataset\.json")


def test_four_dimensional_image(cohort_folder):
    save(np.zeros((*SHAPE, 2), np.uint8), cohort_folder / "imagesTr" / "a_0000.nii.gz")
    refused(cohort_folder, r"a_0000\.nii\.gz: shape \(5, 6, 7, 2\), expected a 3D volume")


def test_colour_image(cohort_folder):
    colour = np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    save(colour, cohort_folder / "imagesTr" / "a_0000.nii.gz")
    refused(cohort_folder, r"a_0000\.nii\.gz: voxels of type .*, expected integers or floats")


def test_singular_affine(cohort_folder):
    file = cohort_folder / "labelsTr" / "a.nii.gz"
    volume = nib.Nifti1Image(image_and_label(1)[1], np.eye(4))
    volume.header["srow_z"] = 0
    volume.header.set_data_shape(SHAPE)
    content = volume.header.binaryblock + b"\0" * 4 + image_and_label(1)[1].tobytes(order="F")
    file.write_bytes(gzip.compress(content))
    refused(cohort_folder, r"labelsTr/a\.nii\.gz: its affine is singular")


@pytest.mark.parametrize("kept", [0, 5, 30, 0.6, 0.9])
def test_truncated_file(cohort_folder, kept: float):
    file = cohort_folder / "imagesTr" / "b_0000.nii.gz"
    content = file.read_bytes()
    file.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    refused(cohort_folder, r"b_0000\.nii\.gz: not a readable NIfTI file, perhaps truncated", case=1)


def test_file_of_another_kind(cohort_folder):
    (cohort_folder / "imagesTr" / "b_0000.nii.gz").write_text("../../.git/annex/objects/SHA256E-s1234.nii.gz")
    refused(cohort_folder, r"b_0000\.nii\.gz: not a readable NIfTI file", case=1)


def test_corrupted_file(cohort_folder):
    file = cohort_folder / "imagesTr" / "b_0000.nii.gz"
    content = bytearray(file.read_bytes())
    content[60:200] = bytes(140)
    file.write_bytes(content)
    refused(cohort_folder, r"b_0000\.nii\.gz: not a readable NIfTI file", case=1)


@pytest.mark.cohort
def test_real_cohort(real_cohorts):
    cohort = read_nnunet(real_cohorts / "myosegmentum")
    assert len(cohort.cases) == 38
    assert cohort.class_names == ("background", "L1", "L2", "L3", "L4", "L5")
    prepared = prepare(relabel(cohort, MERGED))
    assert prepared.class_names == ("background", "vertebra")
    assert prepared.spacing_mm == (4.0, 4.0, 4.0)
    assert len(set(prepared.subject_hashes.values())) == 38
    for volume in prepared.volumes:
        assert all(size <= 60 for size in volume.label.shape)
        # Five lumbar vertebral bodies of 25 to 70 cm³ each.
        assert 125 < volume.label.sum() * 0.064 < 350
