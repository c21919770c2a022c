from __future__ import annotations

import numpy as np
import pytest

from lossevo.data import LabelScheme, read_cohort
from lossevo.data.readers import scan
from lossevo.data.readers.mrspineseg import LABEL_NAMES
from tests.data.readers.volumes import image, label, write_nifti


@pytest.fixture
def mrspineseg(tmp_path):
    root = tmp_path / "MRSpineSeg_Challenge_SMU" / "train"
    for number in (2, 10, 100):
        write_nifti(root / "MR" / f"Case{number}.nii.gz", image(number))
        write_nifti(root / "Mask" / f"mask_case{number}.nii.gz", label(1, 2, 6, 11, seed=number))
    return tmp_path


def test_the_table():
    assert [LABEL_NAMES[value] for value in (1, 2, 6, 7, 10)] == ["sacrum", "L5", "L1", "T12", "T9"]
    assert [LABEL_NAMES[value] for value in (11, 12, 15, 16, 19)] == [
        "disc L5-S1", "disc L4-L5", "disc L1-L2", "disc T12-L1", "disc T9-T10",
    ]  # fmt: skip
    assert sorted(LABEL_NAMES) == [*range(1, 20)]


@pytest.mark.parametrize("inside", [".", "MRSpineSeg_Challenge_SMU", "MRSpineSeg_Challenge_SMU/train"])
def test_wherever_one_points(mrspineseg, detected, codes, inside):
    found = detected("mrspineseg", mrspineseg / inside)
    assert codes(found) == []
    assert [case.case_id for case in found.cases] == ["Case2", "Case10", "Case100"]


def test_voxels(mrspineseg):
    cohort = read_cohort(mrspineseg, labels=LabelScheme(levels="L5-S1"))
    assert cohort.class_names == ("background", "vertebra")
    volume = cohort.cases[0].load()
    np.testing.assert_array_equal(volume.label, np.isin(label(1, 2, 6, 11, seed=2), [1, 2]))
    np.testing.assert_array_equal(volume.image[0], image(2))


def test_two_files_of_one_number(mrspineseg, codes):
    root = mrspineseg / "MRSpineSeg_Challenge_SMU" / "train"
    write_nifti(root / "MR" / "Case02.nii.gz", image(7))
    write_nifti(root / "Mask" / "mask_case02.nii.gz", label(1, seed=7))
    found = scan(mrspineseg)
    assert codes(found) == ["duplicate-case"] * 2
    assert "MR/Case2.nii.gz: the same number as Case02.nii.gz; rename or remove one" in found.problems[0].message


def test_missing_files(mrspineseg, codes):
    root = mrspineseg / "MRSpineSeg_Challenge_SMU" / "train"
    (root / "Mask" / "mask_case2.nii.gz").unlink()
    (root / "MR" / "Case10.nii.gz").unlink()
    assert codes(scan(mrspineseg)) == ["missing-label", "missing-image"]
