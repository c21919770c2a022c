"""nnU-Net raw data sets are written whole or not at all, with every voxel where it was."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lossevo.data import Cohort, CohortWarning, phantom_cohort, read_cohort, read_splits
from lossevo.data.checks import check
from lossevo.data.convert import convert, write_generated
from lossevo.data.labels import label_scheme
from lossevo.data.readers import scan
from lossevo.errors import LossevoError
from tests.data.readers.volumes import SAGITTAL, image, label, write_itk, write_multiframe

SHAPE = (6, 8, 10)
# Stored head first, tilted, 4 mm slices: nothing about it is simple.
TILT = np.array([[0.0, 0.1, 0.995], [0.0, -0.995, 0.1], [-1.0, 0.0, 0.0]])
LABELS = {"background": 0, "L1": 1, "L2": 2, "canal": 3}
AFFINE = np.eye(4)
AFFINE[:3, :3], AFFINE[:3, 3] = TILT * [1.0, 1.0, 4.0], (-30, 55, 12.5)


def case(number: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([8, number])
    label = np.zeros(SHAPE, np.uint8)
    label[1:5, 2:6, 1:4] = 1
    label[1:5, 2:6, 5:8] = 2
    label[5, 7, 9] = 3
    return rng.integers(-50, 900, size=SHAPE).astype(np.int16), label


@pytest.fixture
def source(write_nnunet_cohort) -> Path:
    cases = {f"case {number}": case(number) for number in range(6)}
    return write_nnunet_cohort(cases, labels=LABELS, affine=AFFINE, name="source")


def describe(folder: Path, **entries: object) -> None:
    file = folder / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def description(folder: Path) -> dict:
    return json.loads((folder / "dataset.json").read_text())


def positions(file: Path) -> set[tuple[float, ...]]:
    """Where in the world each value of a volume lies."""
    volume = nib.load(file)
    voxels = np.asanyarray(volume.dataobj)
    index = np.stack(np.meshgrid(*map(np.arange, voxels.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    world = np.round(index @ volume.affine[:3, :3].T + volume.affine[:3, 3], 3) + 0.0
    return {(*place, value) for place, value in zip(world.tolist(), voxels.ravel().tolist(), strict=True)}


class TestConvert:
    def test_every_voxel_stays_where_it_is(self, source, tmp_path):
        told = []
        cohort = convert(source, tmp_path / "out", progress=lambda *step: told.append(step))
        assert len(cohort.cases) == 6
        assert [done for done, _, _ in told] == [1, 2, 3, 4, 5, 6]
        for kind, name in (("imagesTr", "case {}_0000.nii.gz"), ("labelsTr", "case {}.nii.gz")):
            before = source / kind / name.format(2)
            after = tmp_path / "out" / kind / name.format(2).replace(" ", "-")
            assert positions(after) == positions(before)
            assert nib.load(after).get_data_dtype() == nib.load(before).get_data_dtype()

    def test_what_it_writes_reads_the_same_and_has_no_fault(self, source, tmp_path):
        convert(source, tmp_path / "out")
        assert {problem.code for problem in check(scan(tmp_path / "out")).problems} <= {
            "few-subjects",
            "duplicate-label",
        }
        before, after = read_cohort(source), read_cohort(tmp_path / "out")
        assert after.channel_names == before.channel_names
        same_voxels(before, after)

    def test_forms_agree_for_programs_that_prefer_either(self, source, tmp_path):
        convert(source, tmp_path / "out")
        header = nib.load(tmp_path / "out" / "imagesTr" / "case-0_0000.nii.gz").header
        assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
        np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-4)

    @pytest.mark.parametrize(("shear", "told"), [(1e-5, None), (1e-3, "got the nearest grid"), (0.4, "were resampled")])
    def test_axes_are_written_at_right_angles(self, write_nnunet_cohort, tmp_path, shear, told):
        sitk = pytest.importorskip("SimpleITK")
        sheared = AFFINE.copy()
        sheared[0, 1] += shear
        voxels, labelled = case(0)
        cohort = write_nnunet_cohort({"a": (voxels, labelled)}, labels=LABELS, affine=sheared)
        if told:
            with pytest.warns(CohortWarning, match=f"1 case.s. with axes that are not at right angles {told}.*: a$"):
                convert(cohort, tmp_path / "out")
        else:
            convert(cohort, tmp_path / "out")
        files = [tmp_path / "out" / name for name in ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")]
        image, label = (sitk.ReadImage(str(file)) for file in files)
        assert image.GetSize() == label.GetSize()
        assert (image.GetOrigin(), image.GetDirection()) == (label.GetOrigin(), label.GetDirection())
        sizes = sorted(np.linalg.norm(sheared[:3, :3], axis=0))
        assert sorted(image.GetSpacing()) == pytest.approx(sizes, rel=1e-5)
        header = nib.load(files[0]).header
        assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
        np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-4)
        assert not check(scan(tmp_path / "out")).errors
        # Where it says that voxels lie: those of structure 1, on the whole.
        index = np.argwhere(labelled == 1).mean(axis=0)
        found = np.argwhere(sitk.GetArrayFromImage(label).T == 1).mean(axis=0)
        place = np.array(label.TransformContinuousIndexToPhysicalPoint(found.tolist())) * [-1, -1, 1]
        np.testing.assert_allclose(place, sheared[:3, :3] @ index + sheared[:3, 3], atol=0.3 if shear > 0.1 else 0.01)

    def test_resampled_intensities_stay_with_their_structures(self, write_nnunet_cohort, tmp_path):
        sheared = np.diag([1.0, 1.0, 1.0, 1.0])
        sheared[0, 1] = 0.3
        labelled = np.zeros((20, 20, 6), np.uint8)
        labelled[6:14, 6:14, 1:5] = 1
        with pytest.warns(CohortWarning, match="were resampled"):
            convert(write_nnunet_cohort({"a": (100.0 * labelled, labelled)}, affine=sheared), tmp_path / "out")
        volume = read_cohort(tmp_path / "out").cases[0].load()
        assert volume.label.sum() == pytest.approx(labelled.sum(), rel=0.05)
        assert np.mean((volume.image[0] > 50) == (volume.label == 1)) > 0.99
        assert volume.image.min() == 0

    def test_a_name_that_no_file_system_takes(self, source, tmp_path):
        with pytest.raises(
            LossevoError, match=r"n{300}: cannot be written \(File name too long\); give another folder"
        ):
            convert(source, tmp_path / ("n" * 300))

    def test_description(self, source, tmp_path):
        convert(source, tmp_path / "out", name="Mine", labels=label_scheme("separate", "L1-L2"))
        assert description(tmp_path / "out") == {
            "channel_names": {"0": "channel 0"},
            "labels": {"background": 0, "L1": 1, "L2": 2},
            "numTraining": 6,
            "file_ending": ".nii.gz",
            "subjects": {f"case-{number}": f"case {number}" for number in range(6)},
            "name": "Mine",
            "converted_from": f"nnunet: {source}",
        }
        assert not (tmp_path / "out" / "splits_final.json").exists()

    def test_merged_labels(self, source, tmp_path):
        convert(source, tmp_path / "out", labels=label_scheme("merged"))
        assert description(tmp_path / "out")["labels"] == {"background": 0, "foreground": 1}
        label = np.asarray(nib.load(tmp_path / "out" / "labelsTr" / "case-0.nii.gz").dataobj)
        assert np.unique(label).tolist() == [0, 1]
        assert np.count_nonzero(label) == np.count_nonzero(case(0)[1])

    @pytest.mark.parametrize(
        ("values", "kind"),
        [
            ([0, 255], "uint8"),
            ([-1, 300], "int16"),
            ([0, 60000], "uint16"),
            ([-9, 90000], "int32"),
            ([0, 0.5], "float32"),
        ],
    )
    def test_intensities_keep_their_values_in_the_smallest_type(self, write_nnunet_cohort, tmp_path, values, kind):
        voxels = np.resize(np.array(values, np.float64), SHAPE)
        convert(
            write_nnunet_cohort({"a": (voxels, (case(0)[1] > 0).astype(np.uint8))}),
            tmp_path / "out",
        )
        written = nib.load(tmp_path / "out" / "imagesTr" / "a_0000.nii.gz")
        assert written.get_data_dtype() == np.dtype(kind)
        assert sorted(np.unique(written.dataobj).tolist()) == sorted(values)

    def test_channels_become_files(self, write_nnunet_cohort, tmp_path):
        voxels, label = case(0)
        label = (label > 0).astype(np.uint8)
        convert(write_nnunet_cohort({"a": (np.stack([voxels, -voxels]), label)}), tmp_path / "out")
        first, second = (
            np.asarray(nib.load(tmp_path / "out" / "imagesTr" / f"a_000{channel}.nii.gz").dataobj) for channel in (0, 1)
        )
        np.testing.assert_array_equal(first, -second)


class TestSplits:
    """nnU-Net draws folds over cases; a patient's cases must not part."""

    def test_patients_whose_cases_are_named_as_of_another(self, write_nnunet_cohort, tmp_path):
        named = write_nnunet_cohort(
            {f"sub-1_ses-{number}": case(number) for number in range(3)},
            labels=LABELS,
        )
        described = {f"sub-1_ses-{number}": f"sub-1_ses-{number}" for number in range(3)}
        describe(named, subjects=described)
        with pytest.warns(CohortWarning):
            convert(named, tmp_path / "out")
        assert description(tmp_path / "out")["subjects"] == described

    def test_patients_with_several_cases_get_folds_of_their_own(self, source, tmp_path):
        of = {f"case {number}": f"patient {number % 3}" for number in range(6)}
        describe(source, subjects=of)
        convert(source, tmp_path / "out")
        folds = read_splits(tmp_path / "out" / "splits_final.json")
        assert len(folds) == 3
        patient = {case_id.replace(" ", "-"): subject for case_id, subject in of.items()}
        for fold in folds:
            assert sorted(fold.train + fold.val) == sorted(patient)
            assert {patient[name] for name in fold.train}.isdisjoint(patient[name] for name in fold.val)
        assert read_cohort(tmp_path / "out").subjects == ("patient 0", "patient 1", "patient 2")

    def test_folds_of_the_source_are_kept(self, source, tmp_path):
        datalist = source / "datalist.json"
        write_datalist(datalist, folds=[0, 0, 1, 1, 2, 2])
        convert(datalist, tmp_path / "out")
        folds = read_splits(tmp_path / "out" / "splits_final.json")
        assert [len(fold.val) for fold in folds] == [2, 2, 2]

    def test_folds_that_part_a_patient_are_refused(self, source, tmp_path):
        datalist = source / "datalist.json"
        write_datalist(datalist, folds=[0, 1, 0, 1, 0, 1], subjects=["p", "p", "q", "r", "s", "t"])
        with pytest.raises(LossevoError, match=r"fold 0 trains and tests on the same 1 subject\(s\): p"):
            convert(datalist, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def write_datalist(file: Path, folds: list[int], subjects: list[str] | None = None) -> None:
    entries = [
        {
            "image": f"imagesTr/case {number}_0000.nii.gz",
            "label": f"labelsTr/case {number}.nii.gz",
            "fold": fold,
            **({"subject": subjects[number]} if subjects else {}),
        }
        for number, fold in enumerate(folds)
    ]
    labels = {"0": "background", "1": "L1", "2": "L2", "3": "canal"}
    file.write_text(json.dumps({"modality": {"0": "MRI"}, "labels": labels, "training": entries}))


class TestOtherLayouts:
    """What comes as MetaImage or DICOM, several series of a patient, a mask per structure."""

    def test_series_of_a_patient(self, tmp_path):
        pytest.importorskip("SimpleITK")
        source = tmp_path / "SPIDER"
        for number, name in enumerate(("1_t1", "1_t2", "2_t2", "7_t1", "7_t2_SPACE")):
            write_itk(source / "images" / f"{name}.mha", image(number), SAGITTAL)
            write_itk(source / "masks" / f"{name}.mha", label(1, 2, 100, 201, seed=number), SAGITTAL)
        assert not check(scan(source)).errors
        cohort = convert(source, tmp_path / "out", labels=label_scheme("separate", "L4-L5"))
        assert description(tmp_path / "out")["subjects"] == {case.case_id: case.subject for case in cohort.cases}
        assert read_cohort(tmp_path / "out").subjects == ("1", "2", "7")
        folds = read_splits(tmp_path / "out" / "splits_final.json")
        assert sorted(fold.val for fold in folds) == [("1_t1", "1_t2"), ("2_t2",), ("7_t1", "7_t2_SPACE")]
        same_voxels(cohort, read_cohort(tmp_path / "out"))

    def test_dicom_and_masks(self, tmp_path):
        pytest.importorskip("SimpleITK")
        pytest.importorskip("pydicom")
        source = tmp_path / "Myo"
        for subject in ("01", "02"):
            folder = source / subject / "vertebrae"
            for number, contrast in enumerate(("WATER", "FAT", "FATFRACTION", "T2star", "B0")):
                write_multiframe(folder / f"{contrast}.dcm", image(10 * int(subject) + number), SAGITTAL)
            for number in range(1, 6):
                mask = (label(1, 2, 3, 4, 5, seed=int(subject)) == number).astype(np.uint8)
                write_itk(folder / f"L{number}_{subject}.mha", mask, SAGITTAL)
        assert not check(scan(source)).errors
        cohort = convert(source, tmp_path / "out")
        assert list(description(tmp_path / "out")["channel_names"].values()) == list(cohort.channel_names)
        assert len([*(tmp_path / "out" / "imagesTr").iterdir()]) == 2 * 5
        assert not check(scan(tmp_path / "out")).errors
        same_voxels(cohort, read_cohort(tmp_path / "out"))


def same_voxels(before: Cohort, after: Cohort) -> None:
    assert after.class_names == before.class_names
    for one, two in zip(before.cases, after.cases, strict=True):
        stored, written = one.load(), two.load()
        np.testing.assert_array_equal(written.image, stored.image)
        np.testing.assert_array_equal(written.label, stored.label)
        assert written.spacing_mm == pytest.approx(stored.spacing_mm, rel=1e-5)


class TestWholeOrNotAtAll:
    def test_a_fault_in_the_last_case_leaves_nothing(self, source, tmp_path):
        broken = source / "labelsTr" / "case 5.nii.gz"
        broken.write_bytes(broken.read_bytes()[:-30])
        with pytest.raises(LossevoError, match=r"case 5\.nii\.gz"):
            convert(source, tmp_path / "out")
        assert [file.name for file in tmp_path.iterdir()] == ["source"]

    def test_a_full_disk(self, source, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("nibabel.save", full)
        with pytest.raises(LossevoError, match=r"out: cannot be written \(No space left on device\)"):
            convert(source, tmp_path / "out")
        assert [file.name for file in tmp_path.iterdir()] == ["source"]

    def test_a_folder_in_use_is_refused_and_an_empty_one_is_not(self, source, tmp_path):
        (tmp_path / "out").mkdir()
        convert(source, tmp_path / "out")
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(LossevoError, match=r"out: exists already; nothing is overwritten, give another folder"):
            convert(source, tmp_path / "out")
        assert sorted(tmp_path.rglob("*")) == before

    def test_names_that_would_collide(self, write_nnunet_cohort, tmp_path):
        folder = write_nnunet_cohort({"a b": case(0), "a-b": case(1)}, labels={"background": 0, "a": 1, "b": 2, "c": 3})
        with pytest.raises(LossevoError, match="cases a b and a-b would both be called a-b"):
            convert(folder, tmp_path / "out")


def test_a_generated_cohort_lies_around_the_origin(tmp_path):
    cohort = phantom_cohort(cases=2, seed=3, spacing_mm=(8.0, 8.0, 8.0))
    write_generated(cohort, tmp_path / "out", description={"name": "phantom"})
    written = read_cohort(tmp_path / "out")
    assert written.class_names == cohort.class_names
    for drawn, read in zip(cohort.cases, written.cases, strict=True):
        volume, stored = drawn.load(), read.load()
        np.testing.assert_array_equal(stored.label, volume.label)
        np.testing.assert_array_equal(stored.image, volume.image)
    affine = nib.load(next((tmp_path / "out" / "labelsTr").iterdir())).affine
    centre = affine @ [*((size - 1) / 2 for size in volume.label.shape), 1]
    np.testing.assert_allclose(centre[:3], 0, atol=1e-5)
    assert dataclasses.replace(cohort, cases=()).channel_names == written.channel_names
