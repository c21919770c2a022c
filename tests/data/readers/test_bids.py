from __future__ import annotations

import numpy as np
import pytest

from lossevo.data import CohortWarning, LabelScheme, read_cohort
from lossevo.data.readers import scan
from lossevo.data.scan import Severity
from lossevo.errors import LossevoError
from tests.data.readers.volumes import image, label, write_nifti

TABLE = "index\tname\tabbreviation\n0\tbackground\tBG\n1\tL1\tL1\n2\tL2\tL2\n"


@pytest.fixture
def bids(tmp_path):
    """One subject with two sessions, another with two contrasts."""
    manual = tmp_path / "derivatives" / "manual"
    for name in ("sub-01/ses-a/anat/sub-01_ses-a", "sub-01/ses-b/anat/sub-01_ses-b", "sub-02/anat/sub-02"):
        write_nifti(tmp_path / f"{name}_T2w.nii.gz", image(len(name)))
    write_nifti(tmp_path / "sub-02/anat/sub-02_T1w.nii.gz", image(9))
    write_nifti(manual / "sub-01/ses-a/anat/sub-01_ses-a_desc-final_dseg.nii.gz", label(1, 2, seed=1))
    write_nifti(manual / "sub-01/ses-b/anat/sub-01_ses-b_dseg.nii.gz", label(1, 2, seed=2))
    write_nifti(manual / "sub-02/anat/sub-02_space-T2w_dseg.nii.gz", label(1, 2, seed=3))
    (manual / "dseg.tsv").write_text(TABLE)
    (manual / "dataset_description.json").write_text('{"DatasetType": "derivative"}')
    return tmp_path


def test_sessions_of_a_subject_stay_together(bids, detected, codes):
    found = detected("bids", bids)
    assert codes(found) == []
    assert "1 images without segmentation (sub-02_T1w.nii.gz, …) are left out" in found.problems[0].message
    assert [(case.case_id, case.subject) for case in found.cases] == [
        ("sub-01_ses-a_T2w", "sub-01"),
        ("sub-01_ses-b_T2w", "sub-01"),
        ("sub-02_T2w", "sub-02"),
    ]
    assert found.label_names == {1: "L1", 2: "L2"}
    volume = read_cohort(bids).cases[2].load()
    np.testing.assert_array_equal(volume.label, label(1, 2, seed=3))


def test_the_nearest_table_counts_and_tables_agree(bids, codes):
    table = bids / "derivatives/manual/sub-02/anat/sub-02_space-T2w_dseg.tsv"
    table.write_text(TABLE.replace("L2\t", "disc\t"))
    assert codes(scan(bids)) == ["contradicting-names"]
    table.write_text(TABLE + "3\tcanal\tSC\n")
    assert scan(bids).label_names == {1: "L1", 2: "L2", 3: "canal"}


def test_without_table_the_maps_tell_their_values(bids, codes):
    (bids / "derivatives/manual/dseg.tsv").unlink()
    assert scan(bids).label_names == {1: "label 1", 2: "label 2"}
    (bids / "derivatives/manual/sub-02/anat/sub-02_space-T2w_dseg.nii.gz").write_bytes(b"")
    assert codes(scan(bids)) == ["unreadable-label"]


def test_a_segmentation_in_two_formats_is_ambiguous(bids, codes):
    folder = bids / "derivatives/manual/sub-02/anat"
    write_nifti(folder / "sub-02_space-T2w_dseg.nii", label(2))
    found = scan(bids)
    assert codes(found) == ["ambiguous-label"]
    assert "the same segmentation as sub-02_space-T2w_dseg.nii, in another format" in found.problems[0].message


def test_two_raters_are_not_drawn_over_each_other(bids, codes):
    folder = bids / "derivatives/manual/sub-01/ses-a/anat"
    first = folder / "sub-01_ses-a_desc-final_dseg.nii.gz"
    write_nifti(folder / "sub-01_ses-a_desc-rater2_dseg.nii.gz", label(1, 2, seed=8))
    found = scan(bids)
    assert codes(found) == ["ambiguous-label"]
    assert "desc-rater2_dseg.nii.gz: a second segmentation of the same image beside" in found.problems[0].message
    assert f"{first} (they differ in desc-final, desc-rater2), and which counts" in found.problems[0].message
    assert [part.file for part in found.cases[0].labels] == [first]
    with pytest.raises(LossevoError, match="they differ in desc-final, desc-rater2"):
        read_cohort(bids)


def test_two_raters_masks_of_one_structure(bids, codes):
    for rater in (1, 2):
        for structure in ("L1", "L2"):
            name = f"sub-02_label-{structure}_desc-rater{rater}_mask.nii.gz"
            write_nifti(bids / "derivatives/manual/sub-02/anat" / name.replace("_label", "_T2w_label"), label(1))
    found = scan(bids)
    assert codes(found) == ["ambiguous-label"] * 2
    assert all("(they differ in desc-rater1, desc-rater2)" in problem.message for problem in found.problems[:2])
    assert len(found.cases[2].labels) == 3


