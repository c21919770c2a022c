from __future__ import annotations

import numpy as np
import pytest

from lossevo.data import CohortWarning, LabelScheme, read_cohort
from lossevo.data.readers import scan
from lossevo.data.readers.spine_generic import LABEL_NAMES
from lossevo.data.scan import Severity
from lossevo.errors import LossevoError
from tests.data.readers.volumes import ANNEX_POINTER, image, label, write_nifti

CORD = label(1, seed=5)
CANAL = np.maximum(CORD, label(1, seed=6))
SPINE = label(11, 12, 50, 63, 100, seed=7)


def anat(root, subject: str, name: str):
    return root / subject / "anat" / f"{subject}_{name}.nii.gz"


@pytest.fixture
def spine_generic(tmp_path):
    """Two subjects with cord and canal in T2w, the first with vertebrae too, the second with cord in T2star."""
    labels = tmp_path / "derivatives" / "labels"
    for seed, subject in enumerate(("sub-amu01", "sub-unf02")):
        for contrast in ("T1w", "T2w", "T2star"):
            write_nifti(anat(tmp_path, subject, contrast), image(seed))
        write_nifti(anat(labels, subject, "T2w_label-canal_seg"), CANAL)
        write_nifti(anat(labels, subject, "T2w_label-discs_dlabel"), label(1, 2, 3))
        write_nifti(anat(labels, subject, "T2w_label-rootlets_dseg"), label(2, 3, 4))
    write_nifti(anat(labels, "sub-amu01", "T2w_label-SC_seg"), CORD)
    write_nifti(anat(labels, "sub-amu01", "T2w_label-spine_dseg"), SPINE)
    write_nifti(anat(labels, "sub-unf02", "T2w_seg-manual"), CORD)  # the older name
    write_nifti(anat(labels, "sub-unf02", "T2star_label-SC_seg"), CORD)
    (tmp_path / "dataset_description.json").write_text('{"Name": "data-multi-subject", "BIDSVersion": "1.9.0"}')
    anat(labels, "sub-amu01", "T2w_label-SC_seg").with_suffix("").with_suffix(".json").write_text("{}")
    return tmp_path


def cases(cohort):
    return [(case.case_id, case.subject) for case in cohort.cases]


def test_the_table_of_totalspineseg():
    names = [LABEL_NAMES[value] for value in (11, 17, 21, 32, 41, 46, 50, 63, 67, 71, 82, 91, 95, 100)]
    assert names == [
        "C1", "C7", "T1", "T12", "L1", "L6", "sacrum", "disc C2-C3", "disc C6-C7", "disc C7-T1", "disc T11-T12",
        "disc T12-L1", "disc L4-L5", "disc L5-S1",
    ]  # fmt: skip
    assert len(set(LABEL_NAMES.values())) == len(LABEL_NAMES)


def test_contrasts_are_cases_of_one_subject(spine_generic, detected, codes):
    found = detected("spine-generic", spine_generic)
    assert codes(found) == []
    assert codes(found, Severity.WARNING) == ["missing-label"]
    assert "3 images without label (sub-amu01_T1w.nii.gz, …) are left out" in found.problems[0].message
    assert [(case.case_id, len(case.labels)) for case in found.cases] == [
        ("sub-amu01_T2w", 3), ("sub-unf02_T2star", 1), ("sub-unf02_T2w", 2),
    ]  # fmt: skip


def test_a_case_takes_part_in_what_it_has_labels_for(spine_generic):
    both = [("sub-amu01_T2w", "sub-amu01"), ("sub-unf02_T2w", "sub-unf02")]
    cord = read_cohort(spine_generic, labels=LabelScheme(classes={"cord": ["cord"]}))
    assert cases(cord) == [both[0], ("sub-unf02_T2star", "sub-unf02"), both[1]]
    for case in cord.cases:
        np.testing.assert_array_equal(case.load().label, CORD)
    canal = read_cohort(spine_generic, labels=LabelScheme(classes={"canal": ["canal"], "cord": ["cord"]}))
    assert cases(canal) == both
    # The cord lies in the canal, and wins.
    np.testing.assert_array_equal(canal.cases[1].load().label, np.where(CORD, 2, CANAL))
    # Whole, also where a mask of the cord, which is not wanted, would cut a hole into it.
    for case in read_cohort(spine_generic, labels=LabelScheme(classes={"canal": ["canal"]})).cases:
        np.testing.assert_array_equal(case.load().label, CANAL)
    vertebrae = read_cohort(spine_generic, labels=LabelScheme(levels="C1-C7"))
    assert cases(vertebrae) == both[:1]


