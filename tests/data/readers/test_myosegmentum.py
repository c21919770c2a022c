from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from lossevo.data import LabelScheme, read_cohort
from lossevo.data.readers import scan
from lossevo.data.scan import Severity
from lossevo.errors import LossevoError
from tests.data.readers.volumes import SAGITTAL, SHAPE, SPACING_RAS_MM, image, in_ras, write_itk, write_multiframe

pytest.importorskip("SimpleITK")
pytest.importorskip("pydicom")

CONTRASTS = ("WATER", "FAT", "FATFRACTION", "T2star", "B0")
MUSCLES = ("erector_spinae_left", "erector_spinae_right", "psoas_left", "psoas_right")
AXIAL = np.diag([1.0, 1.0, 5.0, 1.0])
AXIAL[:3, 3] = (-20, -30, 7)


def write_series(folder: Path, subject: str, structures, affine, *, image_affine=None, shape=SHAPE) -> None:
    """Images of random numbers; the mask of structure k is the plane k of the first axis."""
    for number, contrast in enumerate(CONTRASTS):
        write_multiframe(folder / f"{contrast}.dcm", image(number, shape), image_affine)
    for number, structure in enumerate(structures):
        write_itk(folder / f"{structure}_{subject}.mha", mask(number, shape), affine)


def mask(number: int, shape=SHAPE):
    voxels = np.zeros(shape, np.uint8)
    voxels[:, number] = 1
    return voxels


@pytest.fixture
def write_subject(tmp_path):
    """Writes one subject; keyword arguments go to the vertebrae."""

    def write(subject: str, *, inside: str | None = None, muscle: bool = False, **vertebrae) -> Path:
        folder = tmp_path / (inside or subject)
        levels = ("L1", "L2", "L3", "L4", "L5")
        write_series(folder / "vertebrae", subject, levels, SAGITTAL, **({"image_affine": SAGITTAL} | vertebrae))
        if muscle:
            write_series(folder / "muscle", subject, MUSCLES, AXIAL, image_affine=AXIAL)
        return folder

    return write


def test_the_published_layout(write_subject, detected, codes, tmp_path):
    write_subject("01", muscle=True)
    write_subject("02", inside="02/02", muscle=True)  # unzipped in place
    twin = tmp_path / "02" / "__MACOSX" / "02" / "vertebrae"
    twin.mkdir(parents=True)
    (twin / "._WATER.dcm").touch()
    (tmp_path / "01" / "vertebrae" / "._L1_01.mha").touch()
    found = detected("myosegmentum")
    assert codes(found) == codes(found, Severity.WARNING) == []
    assert [(case.case_id, case.subject) for case in found.cases] == [("01", "01"), ("02", "02")]
    assert found.channel_names == CONTRASTS
    assert found.label_names == {1: "L1", 2: "L2", 3: "L3", 4: "L4", 5: "L5"}

    cohort = read_cohort(tmp_path)
    assert cohort.class_names == ("background", "L1", "L2", "L3", "L4", "L5")
    for case in cohort.cases:
        volume = case.load()
        np.testing.assert_array_equal(volume.image, [in_ras(image(number)) for number in range(5)])
        np.testing.assert_array_equal(volume.label, in_ras(sum((n + 1) * mask(n) for n in range(5))))
        assert volume.spacing_mm == pytest.approx(SPACING_RAS_MM, rel=1e-5)
        assert case.grid.shape == volume.label.shape
        assert case.grid.spacing_mm == pytest.approx(SPACING_RAS_MM, rel=1e-5)


def test_the_muscles_are_a_series_of_their_own(write_subject, tmp_path):
    write_subject("01", muscle=True)
    cohort = read_cohort(tmp_path, format="myosegmentum-muscle")
    assert cohort.class_names[1:] == ("erector spinae left", "erector spinae right", "psoas left", "psoas right")
    volume = cohort.cases[0].load()
    np.testing.assert_array_equal(volume.label, sum((n + 1) * mask(n) for n in range(4)))
    assert volume.spacing_mm == pytest.approx((1, 1, 5))
    shutil.rmtree(tmp_path / "01" / "vertebrae")
    assert scan(tmp_path).format == "myosegmentum-muscle"


