from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lossevo.data import read_cohort
from lossevo.data.readers import scan
from lossevo.data.readers.table import subject_of
from lossevo.data.scan import Severity
from lossevo.errors import LossevoError
from tests.data.readers.volumes import SHAPE, image, label, write_nifti


def write_list(file, **document):
    file.write_text(json.dumps(document))


@pytest.fixture
def decathlon(tmp_path):
    """Medical Segmentation Decathlon: 4D images, names of label values, macOS twins."""
    root = tmp_path / "Task01_Spine"
    items = []
    for number in (3, 1, 20):
        write_nifti(root / "imagesTr" / f"SP_{number}.nii.gz", image(number, (*SHAPE, 2)))
        write_nifti(root / "labelsTr" / f"SP_{number}.nii.gz", label(1, 2, seed=number))
        (root / "imagesTr" / f"._SP_{number}.nii.gz").touch()
        items.append({"image": f"./imagesTr/SP_{number}.nii.gz", "label": f"./labelsTr/SP_{number}.nii.gz"})
    write_list(
        root / "dataset.json",
        name="Spine",
        tensorImageSize="4D",
        modality={"0": "T1", "1": "T2"},
        labels={"0": "background", "1": "L1", "2": "L2"},
        numTraining=3,
        numTest=1,
        training=items,
        test=["./imagesTs/SP_2.nii.gz"],
    )
    return root


@pytest.fixture
def monai(tmp_path):
    """A datalist with folds: channels in files of their own, no names of label values."""
    items = []
    for number in range(3):
        for channel in range(2):
            write_nifti(tmp_path / f"p{number}" / f"t{channel + 1}.nii.gz", image(10 * number + channel))
        write_nifti(tmp_path / f"p{number}" / "seg.nii.gz", label(1, 4, seed=number))
        images = [f"p{number}/t1.nii.gz", f"p{number}/t2.nii.gz"]
        items.append({"image": images, "label": f"p{number}/seg.nii.gz", "fold": number % 2})
    del items[2]["fold"]
    write_list(tmp_path / "folds.json", training=items, testing=[{"image": "x.nii.gz"}])
    return tmp_path


def test_decathlon(decathlon, detected, codes):
    found = detected("datalist", decathlon)
    assert codes(found) == codes(found, Severity.WARNING) == []
    assert found.channel_names == ("T1", "T2")
    cohort = read_cohort(decathlon)
    assert cohort.class_names == ("background", "L1", "L2")
    assert cohort.subjects == ("SP_1", "SP_20", "SP_3")
    volume = cohort.cases[0].load()
    np.testing.assert_array_equal(volume.image, np.moveaxis(image(1, (*SHAPE, 2)), -1, 0))
    assert cohort.cases[0].grid.shape == SHAPE
    np.testing.assert_array_equal(volume.label, label(1, 2, seed=1))


def test_monai_with_folds(monai, detected, codes):
    found = detected("datalist", monai)
    assert codes(found) == []
    assert [case.fold for case in found.cases] == [0, 1, None]
    assert [case.case_id for case in found.cases] == ["p0_t1", "p1_t1", "p2_t1"]
    assert (found.channel_names, found.label_names) == (("channel 0", "channel 1"), {1: "label 1", 4: "label 4"})
    cohort = read_cohort(monai)
    volume = cohort.cases[1].load()
    np.testing.assert_array_equal(volume.image, [image(10), image(11)])
    np.testing.assert_array_equal(volume.label, np.array([0, 1, 0, 0, 2])[label(1, 4, seed=1)])


def test_subjects_cases_and_the_validation_list(monai):
    items = json.loads((monai / "folds.json").read_text())["training"]
    items[0] |= {"subject": "patient", "case": "first"}
    items[1] |= {"subject": "patient"}
    write_list(monai / "folds.json", training=items[:1], validation=items[1:], labels={"background": 0, "a": 1, "b": 4})
    found = scan(monai / "folds.json")
    assert [(case.case_id, case.subject) for case in found.cases] == [
        ("first", "patient"),
        ("p1_t1", "patient"),
        ("p2_t1", "p2_t1"),
    ]
    assert found.label_names == {1: "a", 4: "b"}


def test_patients_that_paths_or_names_tell(tmp_path):
    paths = ["data/sub-01/ses-1/t2", "data/sub-01/ses-2/t2", "data/x_sub-02_a", "data/sub-02_b", "p/sub-xy-3", "p/sub"]
    for number, path in enumerate(paths):
        write_nifti(tmp_path / f"{path}.nii.gz", image(number))
        write_nifti(tmp_path / f"{path}.label.nii.gz", label(1, seed=number))
    items = [{"image": f"./{path}.nii.gz", "label": f"{path}.label.nii.gz"} for path in paths]
    items[0]["case"] = "first"  # a name that says nothing of the patient
    items[1]["image"] = str(tmp_path / items[1]["image"])
    write_list(tmp_path / "list.json", training=items)
    assert {case.case_id: case.subject for case in scan(tmp_path).cases} == {
        "first": "sub-01",
        "data_sub-01_ses-2_t2": "sub-01",
        "x_sub-02_a": "sub-02",
        "sub-02_b": "sub-02",
        "sub-xy-3": "sub-xy-3",
        "sub": "sub",
    }


