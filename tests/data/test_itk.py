"""What SimpleITK would make of files that are incomplete: sizes of 1 mm, voxels out of nowhere."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path

import numpy as np
import pytest

from lossevo.data.files import read_header, read_stored
from lossevo.data.stored import Geometry
from lossevo.errors import LossevoError
from tests.data.readers.volumes import SHAPE, image, write_itk

sitk = pytest.importorskip("SimpleITK")

NRRD = b"NRRD0004\ntype: unsigned short\nendian: little\ndimension: 3\nsizes: 4 6 7\n"


def meta_image(file: Path, change=lambda head: head, data: bytes | None = None) -> Path:
    """A packed MetaImage with another header or other packed content."""
    whole = write_itk(file, image()).read_bytes()
    head, _, packed = whole.partition(b"ElementDataFile = LOCAL\n")
    packed = packed if data is None else data
    head = re.sub(rb"CompressedDataSize = \d+", b"CompressedDataSize = %d" % len(packed), head)
    file.write_bytes(change(head) + b"ElementDataFile = LOCAL\n" + packed)
    return file


def spacing(text: bytes):
    return lambda head: re.sub(rb"ElementSpacing = .*", b"ElementSpacing = " + text, head)


class TestVoxelSizes:
    @pytest.mark.parametrize("sizes", ["0 2 3", "-1 2 3", "nan 2 3"])
    def test_that_are_none_are_refused(self, tmp_path, sizes):
        file = meta_image(tmp_path / "a.mha", spacing(sizes.encode()))
        told = sizes.replace(" ", ", ")
        for read in (read_header, read_stored):
            with pytest.raises(LossevoError, match=rf"a\.mha: ElementSpacing is {told} in its header, expected voxel"):
                read(file)

    @pytest.mark.parametrize(
        "field", ["spacings: nan 2 3", "spacings: 0 2 3", "space: LPS\nspace directions: none (0,2,0) (0,0,3)"]
    )
    def test_of_nrrd(self, tmp_path, field):
        (tmp_path / "a.nrrd").write_bytes(NRRD + field.encode() + b"\nencoding: raw\n\n" + image().tobytes(order="F"))
        with pytest.raises(LossevoError, match=r"a\.nrrd: .*(spacings|space directions) is "):
            read_header(tmp_path / "a.nrrd")

    def test_that_nobody_gives_are_an_assumption(self, tmp_path):
        bare = meta_image(
            tmp_path / "a.mha",
            lambda head: re.sub(rb"(TransformMatrix|Offset|ElementSpacing|CenterOfRotation) = .*\n", b"", head),
        )
        (tmp_path / "a.nrrd").write_bytes(NRRD + b"encoding: raw\n\n" + image().tobytes(order="F"))
        sized = meta_image(
            tmp_path / "c.mha", lambda head: re.sub(rb"(TransformMatrix|Offset|CenterOfRotation) = .*\n", b"", head)
        )
        (tmp_path / "c.nrrd").write_bytes(NRRD + b"spacings: 1 1 1\nencoding: raw\n\n" + image().tobytes(order="F"))
        for file in (bare, sized, tmp_path / "a.nrrd", tmp_path / "c.nrrd"):
            assert read_header(file).geometry is Geometry.ASSUMED
            np.testing.assert_array_equal(read_stored(file).voxels, image())
        assert read_header(write_itk(tmp_path / "b.mha", image())).geometry is Geometry.KNOWN


class TestPackedVoxels:
    """SimpleITK says nothing of damage in a packed MetaImage, and returns whatever is in memory."""

    @pytest.mark.parametrize(
        "data",
        [
            image().tobytes(order="F"),
            zlib.compress(image().tobytes(order="F"))[:-60],
            zlib.compress(image().tobytes(order="F")[:-20]),
            b"",
        ],
    )
    def test_that_are_damaged(self, tmp_path, data):
        with pytest.raises(LossevoError, match=r"a\.mha: not a readable MetaImage file, perhaps truncated"):
            read_stored(meta_image(tmp_path / "a.mha", data=data))

    @pytest.mark.parametrize("pack", [zlib.compress, gzip.compress, lambda raw: zlib.compress(raw) + b"more"])
    def test_that_are_whole(self, tmp_path, pack):
        file = meta_image(tmp_path / "a.mha", data=pack(image().tobytes(order="F")))
        np.testing.assert_array_equal(read_stored(file).voxels, image())

    @pytest.mark.parametrize("size", [b"", b"CompressedDataSize = 0", b"CompressedDataSize = 60"])
    def test_of_which_the_header_gives_no_size_or_too_small_a_one(self, tmp_path, size):
        file = meta_image(tmp_path / "a.mha")
        file.write_bytes(re.sub(rb"CompressedDataSize = \d+", size or b"Comment = none", file.read_bytes()))
        with pytest.raises(LossevoError, match=r"a\.mha: (CompressedDataSize is (0|missing)|.*content ends early)"):
            read_stored(file)

    def test_that_lie_in_a_file_beside(self, tmp_path):
        file = write_itk(tmp_path / "a.mhd", image())
        np.testing.assert_array_equal(read_stored(file).voxels, image())
        data = tmp_path / "a.zraw"
        data.write_bytes(data.read_bytes()[:-40])
        with pytest.raises(LossevoError, match=r"a\.mhd: not a readable MetaImage file"):
            read_stored(file)


class TestSlicesInFilesOfTheirOwn:
    """SimpleITK makes up the slices for which no file is named."""

    def write(self, folder: Path, named: str, files: int, *, packed: bool = False) -> Path:
        slices = [image()[..., z].tobytes(order="F") for z in range(SHAPE[2])]
        for number, data in enumerate(slices, start=1):
            (folder / f"s{number:02}.raw").write_bytes(zlib.compress(data) if packed else data)
        head = f"NDims = 3\nBinaryData = True\nCompressedData = {packed}\nOffset = 0 0 0\nElementSpacing = 1 1 1\n"
        head += f"DimSize = {' '.join(map(str, SHAPE))}\nElementType = MET_USHORT\nElementDataFile = {named}\n"
        if named.startswith("LIST"):
            head += "".join(f"s{number:02}.raw\n" for number in range(1, files + 1))
        (folder / "a.mhd").write_text(head)
        return folder / "a.mhd"

    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("named", ["LIST", "LIST 2", f"s%02d.raw 1 {SHAPE[2]} 1"])
    def test_are_read(self, tmp_path, named, packed):
        file = self.write(tmp_path, named, SHAPE[2], packed=packed)
        np.testing.assert_array_equal(read_stored(file).voxels, image())

    @pytest.mark.parametrize("named", ["LIST", f"s%02d.raw 1 {SHAPE[2] - 2} 1", f"t%02d.raw 1 {SHAPE[2]} 1"])
    def test_of_which_some_are_missing(self, tmp_path, named):
        with pytest.raises(LossevoError, match=r"a\.mhd: .*names files for (120|0) of 168"):
            read_stored(self.write(tmp_path, named, SHAPE[2] - 2))

    def test_of_which_one_is_damaged(self, tmp_path):
        file = self.write(tmp_path, "LIST", SHAPE[2], packed=True)
        (tmp_path / "s03.raw").write_bytes((tmp_path / "s03.raw").read_bytes()[:-12])
        with pytest.raises(LossevoError, match=r"a\.mhd: .*its compressed content ends early"):
            read_stored(file)

    def test_a_list_of_volumes_is_refused(self, tmp_path):
        with pytest.raises(LossevoError, match=r"a\.mhd: ElementDataFile is LIST 3, expected LIST, a file for each"):
            read_stored(self.write(tmp_path, "LIST 3", 1))


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("a.nrrd", NRRD.replace(b"4 6 7", b"900 900 900") + b"encoding: raw\n\n" + bytes(100)),
        ("a.nrrd", NRRD.replace(b"4 6 7", b"900 900 900") + b"encoding: gzip\n\n" + gzip.compress(bytes(100))),
    ],
)
def test_sizes_that_the_file_cannot_have(tmp_path, name, whole):
    (tmp_path / name).write_bytes(whole)
    with pytest.raises(LossevoError, match=r"declares 900×900×900 voxels of 2 bytes, more than \d+ bytes can hold"):
        read_stored(tmp_path / name)
    file = meta_image(tmp_path / "b.mha", lambda head: re.sub(rb"DimSize = .*", b"DimSize = 900 900 900", head))
    with pytest.raises(LossevoError, match=r"declares 900×900×900 voxels of 2 bytes, more than \d+ bytes can hold"):
        read_stored(file)


class TestPlanes:
    @pytest.mark.parametrize("name", ["a.png", "a.mha", "a.nrrd"])
    def test_are_one_slice(self, tmp_path, name):
        plane = sitk.GetImageFromArray(image(shape=(5, 6)).T)
        sitk.WriteImage(plane, str(tmp_path / name))
        assert read_header(tmp_path / name).shape == (5, 6, 1)
        assert read_header(tmp_path / name).spacing_mm == (1, 1, 1)
        np.testing.assert_array_equal(read_stored(tmp_path / name).voxels[..., 0], image(shape=(5, 6)))

    def test_of_a_picture_only_pixels_are_known(self, tmp_path):
        sitk.WriteImage(sitk.GetImageFromArray(image(shape=(5, 6)).T), str(tmp_path / "a.png"))
        assert read_header(tmp_path / "a.png").geometry is Geometry.ASSUMED

    def test_colours_are_no_grey_values(self, tmp_path):
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros((5, 6, 3), np.uint8), isVector=True), str(tmp_path / "a.png"))
        with pytest.raises(LossevoError, match=r"a\.png: 3 colours \(RGB, or a palette\), expected one grey value"):
            read_header(tmp_path / "a.png")


def test_a_4d_file_of_one_volume_is_that_volume(tmp_path):
    series = sitk.JoinSeries([sitk.GetImageFromArray(np.ascontiguousarray(image().T))])
    sitk.WriteImage(series, str(tmp_path / "a.mha"))
    assert read_stored(tmp_path / "a.mha").voxels.shape == SHAPE
    np.testing.assert_array_equal(read_stored(tmp_path / "a.mha").voxels, image())
