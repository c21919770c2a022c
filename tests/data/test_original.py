"""The label of a case on its image's own grid, through preprocessing and the cache."""

from __future__ import annotations

import dataclasses
import pickle
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lossevo.data import OriginalLabel, PreprocessingSettings, Volume, entry, phantom_cohort, prepare, read_cohort
from lossevo.data.cache import Cache
from lossevo.data.resampling import between, resample
from lossevo.errors import LossevoError

LABELS = {"background": 0, "L1": 1, "L2": 2}
CROPPED = PreprocessingSettings(crop="body")


def patient(shape: tuple[int, int, int] = (20, 26, 14)) -> tuple[np.ndarray, np.ndarray]:
    """A body off the centre of the air around it, with two structures that touch; neither is symmetric."""
    generator = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    near = np.linalg.norm((grid - (6, 9, 6)) / (1, 1.3, 1), axis=-1)
    image = np.where(near < 5, 300.0, 0) + generator.uniform(0, 20, shape)
    label = np.where(near < 3, 1 + (grid[..., 1] > 9), 0)
    return image.astype(np.float32), label.astype(np.uint8)


def volume_of(label: np.ndarray) -> Volume:
    return Volume("a", "a", np.zeros((1, *label.shape), np.float32), label, (1.0, 2.0, 3.0))


@pytest.fixture
def folder(write_nnunet_cohort) -> Path:
    return write_nnunet_cohort({"a": patient(), "b": patient((21, 25, 15))}, labels=LABELS, spacing_mm=(2, 1.5, 4))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("content", ["random", "empty", "full"])
def test_a_label_survives_packing_and_travelling(order, content: str):
    make = {"random": lambda s: np.random.default_rng(0).integers(0, 9, s), "empty": np.zeros, "full": np.ones}
    label = np.asarray(make[content]((5, 7, 3)), dtype=np.uint8, order=order)
    original = OriginalLabel.of(volume_of(label), (slice(1, 4), slice(0, 7), slice(2, 3)))
    again = pickle.loads(pickle.dumps(original))
    assert again == original
    np.testing.assert_array_equal(again.label, label)
    assert again.label.dtype == np.uint8
    assert (again.shape, again.spacing_mm) == ((5, 7, 3), (1.0, 2.0, 3.0))