def test_labels_of_images_made_of_others_are_left_out(spine_generic, codes):
    """As the data set really lies: the average of the diffusion series, and a T1w of another space, are not in it."""
    labels = spine_generic / "derivatives" / "labels"
    dwi = image(3, (*CORD.shape, 5))
    write_nifti(spine_generic / "sub-amu01/dwi/sub-amu01_dwi.nii.gz", dwi)
    write_nifti(labels / "sub-amu01/dwi/sub-amu01_rec-average_dwi_label-SC_seg.nii.gz", CORD)
    write_nifti(anat(labels, "sub-amu01", "T1w_label-SC_seg"), CORD)
    write_nifti(anat(labels, "sub-amu01", "space-other_T1w_label-SC_seg"), CANAL)
    found = scan(spine_generic)
    assert codes(found) == []
    assert codes(found, Severity.WARNING) == ["other-image", "other-image", "missing-label"]
    assert "has its space-other" in found.problems[0].message
    assert "has its rec-average" in found.problems[1].message
    with pytest.warns(CohortWarning, match=r"has its space-other \(and 1 more; 'lossevo data check' lists them\)"):
        cohort = read_cohort(spine_generic, labels=LabelScheme(classes={"cord": ["cord"]}))
    assert [case.case_id for case in cohort.cases if case.subject == "sub-amu01"] == ["sub-amu01_T1w", "sub-amu01_T2w"]
    for case in cohort.cases:
        np.testing.assert_array_equal(case.load().label, CORD)


def test_a_series_in_4d_is_left_out(spine_generic, codes):
    labels = spine_generic / "derivatives" / "labels"
    write_nifti(spine_generic / "sub-amu01/dwi/sub-amu01_dwi.nii.gz", image(3, (*CORD.shape, 5)))
    write_nifti(labels / "sub-amu01/dwi/sub-amu01_dwi_label-SC_seg.nii.gz", CORD)
    found = scan(spine_generic)
    assert (codes(found), codes(found, Severity.WARNING)) == ([], ["series", "missing-label"])
    assert "sub-amu01_dwi.nii.gz: a series in 4D, expected one volume" in found.problems[0].message
    assert "3 images without label" in found.problems[1].message
    assert len(found.cases) == 3


def test_of_an_older_and_a_newer_name_the_newer_counts(spine_generic, codes):
    write_nifti(anat(spine_generic / "derivatives" / "labels", "sub-amu01", "T2w_seg-manual"), CANAL)
    found = scan(spine_generic)
    assert (codes(found), codes(found, Severity.WARNING)) == ([], ["older-label", "missing-label"])
    with pytest.warns(CohortWarning, match=r"T2w_seg-manual.nii.gz: left out, as sub-amu01_T2w_label-SC_seg.nii.gz is"):
        cohort = read_cohort(spine_generic, labels=LabelScheme(classes={"cord": ["cord"]}))
    np.testing.assert_array_equal(cohort.cases[0].load().label, CORD)


def test_two_labels_of_the_same_kind(spine_generic, codes):
    other = "T2w_desc-rater2_label-SC_seg"
    write_nifti(anat(spine_generic / "derivatives" / "labels", "sub-amu01", other), CANAL)
    found = scan(spine_generic)
    assert codes(found) == ["ambiguous-label"]
    assert "they differ in" in found.problems[0].message
    assert len(found.cases[0].labels) == 3


def test_what_no_case_has(spine_generic):
    labels = spine_generic / "derivatives" / "labels"
    anat(labels, "sub-amu01", "T2w_label-canal_seg").unlink()
    with pytest.raises(
        LossevoError, match=r"no case has all structures wanted annotated \(cord in 3, canal in 1, C1 in "
    ):
        read_cohort(spine_generic)


def test_pointers_of_git_annex(spine_generic):
    file = anat(spine_generic, "sub-amu01", "T2w")
    file.unlink()
    file.symlink_to("../../.git/annex/objects/ab/cd/SHA256E-s1--0.nii.gz/SHA256E-s1--0.nii.gz")
    assert len(scan(spine_generic).cases) == 3
    with pytest.raises(LossevoError, match=rf"T2w\.nii\.gz: .* fetch it with: git annex get '{file}'"):
        read_cohort(spine_generic, labels=LabelScheme(classes={"cord": ["cord"]})).cases[0].load()
    file.unlink()
    file.write_text(ANNEX_POINTER)
    with pytest.raises(LossevoError, match="git annex get"):
        read_cohort(spine_generic, labels=LabelScheme(classes={"cord": ["cord"]})).cases[0].load()


def test_a_mask_on_another_grid_than_its_image(spine_generic):
    labels = spine_generic / "derivatives" / "labels"
    write_nifti(anat(labels, "sub-amu01", "T2w_label-SC_seg"), CORD, np.diag([2.0, 1, 1, 1]))
    with pytest.raises(LossevoError, match="its affine places voxels up to 3 mm away"):
        read_cohort(spine_generic, labels=LabelScheme(classes={"cord": ["cord"]})).cases[0].load()


def test_a_label_of_an_image_that_is_not_there(spine_generic, codes):
    anat(spine_generic, "sub-amu01", "T2w").unlink()
    assert codes(scan(spine_generic)) == ["missing-image"] * 3
