from __future__ import annotations

import numpy as np
import pytest

from lossevo.data import LabelScheme, read_cohort
from lossevo.data.readers import scan
from lossevo.data.readers.spider import LABEL_NAMES
from lossevo.data.scan import Severity
from lossevo.errors import LossevoError
from tests.data.readers.volumes import SAGITTAL, SPACING_RAS_MM, image, in_ras, label, write_itk

pytest.importorskip("SimpleITK")

# Two vertebrae, the lowest of them cut off by the edge of the image in one patient; canal and discs.
VALUES = (1, 2, 5, 100, 102, 201, 205)


@pytest.fixture
def spider(tmp_path):
    for number, case in enumerate(("1_t1", "1_t2", "1_t2_SPACE", "10_t2", "2_t2")):
        write_itk(tmp_path / "images" / f"{case}.mha", image(number), SAGITTAL)
        write_itk(tmp_path / "masks" / f"{case}.mha", label(*VALUES, seed=number), SAGITTAL)
    return tmp_path


def test_vertebrae_and_discs_are_counted_from_the_bottom():
    assert [LABEL_NAMES[value] for value in (1, 5, 6, 17, 18, 24)] == ["L5", "L1", "T12", "T1", "C7", "C1"]
    assert [LABEL_NAMES[value] for value in (201, 202, 206, 223)] == [
        "disc L5-S1", "disc L4-L5", "disc T12-L1", "disc C2-C3",
    ]  # fmt: skip
    assert [LABEL_NAMES[value] for value in (100, 101, 106)] == ["canal", "L5 (partial)", "T12 (partial)"]
    assert sorted(LABEL_NAMES) == [*range(1, 26), 100, *range(101, 126), *range(201, 226)]
    assert len(set(LABEL_NAMES.values())) == len(LABEL_NAMES)


def test_series_of_a_patient_stay_together(spider, detected, codes):
    found = detected("spider", spider)
    assert codes(found) == []
    assert codes(found, Severity.WARNING) == ["levels-counted"]
    assert [(case.case_id, case.subject) for case in found.cases] == [
        ("1_t1", "1"), ("1_t2", "1"), ("1_t2_SPACE", "1"), ("2_t2", "2"), ("10_t2", "10"),
    ]  # fmt: skip


def test_archives_unpacked_into_folders_of_their_names(spider, detected, codes):
    for name in ("images", "masks"):
        (spider / name).rename(spider / "unpacked")
        (spider / name).mkdir()
        (spider / "unpacked").rename(spider / name / name)
    (spider / "images" / "__MACOSX").mkdir()
    found = detected("spider", spider)
    assert (codes(found), len(found.cases)) == ([], 5)


def test_voxels_come_in_ras_with_partial_vertebrae_as_background(spider):
    cohort = read_cohort(spider, labels=LabelScheme(classes="separate", levels="L4-L5"))
    assert cohort.class_names == ("background", "L5", "L4")
    volume = cohort.cases[0].load()
    stored = in_ras(label(*VALUES))
    np.testing.assert_array_equal(volume.image[0], in_ras(image(0)))
    np.testing.assert_array_equal(volume.label, np.select([stored == 1, stored == 2], [1, 2]))
    assert volume.spacing_mm == pytest.approx(SPACING_RAS_MM, rel=1e-5)


def test_partial_vertebrae_merged(spider):
    scheme = LabelScheme(classes={"vertebra": ["vertebrae"], "disc": ["discs"], "canal": ["canal"]}, partial="merge")
    cohort = read_cohort(spider, labels=scheme)
    assert cohort.class_names == ("background", "vertebra", "disc", "canal")
    stored = in_ras(label(*VALUES))
    expected = np.select([np.isin(stored, [1, 2, 5, 102]), stored > 200, stored == 100], [1, 2, 3])
    np.testing.assert_array_equal(cohort.cases[0].load().label, expected)


def test_interpolated_values_are_refused(spider):
    write_itk(spider / "masks" / "1_t1.mha", label(1, 26, 150), SAGITTAL)
    message = r"1_t1\.mha: label value\(s\) 26, 150 not named in SPIDER's table, which has 0, 1 to 25, 100 to 125, 201 "
    with pytest.raises(LossevoError, match=message):
        read_cohort(spider).cases[0].load()


def test_missing_files_and_an_overview_that_lists_more(spider, codes):
    (spider / "overview.csv").write_text("new_file_name,sex\n1_t1,F \n3_t1,M\n3_t2,M\n")
    (spider / "masks" / "2_t2.mha").unlink()
    (spider / "images" / "10_t2.mha").unlink()
    found = scan(spider)
    assert codes(found) == ["missing-label", "missing-image"]
    assert codes(found, Severity.WARNING) == ["incomplete", "levels-counted"]
    assert "overview.csv: 2 of its series are not in images (3_t1, …)" in found.problems[2].message
    assert [case.case_id for case in found.cases] == ["1_t1", "1_t2", "1_t2_SPACE"]
