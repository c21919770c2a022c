from __future__ import annotations

import functools
import pickle

import numpy as np
import pytest

from lossevo.data import Case, Cohort, PreparedCohort, Volume, build_patch_bank, entry, prepare
from lossevo.data.cache import Cache
from lossevo.data.patches import Cutting, cut_patch_bank, store_patch_bank
from lossevo.errors import LossevoError

SPACING_MM = (4.0, 1.5, 1.0)


def prepared(*shapes, names="abcdefgh", channels=2, classes=2, seed=0) -> PreparedCohort:
    """Volumes of continuous noise, so that a patch can lie in one place only."""
    volumes = []
    for index, (name, shape) in enumerate(zip(names, shapes, strict=False)):
        rng = np.random.default_rng([seed, index])
        image = rng.normal(size=(channels, *shape)).astype(np.float32)
        label = np.zeros(shape, np.uint8)
        for value in range(1, classes):
            corner = [int(rng.integers(0, size - 2)) for size in shape]
            label[tuple(slice(c, c + 2) for c in corner)] = value
        volumes.append(Volume(name, name, image, label, SPACING_MM))
    class_names = ("background", "L1", "L2", "L3")[:classes]
    return PreparedCohort("test", class_names, SPACING_MM, tuple(volumes), {v.subject: "" for v in volumes}, "")


def subset(cohort: PreparedCohort, subjects: str) -> PreparedCohort:
    volumes = tuple(v for v in cohort.volumes if v.subject in subjects)
    return PreparedCohort(cohort.name, cohort.class_names, cohort.spacing_mm, volumes, dict.fromkeys(subjects, ""), "")


def place_of(patch, image):
    """Where ``patch`` (X, Y, Z) lies in ``image``: found through its first voxel."""
    (place,) = np.argwhere(image == patch[0, 0, 0])
    return tuple(slice(start, start + side) for start, side in zip(place, patch.shape, strict=True))


def brute_force_signed_distances_mm(label, classes: int, spacing_mm):
    points = np.argwhere(np.ones_like(label)) * spacing_mm
    distances = np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))
    maps = np.zeros((classes, label.size))
    for value in range(classes):
        inside = label.ravel() == value
        if inside.any() and not inside.all():
            maps[value] = np.where(inside, -distances[:, ~inside].min(1), distances[:, inside].min(1))
    return maps.reshape(classes, *label.shape)


def test_patches_are_crops_of_the_whole_volume():
    cohort = prepared((9, 12, 14), (10, 11, 13), classes=3)
    bank = build_patch_bank(cohort, patch_size=(4, 5, 6), patches_per_volume=7, seed=1)
    assert bank.image.shape == (14, 2, 4, 5, 6)
    assert bank.label.shape == (14, 4, 5, 6)
    assert bank.distance_mm.shape == (14, 3, 4, 5, 6)
    assert (bank.image.dtype, bank.label.dtype, bank.distance_mm.dtype) == (np.float32, np.uint8, np.float16)
    assert bank.subject == ("a",) * 7 + ("b",) * 7
    for row, subject in enumerate(bank.subject):
        volume = next(v for v in cohort.volumes if v.subject == subject)
        place = place_of(bank.image[row, 0], volume.image[0])
        np.testing.assert_array_equal(bank.image[row], volume.image[:, *place])
        np.testing.assert_array_equal(bank.label[row], volume.label[place])
        whole = brute_force_signed_distances_mm(volume.label, 3, SPACING_MM)
        np.testing.assert_allclose(bank.distance_mm[row], whole[:, *place], rtol=1e-3)


def test_patch_as_large_as_the_volume_is_the_volume():
    cohort = prepared((4, 5, 6))
    bank = build_patch_bank(cohort, patch_size=(4, 5, 6), patches_per_volume=2, seed=0)
    np.testing.assert_array_equal(bank.image, np.stack([cohort.volumes[0].image] * 2))


