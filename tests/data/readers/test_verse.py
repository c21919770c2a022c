from __future__ import annotations

import numpy as np
import pytest

from lossevo.data import LabelScheme, read_cohort
from lossevo.data.readers import scan
from lossevo.data.readers.verse import LABEL_NAMES
from lossevo.data.scan import Severity
from tests.data.readers.volumes import SAGITTAL, image, in_ras, label, write_nifti

SCANS = ("sub-verse004", "sub-verse500_dir-ax", "sub-verse500_dir-sag", "sub-verse400_split-verse153")


def write_scan(root, case: str, seed: int = 0, affine=None, dtype=np.float64):
    subject = case.split("_")[0]
    write_nifti(root / "rawdata" / subject / f"{case}_ct.nii.gz", image(seed), affine)
    write_nifti(root / "derivatives" / subject / f"{case}_seg-vert_msk.nii.gz", label(7, 8, 20).astype(dtype), affine)
    (root / "derivatives" / subject / f"{case}_seg-subreg_ctd.json").write_text('[{"direction": ["P", "I", "R"]}]')
    (root / "derivatives" / subject / f"{case}_seg-vert_snp.png").touch()


@pytest.fixture
def verse(tmp_path):
    # Each scan is stored as it was acquired.
    for seed, (case, affine) in enumerate(zip(SCANS, (None, SAGITTAL, None, SAGITTAL), strict=True)):
        part = "dataset-verse19training" if seed < 3 else "dataset-verse19validation"
        write_scan(tmp_path / part, case, seed, affine)
    (tmp_path / "dataset-verse19training" / "rawdata" / "sub-verse009").mkdir()
    return tmp_path


def test_the_table():
    names = [LABEL_NAMES[value] for value in (1, 7, 8, 19, 20, 25, 26, 27, 28)]
    assert names == ["C1", "C7", "T1", "T12", "L1", "L6", "sacrum", "coccyx", "T13"]
    assert sorted(LABEL_NAMES) == [*range(1, 29)]


def test_scans_of_a_subject_stay_together(verse, detected, codes):
    found = detected("verse", verse)
    assert codes(found) == codes(found, Severity.WARNING) == []
    assert [(case.case_id, case.subject) for case in found.cases] == [
        ("sub-verse004_ct", "sub-verse004"),
        ("sub-verse400_split-verse153_ct", "sub-verse400"),
        ("sub-verse500_dir-ax_ct", "sub-verse500"),
        ("sub-verse500_dir-sag_ct", "sub-verse500"),
    ]


def test_one_part_and_float_masks(verse):
    cohort = read_cohort(verse / "dataset-verse19training", labels=LabelScheme(classes="separate", levels="C7-T1"))
    assert cohort.class_names == ("background", "C7", "T1")
    volume = cohort.cases[1].load()
    stored = in_ras(label(7, 8, 20))
    np.testing.assert_array_equal(volume.label, np.select([stored == 7, stored == 8], [1, 2]))
    np.testing.assert_array_equal(volume.image[0], in_ras(image(1)))


def test_ct_without_mask_and_mask_without_ct(verse, codes):
    training = verse / "dataset-verse19training"
    (training / "derivatives" / "sub-verse004" / "sub-verse004_seg-vert_msk.nii.gz").unlink()
    (training / "rawdata" / "sub-verse500" / "sub-verse500_dir-ax_ct.nii.gz").unlink()
    found = scan(verse)
    assert codes(found) == ["missing-image"]
    assert codes(found, Severity.WARNING) == ["missing-label"]


def test_the_same_scan_in_two_parts(verse, codes):
    write_scan(verse / "dataset-verse20training", "sub-verse004")
    assert codes(scan(verse)) == ["duplicate-case"]
