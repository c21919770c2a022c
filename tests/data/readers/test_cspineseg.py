from __future__ import annotations

import numpy as np
import pytest

from lossevo.data import read_cohort
from lossevo.data.readers import scan
from lossevo.data.scan import Severity
from lossevo.errors import LossevoError
from tests.data.readers.volumes import image, label, write_nifti

EXAMS = (
    "593973-000001_Study-MR-1_Series-3",
    "593973-000001_Study-MR-2_Series-5",
    "593973-000002_Study-MR-1_Series-2",
)


@pytest.fixture
def cspineseg(tmp_path):
    for number, exam in enumerate(EXAMS):
        write_nifti(tmp_path / "annotation" / f"{exam}.nii.gz", image(number))
        write_nifti(tmp_path / "segmentation" / f"{exam}_SEG.nii.gz", label(1, 2, seed=number))
    (tmp_path / "structured").mkdir()
    (tmp_path / "structured" / "case_RSNA_20250321.tsv").write_text("case_ids\n593973-000001\n")
    return tmp_path


def test_exams_of_a_patient_stay_together(cspineseg, detected, codes):
    found = detected("cspineseg", cspineseg)
    assert codes(found) == codes(found, Severity.WARNING) == []
    assert [case.case_id for case in found.cases] == list(EXAMS)
    cohort = read_cohort(cspineseg)
    assert cohort.subjects == ("593973-000001", "593973-000002")
    assert cohort.class_names == ("background", "vertebral body", "disc")
    np.testing.assert_array_equal(cohort.cases[0].load().image[0], image(0))
    np.testing.assert_array_equal(cohort.cases[0].load().label, label(1, 2))


def test_the_localizer_is_left_out(cspineseg, codes):
    name = "593973-000003_Study-MR-1_Series-1"
    write_nifti(cspineseg / "annotation" / f"{name}.nii.gz", np.zeros((512, 512, 56), np.uint8))
    write_nifti(cspineseg / "segmentation" / f"{name}_SEG.nii.gz", np.zeros((512, 512, 56), np.uint8))
    found = scan(cspineseg)
    assert codes(found, Severity.WARNING) == ["localizer"]
    assert [case.case_id for case in found.cases] == list(EXAMS)


def test_missing_files(cspineseg, codes):
    (cspineseg / "segmentation" / f"{EXAMS[0]}_SEG.nii.gz").unlink()
    (cspineseg / "annotation" / f"{EXAMS[1]}.nii.gz").unlink()
    assert codes(scan(cspineseg)) == ["missing-label", "missing-image"]
    with pytest.raises(LossevoError, match=rf"annotation/{EXAMS[0]}\.nii\.gz: no segmentation/{EXAMS[0]}_SEG\.nii\.gz"):
        read_cohort(cspineseg)