def test_larger_patch_holds_the_volume_at_varying_places_in_its_background():
    cohort = prepared((4, 9, 6))
    volume = cohort.volumes[0]
    bank = build_patch_bank(cohort, patch_size=(8, 9, 10), patches_per_volume=60, seed=0)
    places = set()
    for image, label, distance_mm in zip(bank.image, bank.label, bank.distance_mm, strict=True):
        # The smallest value is also the background, so the volume is found by the place of another value.
        (anchor,) = np.argwhere(image[0] == np.median(volume.image[0].ravel()[1:]))
        (origin,) = np.argwhere(volume.image[0] == np.median(volume.image[0].ravel()[1:]))
        start = anchor - origin
        around = [
            (low, side - low - size) for low, side, size in zip(start, label.shape, volume.label.shape, strict=True)
        ]
        for channel in range(2):
            background = volume.image[channel].min()
            np.testing.assert_array_equal(
                image[channel], np.pad(volume.image[channel], around, constant_values=background)
            )
        padded_label = np.pad(volume.label, around)
        np.testing.assert_array_equal(label, padded_label)
        expected_mm = brute_force_signed_distances_mm(padded_label, 2, SPACING_MM)
        np.testing.assert_allclose(distance_mm[1][label == 0], expected_mm[1][label == 0], rtol=1e-3)
        assert np.all((distance_mm[1] < 0) == (label == 1))
        places.add(tuple(start.tolist()))
    assert places <= {(x, 0, z) for x in range(5) for z in range(5)}
    assert {x for x, _, _ in places} == {z for _, _, z in places} == set(range(5))


def test_object_at_the_edge_of_the_volume_ends_there_when_the_patch_goes_on():
    cohort = prepared((4, 4, 4))
    cohort.volumes[0].label[:] = 1
    bank = build_patch_bank(cohort, patch_size=(8, 8, 8), patches_per_volume=1, seed=0)
    assert np.all((bank.distance_mm[0, 1] < 0) == (bank.label[0] == 1))


def test_share_of_foreground_patches():
    cohort = prepared((30, 30, 30), classes=3)
    counts = {}
    for share in (0.0, 0.67, 1.0):
        bank = build_patch_bank(cohort, patch_size=(3, 3, 3), patches_per_volume=100, seed=0, foreground_share=share)
        counts[share] = int(bank.label.any(axis=(1, 2, 3)).sum())
    assert counts[0.0] < 10
    assert 67 <= counts[0.67] < 77
    assert counts[1.0] == 100


def test_every_present_class_gets_its_foreground_patches():
    cohort = prepared((30, 30, 30), classes=4)
    label = cohort.volumes[0].label
    label[:] = 0
    label[:10] = 1
    label[25, 25, 25] = 3
    bank = build_patch_bank(cohort, patch_size=(3, 3, 3), patches_per_volume=100, seed=0, foreground_share=1.0)
    assert 30 <= (bank.label == 1).any(axis=(1, 2, 3)).sum() <= 70
    assert 30 <= (bank.label == 3).any(axis=(1, 2, 3)).sum() <= 70


def test_volume_without_foreground_gets_patches_too():
    cohort = prepared((9, 9, 9))
    cohort.volumes[0].label[:] = 0
    bank = build_patch_bank(cohort, patch_size=(4, 4, 4), patches_per_volume=3, seed=0)
    assert bank.image.shape[0] == 3
    assert not bank.distance_mm.any()


def test_bank_is_deterministic_and_seeded():
    cohort = prepared((9, 12, 14), (10, 11, 13))
    build = lambda seed: build_patch_bank(cohort, patch_size=(4, 5, 6), patches_per_volume=5, seed=seed)  # noqa: E731
    np.testing.assert_array_equal(build(3).image, build(3).image)
    assert not np.array_equal(build(3).image, build(4).image)


def test_patches_of_a_subject_do_not_depend_on_the_other_subjects():
    cohort = prepared((9, 12, 14), (10, 11, 13), (9, 9, 9))
    options = {"patch_size": (4, 5, 6), "patches_per_volume": 5, "seed": 7}
    whole, alone = build_patch_bank(cohort, **options), build_patch_bank(subset(cohort, "b"), **options)
    rows = whole.of_subjects(["b"])
    np.testing.assert_array_equal(whole.image[rows], alone.image)
    np.testing.assert_array_equal(whole.label[rows], alone.label)
    np.testing.assert_array_equal(whole.distance_mm[rows], alone.distance_mm)


def test_indices_of_subjects():
    bank = build_patch_bank(prepared(*[(5, 5, 5)] * 3), patch_size=(3, 3, 3), patches_per_volume=2, seed=0)
    np.testing.assert_array_equal(bank.of_subjects(("c", "a")), [0, 1, 4, 5])
    assert bank.of_subjects([]).shape == (0,)
    assert bank.of_subjects(["a"]).dtype == np.int64
    with pytest.raises(ValueError, match=r"no patches of subject\(s\) x, y in the bank"):
        bank.of_subjects(["y", "a", "x"])


