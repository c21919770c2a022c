"""NIfTI as tools leave it: named wrongly, with bytes behind the voxels, without voxel sizes. No header is believed."""

from __future__ import annotations

import gzip
import math
import re
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lossevo.data.files import read_header, read_stored, read_volume_file
from lossevo.data.stored import Geometry
from lossevo.errors import LossevoError
from tests.data.readers.volumes import SAGITTAL, SHAPE, image, in_ras, write_nifti


def content(affine=SAGITTAL, voxels=None) -> bytes:
    return nib.Nifti1Image(image() if voxels is None else voxels, affine).to_bytes()


def changed(field: str, values, *, sform: int, qform: int, shape: tuple[int, ...] = SHAPE) -> bytes:
    """A header that nibabel would not write."""
    made = nib.Nifti1Image(image(shape=shape), np.diag([2.0, 2.0, 2.0, 1.0]))
    made.set_sform(made.affine, sform)
    made.set_qform(made.affine, qform)
    head = nib.Nifti1Header(made.to_bytes()[:348], check=False)
    head[field] = values
    return head.binaryblock + made.to_bytes()[348:]


def codes(file: Path) -> list[str]:
    return [oddity.code for oddity in read_stored(file).header.oddities]


class TestWhateverItIsCalled:
    @pytest.mark.parametrize(
        ("name", "pack", "expected"),
        [
            ("a.nii.gz", gzip.compress, []),
            ("a.nii", bytes, []),
            ("a.nii.gz", bytes, ["misnamed"]),
            ("a.nii", gzip.compress, ["misnamed"]),
            ("a.nii.gz", lambda whole: gzip.compress(whole) + b"<!-- served by -->", ["surplus-bytes"]),
            ("a.nii.gz", lambda whole: gzip.compress(whole) + b"\x1f\x8bno member", ["surplus-bytes"]),
            ("a.nii.gz", lambda whole: gzip.compress(whole) + bytes(512), []),
            (
                "a.nii.gz",
                lambda whole: gzip.compress(whole[:400]) + gzip.compress(whole[400:]) + gzip.compress(b""),
                [],
            ),
            ("a.nii.gz", lambda whole: gzip.compress(whole + bytes(100)), []),
            ("a.nii", lambda whole: whole + bytes(100), []),
        ],
    )
    def test_its_voxels_are_read(self, tmp_path, name, pack, expected):
        (tmp_path / name).write_bytes(pack(content()))
        np.testing.assert_array_equal(read_volume_file(tmp_path / name)[0], in_ras(image()))
        assert read_header(tmp_path / name).shape == SHAPE
        assert codes(tmp_path / name) == expected

    def test_of_a_last_member_that_voxels_lie_in_the_checksum_counts(self, tmp_path):
        whole = content()
        damaged = bytearray(gzip.compress(whole[:400]) + gzip.compress(whole[400:]))
        damaged[-8] ^= 1
        (tmp_path / "a.nii.gz").write_bytes(damaged)
        with pytest.raises(LossevoError, match="incorrect data check"):
            read_stored(tmp_path / "a.nii.gz")

    def test_a_voxel_offset_of_0_means_behind_the_header(self, tmp_path):
        (tmp_path / "a.nii").write_bytes(changed("vox_offset", 0, sform=1, qform=0))
        np.testing.assert_array_equal(read_stored(tmp_path / "a.nii").voxels, image())

    def test_extensions_are_passed_over(self, tmp_path):
        made = nib.Nifti1Image(image(), SAGITTAL)
        made.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 5000))
        for name in ("a.nii", "a.nii.gz"):
            nib.save(made, tmp_path / name)
            np.testing.assert_array_equal(read_stored(tmp_path / name).voxels, image())

    @pytest.mark.parametrize("dtype", [np.int16, np.float32])
    def test_scaled_values_are_those_of_nibabel(self, tmp_path, dtype):
        made = nib.Nifti1Image(np.linspace(-3, 7, 168).reshape(SHAPE), SAGITTAL)
        made.set_data_dtype(dtype)
        nib.save(made, tmp_path / "a.nii.gz")
        np.testing.assert_array_equal(
            read_stored(tmp_path / "a.nii.gz").voxels, nib.load(tmp_path / "a.nii.gz").dataobj
        )

    @pytest.mark.parametrize(
        ("field", "value", "told"),
        [
            ("quatern_b", 2, "its qform is no rotation; correct the header"),
            ("scl_inter", math.nan, "its header contradicts itself (Valid slope but invalid intercept nan)"),
        ],
    )
    def test_a_header_that_nibabel_refuses_is_not_called_truncated(self, tmp_path, field, value, told):
        head = nib.Nifti1Header(changed(field, value, sform=0, qform=1)[:348], check=False)
        head["scl_slope"] = 2
        (tmp_path / "a.nii").write_bytes(head.binaryblock + content()[348:])
        with pytest.raises(LossevoError, match=re.escape(f"a.nii: {told}")):
            read_stored(tmp_path / "a.nii")

    def test_what_is_no_volume(self, tmp_path):
        (tmp_path / "a.nii").write_bytes(changed("magic", b"ni1", sform=1, qform=0))
        with pytest.raises(LossevoError, match=r"a\.nii: the header of a pair \.hdr and \.img"):
            read_stored(tmp_path / "a.nii")
        series = nib.Nifti2Image(image(shape=(1, 1, 1, 1, 9, 8)), np.eye(4))
        series.header["intent_code"] = 3002
        nib.save(series, tmp_path / "b.nii")
        with pytest.raises(LossevoError, match=r"b\.nii: a CIFTI-2 file, expected a volume"):
            read_stored(tmp_path / "b.nii")