def test_it_is_small():
    label = np.zeros((100, 100, 50), np.uint8)
    label[30:60, 20:80, 10:30] = 2
    assert len(OriginalLabel.of(volume_of(label), None).packed) < label.nbytes / 50


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[:-3],
        lambda packed: b"",
        lambda packed: b"no zlib stream",
        lambda packed: packed[:12] + bytes([packed[12] ^ 255]) + packed[13:],
        lambda packed: zlib.compress(b"\0" * 104),
        lambda packed: zlib.compress(b"\0" * 2**22),
    ],
)
def test_a_damaged_one_is_told_in_one_line(damage):
    label = np.random.default_rng(0).integers(0, 9, (5, 7, 3), np.uint8)
    original = OriginalLabel.of(volume_of(label), None)
    broken = dataclasses.replace(original, packed=damage(original.packed))
    with pytest.raises(LossevoError, match=r"^case a: .* is damaged \([^\n]*\); clear the cache") as caught:
        _ = broken.label
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_it_is_what_nibabel_makes_of_the_file(write_nnunet_cohort, axes: tuple[int, int, int]):
    """Stored with the axes in another order, some of them backwards, and oblique by 10°."""
    sides_mm = np.array((2.0, 1.5, 4.0))
    turn = np.array([[np.cos(0.17), -np.sin(0.17), 0], [np.sin(0.17), np.cos(0.17), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = (turn * (-1, 1, -1) * sides_mm)[:, axes]
    affine[:3, 3] = (40, -30, 20)
    image, label = (array.transpose(axes) for array in patient())
    folder = write_nnunet_cohort({"a": (image, label)}, labels=LABELS, affine=affine)

    original = prepare(read_cohort(folder), spacing_mm=(3.0, 3.0, 3.0)).originals["a"]

    expected = nib.as_closest_canonical(nib.load(folder / "labelsTr" / "a.nii.gz"))
    np.testing.assert_array_equal(original.label, np.asarray(expected.dataobj))
    assert original.spacing_mm == pytest.approx(expected.header.get_zooms(), rel=1e-5)
    assert original.shape == expected.shape


@pytest.mark.parametrize("settings", [PreprocessingSettings(), CROPPED])
def test_the_cache_gives_what_preparing_gives(folder: Path, tmp_path: Path, settings: PreprocessingSettings):
    cohort, cache = read_cohort(folder), Cache(tmp_path / "cache")
    none, written, found = (
        prepare(cohort, spacing_mm=(3.0, 3.0, 3.0), settings=settings, cache=use) for use in (None, cache, cache)
    )
    assert [*none.originals] == ["a", "b"]
    assert none.originals == written.originals == found.originals
    for case, original in none.originals.items():
        box = none.recipe["cases"][case]["box"]
        assert box == (original.box and [[side.start, side.stop] for side in original.box])
        assert (box is None) == (settings.crop == "none")
        assert original.kept == (original.box or tuple(slice(0, size) for size in original.shape))
        np.testing.assert_array_equal(original.label, patient(original.shape)[1])


def test_a_damaged_one_in_the_cache_is_made_anew(folder: Path, tmp_path: Path):
    cohort, cache = read_cohort(folder), Cache(tmp_path / "cache")
    before = prepare(cohort, spacing_mm=(3.0, 3.0, 3.0), cache=cache).originals
    for file in (tmp_path / "cache" / "volumes").rglob("*.zip"):
        content, packed = file.read_bytes(), entry.read_array(file, "original").tobytes()
        file.write_bytes(content.replace(packed, packed[:-1] + bytes([packed[-1] ^ 1])))
        assert file.read_bytes() != content
    assert prepare(cohort, spacing_mm=(3.0, 3.0, 3.0), cache=cache).originals == before


def test_of_a_phantom_drawn_at_the_working_spacing_it_is_the_working_label():
    prepared = prepare(phantom_cohort(cases=1, spacing_mm=(4.0, 4.0, 4.0)), spacing_mm=(4.0, 4.0, 4.0))
    for volume in prepared.volumes:
        original = prepared.originals[volume.case_id]
        np.testing.assert_array_equal(original.label, volume.label)
        assert original.spacing_mm == prepared.spacing_mm


@pytest.mark.parametrize(("from_mm", "to_mm"), [(1.0, 2.0), (4.0, 2.0), (0.8, 3.0), (3.0, 0.7)])
@pytest.mark.parametrize("size", [1, 2, 9, 14, 15])
def test_the_way_back_knows_where_resampling_put_its_voxels(size: int, from_mm: float, to_mm: float):
    """A ramp of millimetres stays one: what was resampled tells, read between its voxels, where each of the own was."""
    millimetres = ((np.arange(size) - (size - 1) / 2) * from_mm).astype(np.float32)
    ramp = np.broadcast_to(millimetres[:, None, None], (size, 1, 1))
    new = resample(ramp, (from_mm, 1.0, 1.0), (to_mm, 1.0, 1.0))[:, 0, 0]
    where = between(len(new), to_mm, size, from_mm)
    assert where is not None
    assert 0 <= where.lower.min() <= where.upper.max() < len(new)
    found = new[where.lower] * (1 - where.share) + new[where.upper] * where.share
    # Near its ends a resampled ramp is flat.
    inner = np.abs(millimetres) < np.abs(millimetres).max() - 2 * max(from_mm, to_mm)
    np.testing.assert_allclose(found[inner], millimetres[inner], atol=1e-4)


def test_an_axis_that_kept_its_spacing_is_left_alone():
    assert between(7, 2.0, 7, 2.00001) is None