def test_bank_is_read_only_and_travels():
    bank = build_patch_bank(prepared((5, 5, 5)), patch_size=(3, 3, 3), patches_per_volume=2, seed=0)
    with pytest.raises(ValueError, match="read-only"):
        bank.image[0] = 0
    copy = pickle.loads(pickle.dumps(bank))
    np.testing.assert_array_equal(copy.distance_mm, bank.distance_mm)


# On disk

CUTTING = Cutting(patch_size=(4, 8, 6), patches_per_volume=5, seed=3)


def stored(folder, *shapes, names="abc") -> PreparedCohort:
    """The volumes of ``prepared`` as a cohort that lies in a cache."""
    volumes = prepared(*shapes, names=names, classes=3).volumes
    cases = tuple(Case(v.case_id, v.subject, functools.partial(lambda v: v, v)) for v in volumes)
    cohort = Cohort("test", ("background", "L1", "L2"), ("T1", "T2"), cases)
    return prepare(cohort, spacing_mm=SPACING_MM, cache=Cache(folder))


def files(folder) -> dict:
    return {file: file.stat().st_ino for file in (folder / "patches").rglob("*.zip")}


def assert_same_patches(bank, held) -> None:
    assert bank.subject == held.subject
    assert bank.channels == held.channels == 2
    for name in ("image", "label", "distance_mm"):
        for rows in (range(len(bank.files)), [7, 2, 7]):
            read = bank.read(rows, name)
            np.testing.assert_array_equal(read, getattr(held, name)[list(rows)])
            assert read.dtype == getattr(held, name).dtype


def test_patches_on_disk_are_those_in_memory(tmp_path):
    cohort = stored(tmp_path, (9, 12, 14), (10, 11, 13), (3, 9, 9))
    bank, held = store_patch_bank(cohort, CUTTING, cohort.cache), cut_patch_bank(cohort, CUTTING)
    assert_same_patches(bank, held)
    np.testing.assert_array_equal(bank.of_subjects(["c", "a"]), held.of_subjects(["c", "a"]))
    assert len(pickle.dumps(bank)) < 10_000
    assert_same_patches(pickle.loads(pickle.dumps(bank)), held)


def test_patches_on_disk_are_cut_once_and_again_where_one_is_damaged(tmp_path):
    cohort = stored(tmp_path, (9, 12, 14), (10, 11, 13), (9, 9, 9))
    bank = store_patch_bank(cohort, CUTTING, cohort.cache)
    before = files(tmp_path)
    assert len(before) == 15
    store_patch_bank(cohort, CUTTING, cohort.cache)
    assert files(tmp_path) == before

    damaged = bank.files[6]
    damaged.write_bytes(damaged.read_bytes()[:100])
    store_patch_bank(cohort, CUTTING, cohort.cache)
    assert {file for file, inode in files(tmp_path).items() if before[file] != inode} == set(bank.files[5:10])
    assert_same_patches(bank, cut_patch_bank(cohort, CUTTING))

    # Another case, seed or size adds files and leaves these as they are.
    more = stored(tmp_path, (9, 12, 14), (10, 11, 13), (9, 9, 9), (8, 8, 8), names="abcd")
    for other in (CUTTING, Cutting((4, 8, 6), 5, 4), Cutting((4, 8, 7), 5, 3)):
        store_patch_bank(more, other, more.cache)
    assert len(files(tmp_path)) == 20 + 20 + 20


def test_patches_that_can_be_held_nowhere(tmp_path, monkeypatch):
    cohort = stored(tmp_path, (9, 12, 14), (10, 11, 13))

    def full(stream, record, arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(entry, "write", full)
    with pytest.warns(UserWarning, match="No space left"), pytest.raises(LossevoError, match="raise --patch-cache"):
        store_patch_bank(cohort, CUTTING, cohort.cache)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"patch_size": (0, 5, 5)}, "patch_size must be three sizes"),
        ({"patches_per_volume": 0}, "patches_per_volume must be at least 1"),
        ({"foreground_share": 1.5}, "foreground_share must be between 0 and 1"),
    ],
)
def test_options_out_of_range(option, message: str):
    options = {"patch_size": (3, 3, 3), "patches_per_volume": 2, "seed": 0} | option
    with pytest.raises(LossevoError, match=message):
        build_patch_bank(prepared((5, 5, 5)), **options)