class TestNoMoreThanDeclared:
    def test_a_stream_that_goes_on_is_not_unpacked(self, tmp_path):
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content() + bytes(200 << 20), compresslevel=1))
        tracemalloc.start()
        stored = read_stored(tmp_path / "a.nii.gz")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        np.testing.assert_array_equal(stored.voxels, image())
        assert [oddity.code for oddity in stored.header.oddities] == ["surplus-bytes"]
        assert peak < 4 << 20

    @pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
    def test_voxels_are_held_once(self, tmp_path, name):
        voxels = np.zeros((128, 128, 256), np.uint16)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / name)
        tracemalloc.start()
        stored = read_stored(tmp_path / name)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        np.testing.assert_array_equal(stored.voxels, voxels)
        assert peak < 1.5 * voxels.nbytes

    @pytest.mark.parametrize("pack", [gzip.compress, bytes])
    @pytest.mark.parametrize("side", [700, 30000])
    def test_sizes_that_the_file_cannot_have(self, tmp_path, pack, side):
        (tmp_path / "a.nii.gz").write_bytes(pack(changed("dim", [3, side, side, side, 1, 1, 1, 1], sform=1, qform=0)))
        tracemalloc.start()
        with pytest.raises(
            LossevoError, match=rf"{side}×{side}×{side} voxels of 2 bytes, more than its \d+ bytes can hold"
        ):
            read_stored(tmp_path / "a.nii.gz")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
        tracemalloc.stop()

    def test_fewer_voxels_than_declared(self, tmp_path):
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content()[:-20]))
        size = 2 * math.prod(SHAPE)
        with pytest.raises(LossevoError, match=rf"perhaps truncated \(.*ends early, after {size - 20} bytes of them"):
            read_stored(tmp_path / "a.nii.gz")


class TestVoxelSizes:
    """nibabel makes 1 mm of 0, and takes the absolute of what is negative."""

    @pytest.mark.parametrize("forms", [{"sform": 0, "qform": 0}, {"sform": 0, "qform": 1}])
    @pytest.mark.parametrize(
        ("sizes", "told"), [([0, 0, 0], "0, 0, 0"), ([2, -2, 2], "2, -2, 2"), ([2, 2, math.nan], "2, 2, nan")]
    )
    def test_that_are_none_are_refused(self, tmp_path, forms, sizes, told):
        (tmp_path / "a.nii").write_bytes(changed("pixdim", [1, *sizes, 0, 0, 0, 0], **forms))
        for read in (read_header, read_stored):
            with pytest.raises(LossevoError, match=rf"a\.nii: pixdim is {told} in its header, expected voxel sizes"):
                read(tmp_path / "a.nii")

    @pytest.mark.parametrize("sizes", [[0, 0, 0], [-2, 2, 2], [1, 1, 1]])
    def test_the_sform_needs_none_and_the_difference_is_told(self, tmp_path, sizes):
        (tmp_path / "a.nii").write_bytes(changed("pixdim", [1, *sizes, 0, 0, 0, 0], sform=1, qform=0))
        assert read_header(tmp_path / "a.nii").spacing_mm == (2, 2, 2)
        assert codes(tmp_path / "a.nii") == ["pixdim"]

    def test_without_codes_they_are_all_that_is_known(self, tmp_path):
        (tmp_path / "a.nii").write_bytes(changed("pixdim", [1, 3, 2, 5, 0, 0, 0, 0], sform=0, qform=0))
        header = read_header(tmp_path / "a.nii")
        assert (header.geometry, header.spacing_mm) == (Geometry.ASSUMED, (3, 2, 5))

    def test_a_qform_that_is_no_rotation_differs_from_any_sform(self, tmp_path):
        (tmp_path / "a.nii").write_bytes(changed("quatern_b", 5, sform=1, qform=1))
        assert read_header(tmp_path / "a.nii").form_difference_mm == math.inf


class TestPlanes:
    @pytest.mark.parametrize("forms", [{"sform": 0, "qform": 1}, {"sform": 2, "qform": 0}, {"sform": 0, "qform": 0}])
    @pytest.mark.parametrize("third", [0, 1, 5])
    def test_are_one_slice(self, tmp_path, forms, third):
        plane = changed("pixdim", [1, 2, 2, third, 0, 0, 0, 0], **forms, shape=(5, 6))
        (tmp_path / "a.nii").write_bytes(plane)
        stored = read_stored(tmp_path / "a.nii")
        assert stored.voxels.shape == read_header(tmp_path / "a.nii").shape == (5, 6, 1)
        np.testing.assert_array_equal(stored.voxels[..., 0], image(shape=(5, 6)))
        assert stored.header.spacing_mm[:2] == (2, 2)

    def test_whose_sform_has_no_third_axis(self, tmp_path):
        made = nib.Nifti1Image(image(shape=(5, 6)), np.diag([2.0, 3.0, 1.0, 1.0]))
        made.header["srow_z"] = 0
        (tmp_path / "a.nii").write_bytes(made.header.binaryblock + bytes(4) + image(shape=(5, 6)).tobytes(order="F"))
        assert read_volume_file(tmp_path / "a.nii")[0].shape == (5, 6, 1)
        assert read_header(tmp_path / "a.nii").spacing_mm == (2, 3, 1)


def test_colours_are_no_grey_values(tmp_path):
    colours = np.zeros((5, 6), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    with pytest.raises(LossevoError, match=r"a\.nii: voxels of type colour \(R, G, B\), expected integers or floats"):
        read_stored(write_nifti(tmp_path / "a.nii", colours))