def test_one_subject_alone_and_names_in_any_case(write_subject, detected):
    folder = write_subject("07")
    (folder / "vertebrae").rename(folder / "Vertebrae")
    (folder / "Vertebrae" / "T2star.dcm").rename(folder / "Vertebrae" / "T2STAR.dcm")
    found = detected("myosegmentum", folder)
    assert [case.subject for case in found.cases] == ["07"]
    assert found.channel_names == CONTRASTS


def test_dicom_without_geometry_lies_where_its_masks_lie(write_subject, tmp_path):
    write_subject("01", image_affine=None)
    case = read_cohort(tmp_path).cases[0]
    assert case.grid is None
    volume = case.load()
    np.testing.assert_array_equal(volume.image[0], in_ras(image(0)))
    assert volume.spacing_mm == pytest.approx(SPACING_RAS_MM, rel=1e-5)


def test_without_geometry_and_of_another_size_it_lies_nowhere(write_subject, tmp_path):
    folder = write_subject("01", image_affine=None) / "vertebrae"
    for contrast in CONTRASTS:
        write_multiframe(folder / f"{contrast}.dcm", image(shape=(5, 6, 7)))
    with pytest.raises(LossevoError, match=r"WATER\.dcm: gives no position, .* no label has its shape \(5, 6, 7\)"):
        read_cohort(tmp_path).cases[0].load()


def test_masks_on_another_grid_are_resampled_to_the_image(write_subject, tmp_path):
    folder = write_subject("01") / "vertebrae"
    # The first mask on voxels of half the size along the first two axes, and cut by two planes at its end.
    fine = np.repeat(np.repeat(mask(0), 2, axis=0), 2, axis=1)[:, :-2]
    affine = SAGITTAL @ np.diag([0.5, 0.5, 1, 1])
    affine[:3, 3] = (SAGITTAL @ [-0.25, -0.25, 0, 1])[:3]
    write_itk(folder / "L1_01.mha", fine, affine)
    volume = read_cohort(tmp_path).cases[0].load()
    np.testing.assert_array_equal(volume.label == 1, in_ras(mask(0)))


def test_a_mask_that_lies_elsewhere_is_refused(write_subject, tmp_path):
    folder = write_subject("01") / "vertebrae"
    away = SAGITTAL.copy()
    away[2, 3] += 1000
    write_itk(folder / "L3_01.mha", mask(2), away)
    with pytest.raises(LossevoError, match=r"L3_01\.mha: 100% of its structure lie outside of .*WATER\.dcm"):
        read_cohort(tmp_path).cases[0].load()


def test_a_mask_of_several_values_is_no_mask(write_subject, tmp_path):
    folder = write_subject("01") / "vertebrae"
    write_itk(folder / "L3_01.mha", mask(2) + 2 * mask(3), SAGITTAL)
    with pytest.raises(LossevoError, match=r"L3_01\.mha: values 1, 2, expected a mask of one structure"):
        read_cohort(tmp_path).cases[0].load()


def test_a_mask_may_have_any_value(write_subject, tmp_path):
    folder = write_subject("01") / "vertebrae"
    write_itk(folder / "L3_01.mha", 255 * mask(2), SAGITTAL)
    np.testing.assert_array_equal(read_cohort(tmp_path).cases[0].load().label == 3, in_ras(mask(2)))


def test_what_is_missing_or_too_much(write_subject, codes, tmp_path):
    write_subject("01")
    folder = write_subject("02") / "vertebrae"
    (folder / "FAT.dcm").unlink()
    write_subject("02", inside="02/02")
    (write_subject("03") / "vertebrae" / "L5_03.mha").unlink()
    shutil.copy(tmp_path / "01" / "vertebrae" / "L1_01.mha", tmp_path / "01" / "vertebrae" / "S1_01.mha")
    found = scan(tmp_path)
    assert codes(found) == ["missing-image"]
    assert sorted(codes(found, Severity.WARNING)) == ["duplicate-case", "missing-label", "unknown-structure"]
    with pytest.raises(LossevoError, match=r"vertebrae: no FAT\.dcm, which other subjects have"):
        read_cohort(tmp_path)
    shutil.rmtree(tmp_path / "02")
    assert read_cohort(tmp_path).subjects == ("01",)
    assert read_cohort(tmp_path, labels=LabelScheme(levels="L1-L4")).subjects == ("01", "03")


def test_an_empty_folder(tmp_path):
    with pytest.raises(LossevoError, match=r"no folder NN/vertebrae with CONTRAST\.dcm"):
        read_cohort(tmp_path, format="myosegmentum")
