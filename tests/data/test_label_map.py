"""Labels are integers, also where their header scales them; what was interpolated is none."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import zoom

from lossevo.data.files import read_stored
from lossevo.data.label_map import label_map
from lossevo.data.stored import UnusableFile
from tests.data.readers.volumes import label

SHAPE = (8, 9, 10)


def written(file: Path, voxels, dtype=None) -> Path:
    """As nibabel stores floats when it is asked for integers: with a slope, and perhaps an intercept."""
    stored = nib.Nifti1Image(np.asarray(voxels, np.float32), np.eye(4))
    if dtype is not None:
        stored.set_data_dtype(dtype)
    nib.save(stored, file)
    return file


def read(file: Path) -> np.ndarray:
    return label_map(read_stored(file), file)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32])
@pytest.mark.parametrize("largest", [1, 3, 24, 25, 49, 101, 125, 200, 254])
def test_scaled_integers_are_integers(tmp_path, dtype, largest):
    voxels = label(*range(1, largest + 1), shape=SHAPE)
    found = read(written(tmp_path / "a.nii.gz", voxels, dtype))
    assert found.dtype.kind == "i"
    np.testing.assert_array_equal(found, voxels)


@pytest.mark.parametrize("dtype", [None, np.uint8, np.int16])
@pytest.mark.parametrize("values", [(1,), (1, 2, 3), tuple(range(1, 25)), (20, 40, 60)])
def test_interpolated_values_are_none(tmp_path, dtype, values):
    finer = zoom(label(*values, shape=SHAPE).astype(float), 1.7, order=1)
    with pytest.raises(
        UnusableFile, match=r"a\.nii: \d+ voxel\(s\) are not integers, .*was the label interpolated"
    ) as no:
        read(written(tmp_path / "a.nii", finer, dtype))
    assert no.value.code == "label-not-integer"


def test_steps_larger_than_one_lose_integers(tmp_path):
    voxels = label(*range(1, 251), shape=SHAPE).astype(np.float32) * 4.1
    with pytest.raises(UnusableFile, match="in steps of"):
        read(written(tmp_path / "a.nii", np.rint(voxels), np.uint8))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_what_no_integer_is(tmp_path, value):
    voxels = label(1, shape=SHAPE).astype(np.float32)
    voxels[0, 0, 0] = value
    with pytest.raises(UnusableFile, match=r"NaN or infinite|too large"):
        read(written(tmp_path / "a.nii", voxels))


class TestLayersOfSlicer:
    """Overlapping segments are the first axis of a .seg.nrrd, as 3D Slicer writes it."""

    @pytest.fixture(autouse=True)
    def simpleitk(self):
        pytest.importorskip("SimpleITK")

    @staticmethod
    def segmentation(file: Path, layers, segments=()) -> Path:
        """``segments`` are (name, layer, value)."""
        layers = np.stack(layers)
        fields = [
            f"Segment{number}_{key}:={value}"
            for number, segment in enumerate(segments)
            for key, value in zip(("Name", "Layer", "LabelValue"), segment, strict=True)
        ]
        head = [
            "NRRD0004",
            "type: unsigned char",
            "dimension: 4",
            "space: left-posterior-superior",
            f"sizes: {' '.join(map(str, layers.shape))}",
            "space directions: none (1,0,0) (0,1,0) (0,0,2)",
            "kinds: list domain domain domain",
            "encoding: raw",
            "space origin: (0,0,0)",
            *fields,
        ]
        file.write_bytes("\n".join(head).encode() + b"\n\n" + layers.astype(np.uint8).tobytes(order="F"))
        return file

    def test_that_do_not_overlap_are_one_label_map(self, tmp_path):
        voxels = label(1, 2, 3, shape=SHAPE)
        layers = [np.where(voxels == 2, 0, voxels), np.where(voxels == 2, 2, 0)]
        segments = [("L1", 0, 1), ("L2", 1, 2), ("L3", 0, 3)]
        np.testing.assert_array_equal(read(self.segmentation(tmp_path / "a.seg.nrrd", layers, segments)), voxels)

    @pytest.mark.parametrize(
        ("values", "segments", "told"),
        [
            ((1, 2), [("liver", 0, 1), ("tumour", 1, 2)], r"segments \('liver', 'tumour'\) overlap in \d+ voxel\(s\)"),
            ((1, 1), [("liver", 0, 1), ("tumour", 1, 1)], "'liver' and 'tumour' both have the value 1, in different"),
            ((1, 1), [], "no segments of 3D Slicer are named"),
        ],
    )
    def test_that_mean_several_things_are_refused(self, tmp_path, values, segments, told):
        inside = label(1, shape=SHAPE)
        layers = [inside * value for value in values]
        with pytest.raises(UnusableFile, match=rf"a\.nrrd: 2 layers of 8×9×10 voxels.*{told}.* In 3D Slicer, export"):
            read(self.segmentation(tmp_path / "a.nrrd", layers, segments))

    @pytest.mark.parametrize("segments", [[("liver", 0, 1)], [("liver", 0, 1), ("tumour", 1, 2)]])
    def test_a_value_that_no_segment_of_its_layer_has_is_refused(self, tmp_path, segments):
        voxels = label(1, 2, shape=SHAPE)
        layers = [voxels == 1, voxels == 2]
        with pytest.raises(UnusableFile, match="layer 1 has the value 1, which belongs to none of its segments"):
            read(self.segmentation(tmp_path / "a.nrrd", layers, segments))