def test_a_side_is_a_structure_of_its_own(bids, codes):
    for side in "LR":
        name = f"sub-02_T2w_hemi-{side}_label-psoas_mask.nii.gz"
        write_nifti(bids / "derivatives/manual/sub-02/anat" / name, label(1))
    found = scan(bids)
    assert not codes(found)
    drawn = {part.value for part in found.cases[2].labels if "psoas" in part.file.name}
    assert {found.label_names[value] for value in drawn} == {"psoas L", "psoas R"}


@pytest.mark.parametrize("foreign", ["space-MNI152", "res-2", "space-MNI152_res-2", "acq-mean"])
def test_a_segmentation_in_another_space_is_left_out(bids, codes, foreign):
    name = f"sub-01_ses-a_{foreign}_dseg.nii.gz"
    write_nifti(bids / "derivatives/manual/sub-01/ses-a/anat" / name, label(1, 2, 3, seed=8))
    found = scan(bids)
    assert (codes(found), codes(found, Severity.WARNING)) == ([], ["other-image", "missing-label"])
    assert f"{name}: left out, as no image in {bids} has its {foreign.replace('_', ' and ')}" in (
        found.problems[0].message
    )
    with pytest.warns(CohortWarning, match="left out, as no image"):
        cohort = read_cohort(bids)
    np.testing.assert_array_equal(cohort.cases[0].load().label, label(1, 2, seed=1))
    # Of an image in that space, it is the segmentation.
    write_nifti(bids / f"sub-01/ses-a/anat/sub-01_ses-a_{foreign}_T2w.nii.gz", image(8))
    assert len(scan(bids).cases) == 4


def test_a_segmentation_in_the_space_of_the_scanner_is_the_images(bids, codes):
    folder = bids / "derivatives/manual/sub-01/ses-b/anat"
    (folder / "sub-01_ses-b_dseg.nii.gz").rename(folder / "sub-01_ses-b_space-orig_dseg.nii.gz")
    found = scan(bids)
    assert (codes(found), len(found.cases)) == ([], 3)


def test_nothing_but_segmentations_in_another_space(tmp_path, codes):
    write_nifti(tmp_path / "sub-01/anat/sub-01_T2w.nii.gz", image())
    write_nifti(tmp_path / "derivatives/p/sub-01/anat/sub-01_space-MNI152_dseg.nii.gz", label(1))
    assert codes(scan(tmp_path)) == ["empty"]


def test_masks_are_drawn_over_maps(bids):
    mask = label(1, seed=8)
    write_nifti(bids / "derivatives/manual/sub-02/anat/sub-02_space-T2w_label-lesion_mask.nii.gz", mask)
    assert scan(bids).label_names == {1: "L1", 2: "L2", 3: "lesion"}
    cohort = read_cohort(bids)  # the cases without the mask say nothing of lesions
    assert [case.case_id for case in cohort.cases] == ["sub-02_T2w"]
    np.testing.assert_array_equal(cohort.cases[0].load().label, np.where(mask, 3, label(1, 2, seed=3)))
    assert len(read_cohort(bids, labels=LabelScheme(levels="L1-L2")).cases) == 3


def test_several_pipelines_need_a_choice(bids):
    other = bids / "derivatives" / "auto"
    write_nifti(other / "sub-02/anat/sub-02_T2w_desc-cord_mask.nii.gz", label(1))
    with pytest.raises(
        LossevoError, match=r"several pipelines .* \(derivatives/auto, derivatives/manual\); give the f"
    ):
        scan(bids)
    found = scan(other)
    assert (found.format, found.label_names) == ("bids", {1: "cord"})
    assert [case.case_id for case in found.cases] == ["sub-02_T2w"]
    assert len(scan(bids / "derivatives" / "manual").cases) == 3


def test_a_segmentation_that_fits_two_images_or_none(bids, codes):
    manual = bids / "derivatives/manual/sub-02/anat"
    (manual / "sub-02_space-T2w_dseg.nii.gz").rename(manual / "sub-02_dseg.nii.gz")
    found = scan(bids)
    assert codes(found) == ["ambiguous-label"]
    assert "2 images fit its name (sub-02_T1w.nii.gz, sub-02_T2w.nii.gz), expected one" in found.problems[0].message
    (manual / "sub-02_dseg.nii.gz").rename(manual / "sub-02_acq-x_FLAIR_desc-a_dseg.nii.gz")
    assert codes(scan(bids)) == ["missing-image"]
    assert codes(scan(bids), Severity.WARNING) == ["missing-label"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("value\tname\n1\tL1\n", "expected tab-separated columns index and name"),
        ("index,name\n1,L1\n", "expected tab-separated columns index and name"),
        ("index\tname\none\tL1\n", "with a whole number and a name in each line"),
        ("index\tname\n1\n", "with a whole number and a name in each line"),
        ("index\tname\n1\tL1\n1\tL2\n", "an index comes twice"),
        ("index\tname\n0\tbackground\n", "expected at least one structure, with an index above 0"),
    ],
)
def test_what_is_wrong_with_a_table(bids, content, message):
    (bids / "derivatives/manual/dseg.tsv").write_text(content)
    with pytest.raises(LossevoError, match=rf"dseg\.tsv: .*{message}"):
        scan(bids)
