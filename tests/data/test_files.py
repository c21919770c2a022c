"""Every file format, every stored orientation: the same volume in RAS. What cannot be read says why."""

from __future__ import annotations

import gzip
import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lossevo.data import itk
from lossevo.data.files import pointer, read_header, read_stored, read_volume_file
from lossevo.data.geometry import spacing_of
from lossevo.errors import LossevoError
from tests.data.readers.volumes import (
    ANNEX_POINTER,
    LFS_POINTER,
    SAGITTAL,
    SHAPE,
    SPACING_RAS_MM,
    image,
    in_ras,
    write_itk,
    write_multiframe,
    write_nifti,
)

ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".nhdr", ".dcm")


def write(file: Path, voxels, affine) -> Path:
    if file.name.endswith((".nii", ".nii.gz")):
        return write_nifti(file, voxels, affine)
    pytest.importorskip("SimpleITK")
    if file.suffix == ".dcm":
        pytest.importorskip("pydicom")
        return write_multiframe(file, voxels, affine)
    return write_itk(file, voxels, affine, components=voxels.ndim == 4)


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_gives_the_same_volume(tmp_path, ending: str):
    file = write(tmp_path / f"volume{ending}", image(), SAGITTAL)
    voxels, affine = read_volume_file(file)
    np.testing.assert_array_equal(voxels, in_ras(image()))
    np.testing.assert_allclose(affine, nib.as_closest_canonical(nib.Nifti1Image(image(), SAGITTAL)).affine, atol=1e-5)
    assert spacing_of(affine) == pytest.approx(SPACING_RAS_MM, rel=1e-5)
    header, stored = read_header(file), read_stored(file)
    assert (header.shape, header.dtype, header.has_geometry) == (SHAPE, np.uint16, True)
    assert header.spacing_mm == pytest.approx((1.5, 0.5, 4.0), rel=1e-5)
    np.testing.assert_allclose(header.affine, stored.affine)
    np.testing.assert_allclose(stored.affine, SAGITTAL, atol=1e-5)
    assert header.form_difference_mm == 0


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_channels_come_last(tmp_path, ending: str):
    voxels = image(shape=(*SHAPE, 3))
    file = write(tmp_path / f"volume{ending}", voxels, SAGITTAL)
    np.testing.assert_array_equal(read_volume_file(file)[0], in_ras(voxels))
    assert (read_header(file).shape, read_header(file).dtype) == ((*SHAPE, 3), np.uint16)


@pytest.mark.parametrize("shape", [(*SHAPE, 1), (*SHAPE, 1, 1)])
def test_axes_of_length_one_carry_nothing(tmp_path, shape):
    file = write_nifti(tmp_path / "volume.nii", image().reshape(shape))
    assert read_volume_file(file)[0].shape == read_header(file).shape == SHAPE


def test_vectors_as_itk_writes_them_into_nifti_are_channels(tmp_path):
    file = write_nifti(tmp_path / "volume.nii", image(shape=(*SHAPE, 1, 3)))
    assert read_volume_file(file)[0].shape == (*SHAPE, 3)


def test_a_sheared_affine_is_read(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 0.3
    voxels, found = read_volume_file(write_nifti(tmp_path / "volume.nii", image(), affine))
    np.testing.assert_array_equal(voxels, image())
    np.testing.assert_allclose(found, affine)


def test_the_sform_counts_and_its_distance_to_the_qform_is_told(tmp_path):
    stored = nib.Nifti1Image(image(), np.eye(4))
    stored.set_sform(np.diag([1.0, 1.0, 1.0, 1.0]), code=1)
    stored.set_qform(np.diag([1.0, 1.0, 2.0, 1.0]), code=1)
    nib.save(stored, tmp_path / "volume.nii.gz")
    header = read_header(tmp_path / "volume.nii.gz")
    assert header.spacing_mm == (1.0, 1.0, 1.0)
    assert header.form_difference_mm == pytest.approx(SHAPE[2] - 1)


@pytest.mark.parametrize(("unit", "in_mm"), [("meter", 1000.0), ("micron", 0.001), ("mm", 1.0), ("unknown", 1.0)])
def test_whatever_unit_a_header_is_in_it_comes_out_in_millimetres(tmp_path, unit: str, in_mm: float):
    to_unit = np.diag([*3 * [1 / in_mm], 1.0])
    stored = nib.Nifti1Image(image(), to_unit @ SAGITTAL)
    stored.header.set_xyzt_units(unit, "sec")
    stored.set_sform(to_unit @ SAGITTAL, code=1)
    stored.set_qform(to_unit @ SAGITTAL @ np.diag([1.0, 1.0, 2.0, 1.0]), code=1)
    nib.save(stored, tmp_path / "volume.nii.gz")
    affine = read_volume_file(tmp_path / "volume.nii.gz")[1]
    np.testing.assert_allclose(affine, nib.as_closest_canonical(nib.Nifti1Image(image(), SAGITTAL)).affine, rtol=1e-5)
    header = read_header(tmp_path / "volume.nii.gz")
    np.testing.assert_allclose(header.affine, SAGITTAL, rtol=1e-5)
    np.testing.assert_allclose(read_stored(tmp_path / "volume.nii.gz").affine, SAGITTAL, rtol=1e-5)
    assert header.spacing_mm == pytest.approx((1.5, 0.5, 4.0), rel=1e-5)
    assert header.form_difference_mm == pytest.approx(4 * (SHAPE[2] - 1), rel=1e-5)
    assert header.unit == {"meter": "metres", "micron": "micrometres"}.get(unit, "millimetres")


def test_a_dicom_file_that_says_nothing_of_its_geometry(tmp_path):
    pytest.importorskip("SimpleITK")
    pytest.importorskip("pydicom")
    file = write_multiframe(tmp_path / "volume.dcm", image())
    assert not read_stored(file).header.has_geometry
    assert not read_header(file).has_geometry
    np.testing.assert_array_equal(read_stored(file).voxels, image())


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".dcm"])
@pytest.mark.parametrize(
    ("content", "command"), [(ANNEX_POINTER, "git annex get '{}'"), (LFS_POINTER, "git lfs pull --include '{.name}'")]
)
def test_pointers_say_how_to_fetch_the_file(tmp_path, ending, content, command):
    file = tmp_path / f"volume{ending}"
    file.write_text(content)
    command = command.format(file)
    assert pointer(file) == command
    for read in (read_volume_file, read_header):
        with pytest.raises(LossevoError, match="a pointer to one that is not here; fetch it with: ") as caught:
            read(file)
        assert str(caught.value).endswith(command)