def test_a_list_is_one_though_its_first_image_is_missing(decathlon, detected, codes):
    (decathlon / "imagesTr" / "SP_3.nii.gz").unlink()
    found = detected("datalist", decathlon)
    assert (codes(found), [case.case_id for case in found.cases]) == (["missing-image"], ["SP_1", "SP_20"])


def test_several_lists_need_a_choice(monai):
    (monai / "other.json").write_bytes((monai / "folds.json").read_bytes())
    with pytest.raises(LossevoError, match=r"2 datalists \(folds\.json, other\.json\); give one of the files"):
        scan(monai)
    assert scan(monai / "other.json").format == "datalist"


def test_what_is_wrong_with_a_list(monai, codes):
    items = json.loads((monai / "folds.json").read_text())["training"]
    absent = items[1] | {"label": "p1/absent.nii.gz"}
    other = items[2] | {"image": items[2]["image"][:1]}
    write_list(
        monai / "folds.json",
        training=[items[0], items[0], absent, other, {"image": "x"}, "y", items[1] | {"fold": "a"}],
    )
    found = scan(monai)
    assert codes(found) == [
        "invalid-item", "invalid-item", "invalid-item", "duplicate-case", "missing-label", "channel-count",
    ]  # fmt: skip
    assert "folds.json: training[4] is {'image': 'x'}, expected" in found.problems[0].message


def test_a_4d_image_of_another_number_of_channels(decathlon):
    write_nifti(decathlon / "imagesTr" / "SP_1.nii.gz", image(1, (*SHAPE, 3)))
    with pytest.raises(LossevoError, match=r"SP_1\.nii\.gz: 3 channels, expected 2 \(T1, T2\)"):
        read_cohort(decathlon).cases[0].load()
    write_nifti(decathlon / "imagesTr" / "SP_1.nii.gz", image(1))
    with pytest.raises(LossevoError, match=r"SP_1\.nii\.gz: shape .* expected 4D, with the channels last"):
        read_cohort(decathlon).cases[0].load()


def test_no_list_at_all(tmp_path):
    with pytest.raises(LossevoError, match="no JSON file with a list 'training'"):
        scan(tmp_path, format="datalist")


def test_a_folder_outside_the_list_s_is_nobody_s_name():
    image = Path("/elsewhere/sub-acute/p0.nii.gz")
    assert subject_of("p0", image, Path("/lists")) == "p0"
    assert subject_of("p0", image, Path("/elsewhere")) == "sub-acute"


@pytest.fixture
def elsewhere(decathlon, tmp_path):
    """The list of the decathlon in a folder of its own: its paths are relative to another base folder."""
    folder = tmp_path / "a" / "b" / "c" / "lists"
    folder.mkdir(parents=True)
    return Path((decathlon / "dataset.json").rename(folder / "spine.json"))


@pytest.mark.parametrize("name", ["spine.json", "dataset.json"])
@pytest.mark.parametrize("given", ["file", "folder"])
def test_a_list_of_files_below_another_base_folder(elsewhere, given, name):
    file = elsewhere.rename(elsewhere.with_name(name))
    with pytest.raises(LossevoError) as caught:
        read_cohort(file if given == "file" else file.parent)
    first = file.parent / "imagesTr" / "SP_3.nii.gz"
    told = str(caught.value)
    assert told.startswith(
        f"{first}: no such file, but {file} lists it (the first of 6 missing, of 6 files); paths are"
    )
    assert f"Tried {file.parent}, {file.parent.parent}, " in told
    assert told.endswith("Move the list, or correct it.")
    assert "\n" not in told


def test_where_the_files_of_a_list_are_is_told(elsewhere, decathlon):
    moved = elsewhere.rename(decathlon.parent / "spine.json")
    with pytest.raises(LossevoError, match=f"it lies in {decathlon}: move the list there, or correct it"):
        read_cohort(moved)
    (decathlon / "lists").mkdir()
    moved = moved.rename(decathlon / "lists" / "spine.json")
    with pytest.raises(LossevoError, match=f"it lies in {decathlon}: move the list there, or correct it"):
        read_cohort(moved)


def test_a_list_of_elsewhere_gives_way_to_the_data_set_it_lies_in(elsewhere, monai):
    elsewhere.rename(monai / "a.json")
    assert {case.case_id for case in scan(monai).cases} == {"p0_t1", "p1_t1", "p2_t1"}


def test_variables_are_not_expanded_in_a_list(monai, monkeypatch):
    monkeypatch.setenv("STORE", str(monai))
    items = json.loads((monai / "folds.json").read_text())["training"]
    write_list(monai / "folds.json", training=[items[0], {"image": "$STORE/x.nii.gz", "label": "p1/seg.nii.gz"}])
    with pytest.raises(LossevoError, match=r"x\.nii\.gz: no such file.*Variables are not expanded there"):
        read_cohort(monai)
