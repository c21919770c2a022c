"""Which format a data set is in: recognised by its layout, or the message says what was looked for and found."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossevo.data import read_cohort
from lossevo.data.readers import FORMATS, scan
from lossevo.errors import LossevoError
from tests.data.readers.volumes import image, label, write_nifti

KEYS = ("labels", "channel_names", "modality", "file_ending", "numTraining", "dataset", "subjects", "training",
        "validation", "image", "images", "label", "fold", "subject", "case")  # fmt: skip


@pytest.fixture
def cohort_folder(write_nnunet_cohort):
    return write_nnunet_cohort({"a": (image(), label(1)), "b": (image(1), label(1))})


def test_nothing_known(tmp_path):
    (tmp_path / "notes.txt").touch()
    write_nifti(tmp_path / "images" / "a.nii.gz", image())
    with pytest.raises(LossevoError, match=r"no known layout .* Found 1 \.txt, 1 folder\(s\) \(images\)\.") as caught:
        scan(tmp_path)
    said = str(caught.value)
    assert all(f"{reader.name}: {reader.summary}" in said for reader in FORMATS.values())
    assert "--format" in said
    assert "\n" not in said


def test_a_folder_of_data_sets(cohort_folder):
    (cohort_folder.parent / "other").mkdir()
    with pytest.raises(LossevoError, match=r"no data set itself, but cohort \(nnunet\) in it; give one of them"):
        scan(cohort_folder.parent)


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "a\\b", "a\nb"])
def test_names_of_cases_that_are_no_names_of_files(cohort_folder, name):
    description = json.loads((cohort_folder / "dataset.json").read_text())
    listed = {name: {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}}
    (cohort_folder / "dataset.json").write_text(json.dumps(description | {"dataset": listed, "numTraining": 1}))
    with pytest.raises(LossevoError, match=r"a case is called .*; expected a name without slashes"):
        scan(cohort_folder)


def test_archives_not_yet_unpacked(tmp_path):
    for number in range(1, 4):
        (tmp_path / f"{number:02d}.zip").touch()
    with pytest.raises(LossevoError, match=r"Found 3 \.zip; unpack the archives first\."):
        scan(tmp_path)


def test_an_empty_folder_and_none(tmp_path):
    with pytest.raises(LossevoError, match="Found nothing"):
        scan(tmp_path)
    with pytest.raises(LossevoError, match="absent: no such folder or file"):
        scan(tmp_path / "absent")


def test_an_unknown_format(tmp_path):
    with pytest.raises(
        LossevoError, match=r"unknown format 'spyder' \(did you mean 'spider'\?\); known: nnunet, datalist"
    ):
        scan(tmp_path, format="spyder")


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_says_what_is_wrong_with_an_empty_folder(tmp_path, format):
    with pytest.raises(LossevoError, match=str(tmp_path)):
        read_cohort(tmp_path, format=format)


def test_two_layouts_in_one_folder_need_a_choice(cohort_folder):
    (cohort_folder / "list.csv").write_text("subject,image,label\na,imagesTr/a_0000.nii.gz,labelsTr/a.nii.gz\n")
    with pytest.raises(LossevoError, match=r"may be nnunet \(.*\), manifest \(.*\); say which with --format"):
        scan(cohort_folder)
    assert len(scan(cohort_folder, format="nnunet").cases) == 2
    assert len(scan(cohort_folder, format="manifest").cases) == 1


def test_a_folder_within_a_folder_within_a_folder(cohort_folder):
    outer = cohort_folder.parent / "unpacked" / "Dataset001_X"
    outer.mkdir(parents=True)
    cohort_folder.rename(outer / "Dataset001_X")
    (outer / "__MACOSX").mkdir()
    (outer / ".DS_Store").touch()
    for format in (None, "nnunet"):
        found = scan(outer.parent, format=format)
        assert (found.format, found.folder) == ("nnunet", outer / "Dataset001_X")


def test_cases_know_their_files_and_how_they_are_read(cohort_folder):
    cohort = pickle.loads(pickle.dumps(read_cohort(cohort_folder)))
    assert [case.files.images[0].name for case in cohort.cases] == ["a_0000.nii.gz", "b_0000.nii.gz"]
    first, second = (case.reading for case in cohort.cases)
    assert first == second
    assert str(cohort_folder) not in first


# Descriptions and lists are written by anybody: whatever they hold, the message is one line.

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(["a.nii.gz", "0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner),
    max_leaves=8,
)

listings = st.lists(st.dictionaries(st.sampled_from(KEYS[-6:]), junk, min_size=2), max_size=3)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(KEYS), junk | listings, max_size=3), st.sampled_from(["nnunet", "datalist"]))
def test_any_description(document, format):
    with TemporaryDirectory() as folder:
        for name in ("imagesTr", "labelsTr"):
            (Path(folder) / name).mkdir()
        (Path(folder) / "a.nii.gz").touch()
        valid = {"labels": {"background": 0, "L1": 1}, "channel_names": {"0": "T2"}, "numTraining": 0}
        (Path(folder) / "dataset.json").write_text(json.dumps(valid | document))
        refused_in_one_line(folder, format)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.binary(max_size=20) | st.text(alphabet='a,;"\n\x00.é', max_size=30).map(str.encode))
def test_any_list(content):
    with TemporaryDirectory() as folder:
        (Path(folder) / "list.csv").write_bytes(b"subject,image,label,fold\n" + content)
        refused_in_one_line(folder, "manifest")


def refused_in_one_line(folder, format):
    try:
        found = scan(folder, format=format)
    except LossevoError as problem:
        messages = [str(problem)]
    else:
        messages = [problem.message for problem in found.problems]
    assert not any("\n" in message for message in messages)


@pytest.mark.cohort
@pytest.mark.parametrize(("name", "cases", "labels"), [("myosegmentum", 38, 5), ("vb2", 17, 1)])
def test_real_cohorts(real_cohorts, name, cases, labels):
    found = scan(real_cohorts / name)
    assert (found.format, found.problems, len(found.cases)) == ("nnunet", (), cases)
    assert len(found.label_names) == labels