def test_a_locked_pointer_is_a_link_to_nowhere(tmp_path):
    file = tmp_path / "volume.nii.gz"
    file.symlink_to("../.git/annex/objects/a/b/SHA256E-s1--0.nii.gz/SHA256E-s1--0.nii.gz")
    assert pointer(file) == f"git annex get '{file}'"
    with pytest.raises(LossevoError, match="git annex get"):
        read_header(file)
    other = tmp_path / "other.nii.gz"
    other.symlink_to("nowhere.nii.gz")
    assert pointer(other) is None
    with pytest.raises(LossevoError, match=r"other\.nii\.gz: no such file"):
        read_header(other)


def test_small_files_and_links_to_files_are_no_pointers(tmp_path):
    file = write_nifti(tmp_path / "volume.nii.gz", image())
    (tmp_path / "link.nii.gz").symlink_to(file)
    assert pointer(file) is None
    assert pointer(tmp_path / "link.nii.gz") is None
    assert pointer(tmp_path / "absent.nii.gz") is None


@pytest.mark.parametrize(("name", "kind"), [("a.nii.gz", "NIfTI"), ("a.mha", "MetaImage"), ("a.dcm", "DICOM")])
@pytest.mark.parametrize("kept", [0, 60, 0.8])
def test_truncated_files(tmp_path, name: str, kind: str, kept: float):
    file = write(tmp_path / name, image(), SAGITTAL)
    content = file.read_bytes()
    file.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(LossevoError, match=rf"{name}: not a readable {kind} file, perhaps truncated") as caught:
        read_volume_file(file)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_that_only_the_checksum_tells(tmp_path):
    file = write_nifti(tmp_path / "volume.nii.gz", image())
    content = bytearray(file.read_bytes())
    content[-8] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        LossevoError,
        match=r"volume\.nii\.gz: not a readable NIfTI file, .*its compressed content is damaged: incorrect data check",
    ):
        read_volume_file(file)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_compressed_in_capitals_of_either_version_and_byte_order(tmp_path, kind, order: str):
    file = tmp_path / "volume.nii.gz"
    nib.save(kind(image(), SAGITTAL, header=kind.header_class(endianness=order)), file)
    file = file.rename(tmp_path / "VOLUME.NII.GZ")
    np.testing.assert_array_equal(read_volume_file(file)[0], in_ras(image()))


def test_what_lies_where_a_file_should_be(tmp_path):
    (tmp_path / "folder.nii.gz").mkdir()
    os.mkfifo(tmp_path / "pipe.nii.gz")
    for name in ("folder", "pipe"):  # and nothing waits for somebody to write into the pipe
        for read in (read_volume_file, read_header):
            with pytest.raises(LossevoError, match=rf"{name}\.nii\.gz: not a file"):
                read(tmp_path / f"{name}.nii.gz")


def test_a_file_of_somebody_else(tmp_path, monkeypatch):
    file = write_nifti(tmp_path / "volume.nii.gz", image())
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read everything
    with pytest.raises(LossevoError, match=r"volume\.nii\.gz: no right to read it"):
        read_header(file)


def test_what_is_no_volume(tmp_path):
    (tmp_path / "volume.gif").write_bytes(b"GIF89a")
    with pytest.raises(LossevoError, match=r"volume\.gif: cannot be read, only \.nii\.gz, \.nii, \.mha"):
        read_volume_file(tmp_path / "volume.gif")
    with pytest.raises(LossevoError, match=r"absent\.nii: no such file"):
        read_volume_file(tmp_path / "absent.nii")
    with pytest.raises(LossevoError, match=r"line\.nii: shape \(4,\), expected a 3D volume"):
        read_volume_file(write_nifti(tmp_path / "line.nii", image()[:, 0, 0]))
    (tmp_path / "text.nii").write_bytes(gzip.compress(b"text"))
    with pytest.raises(LossevoError, match=r"text\.nii: not a readable NIfTI file"):
        read_volume_file(tmp_path / "text.nii")


def test_without_simpleitk_the_message_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "volume.mha").write_bytes(bytes(100))
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    itk._import_simpleitk.cache_clear()
    for read in (read_volume_file, read_header):
        with pytest.raises(LossevoError, match=r"volume\.mha: MetaImage files .* pip install 'lossevo\[io\]'"):
            read(tmp_path / "volume.mha")
    itk._import_simpleitk.cache_clear()
