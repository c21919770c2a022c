from __future__ import annotations

import functools
import threading
import time
import warnings

import numpy as np
import pytest
import torch
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from lossevo.data import MERGED, SEPARATE, Case, Cohort, CohortWarning, LabelScheme, Volume, prepare, read_cohort
from lossevo.data.augmentation import Augmentation, context_size, draw
from lossevo.data.cache import Cache
from lossevo.data.patches import Cutting, PatchBank, StoredPatchBank, cut_patch_bank, store_patch_bank
from lossevo.errors import LossevoError
from lossevo.training import TaskSettings, TrainingData, make_training_data
from lossevo.training.batches import Batch, PatchStore, draw_order
from lossevo.training.trainer import Trainer

ROWS = np.array([3, 5, 8, 9, 11])


def drawn(steps: int, seed: int = 0, flip_probability: float = 0.5):
    return draw_order(ROWS, batch_size=2, steps=steps, seed=seed, flip_probability=flip_probability)


def test_every_patch_comes_once_before_any_comes_again():
    order, _ = drawn(steps=15)

    for epoch in order.reshape(-1, len(ROWS)):
        assert sorted(epoch) == ROWS.tolist()


def test_a_longer_training_begins_like_a_shorter_one_and_another_seed_differently():
    (long, long_flips), (short, short_flips) = drawn(steps=40), drawn(steps=7)

    np.testing.assert_array_equal(long[:7], short)
    np.testing.assert_array_equal(long_flips[:7], short_flips)
    assert not np.array_equal(drawn(steps=40, seed=1)[0], long)
    assert not np.array_equal(drawn(steps=40, seed=1)[1], long_flips)


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_flip_probability_at_its_ends(probability: float, share: float):
    assert drawn(steps=50, flip_probability=probability)[1].mean() == share


def test_flips_mirror_image_label_and_distance_left_right_and_copy_nothing_of_the_bank():
    rng = np.random.default_rng(0)
    bank = PatchBank(
        image=rng.normal(size=(3, 2, 4, 5, 6)).astype(np.float32),
        label=rng.integers(0, 3, size=(3, 4, 5, 6), dtype=np.uint8),
        distance_mm=rng.normal(size=(3, 3, 4, 5, 6)).astype(np.float16),
        subject=("a", "b", "c"),
    )
    for array in (bank.image, bank.label, bank.distance_mm):
        array.flags.writeable = False  # as it comes out of an object store
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = PatchStore(bank, torch.device("cpu"))

    rows, flips = np.array([[2, 0]]), np.array([[True, False]])
    (batch,) = store.batches(rows, flips, with_distance=True)
    (without,) = store.batches(rows, flips, with_distance=False)

    np.testing.assert_array_equal(batch.image, np.stack([bank.image[2][:, ::-1], bank.image[0]]))
    np.testing.assert_array_equal(batch.label[:, 0], np.stack([bank.label[2][::-1], bank.label[0]]))
    np.testing.assert_array_equal(batch.distance_map, np.stack([bank.distance_mm[2][:, ::-1], bank.distance_mm[0]]))
    assert batch.label.dtype == torch.int64
    assert batch.distance_map.dtype == torch.float32
    assert without.distance_map is None
    assert store._held["image"].data_ptr() == bank.image.ctypes.data


# Patches on disk, and augmentation

SIZE, SPACING_MM = (4, 6, 6), (4.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def banks(tmp_path_factory) -> tuple[StoredPatchBank, PatchBank]:
    """The same patches on disk and in memory, with the surroundings that augmentation needs."""
    rng = np.random.default_rng(0)
    volumes = []
    for name in "abc":
        image, label = rng.normal(size=(2, 9, 14, 13)).astype(np.float32), np.zeros((9, 14, 13), np.uint8)
        label[3:6, 4:9, 5:9] = 1
        volumes.append(Volume(name, name, image, label, SPACING_MM))
    cases = tuple(Case(v.case_id, v.subject, functools.partial(lambda v: v, v)) for v in volumes)
    cohort = Cohort("test", ("background", "L1"), ("T1", "T2"), cases)
    prepared = prepare(cohort, spacing_mm=SPACING_MM, cache=Cache(tmp_path_factory.mktemp("cache")))
    cutting = Cutting(context_size(SIZE, SPACING_MM), 4, seed=0)
    return store_patch_bank(prepared, cutting, prepared.cache), cut_patch_bank(prepared, cutting)


def batches(bank, *, steps: int = 23, seed: int = 0, with_distance: bool = True, full: bool = True) -> list[Batch]:
    order, flips = draw_order(np.arange(12), batch_size=3, steps=steps, seed=seed, flip_probability=0.5)
    store = PatchStore(bank, torch.device("cpu"), Augmentation(SIZE, SPACING_MM, 2) if full else None)
    draws = draw(seed, steps=steps, batch_size=3) if full else None
    return list(store.batches(order, flips, with_distance=with_distance, draws=draws))


def assert_same_batches(first: list[Batch], second: list[Batch]) -> None:
    for one, other in zip(first, second, strict=True):
        for name in ("image", "label", "distance_map"):
            torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0)


@pytest.mark.parametrize("full", [False, True])
def test_batches_do_not_depend_on_where_the_patches_lie_nor_on_how_fast_they_are_read(banks, full, monkeypatch):
    on_disk, in_memory = banks
    expected = batches(in_memory, full=full)
    assert_same_batches(batches(on_disk, full=full), expected)

    read, delay_s = StoredPatchBank.read, iter(np.random.default_rng(0).uniform(0, 0.004, 1000))

    def slow(self, rows, name):
        time.sleep(next(delay_s))
        return read(self, rows, name)

    monkeypatch.setattr(StoredPatchBank, "read", slow)
    assert_same_batches(batches(on_disk, full=full), expected)


@pytest.mark.parametrize("where", [0, 1])
def test_a_loss_that_needs_no_distances_gets_the_same_batches(banks, where: int):
    with_map, without = batches(banks[where]), batches(banks[where], with_distance=False)
    for one, other in zip(with_map, without, strict=True):
        torch.testing.assert_close(one.image, other.image, rtol=0, atol=0)
        torch.testing.assert_close(one.label, other.label, rtol=0, atol=0)
        assert other.distance_map is None
        assert one.image.shape == (3, 2, *SIZE)


def test_a_longer_augmented_training_begins_like_a_shorter_one(banks):
    assert_same_batches(batches(banks[1], steps=30)[:8], batches(banks[1], steps=8))


@pytest.mark.parametrize("steps", [1, 3, 4, 5])
def test_as_many_batches_as_steps_however_far_the_reader_is_ahead(banks, steps: int):
    assert len(batches(banks[0], steps=steps, full=False)) == steps


def test_a_training_that_ends_early_ends_its_reader(banks):
    order, flips = draw_order(np.arange(12), batch_size=3, steps=100, seed=0, flip_probability=0.5)
    begun = PatchStore(banks[0], torch.device("cpu")).batches(order, flips, with_distance=False)
    next(begun)
    begun.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lossevo-patches")]


def test_a_patch_that_is_gone_stops_the_training(banks, tmp_path):
    on_disk = banks[0]
    broken = StoredPatchBank((*on_disk.files[:-1], tmp_path / "gone.zip"), on_disk.subject, on_disk.channels)
    with pytest.raises(LossevoError, match=r"gone\.zip: cannot be read"):
        batches(broken)


def test_a_worker_without_the_shared_disk_is_not_made(banks, tmp_path):
    elsewhere = StoredPatchBank((tmp_path / "elsewhere.zip",), ("a",), 2)
    with pytest.raises(LossevoError, match="Workers on other machines need LOSSEVO_CACHE on a disk that all share"):
        PatchStore(elsewhere, torch.device("cpu"))


def test_a_mirrored_patch_has_its_sides_exchanged() -> None:
    """Labels and distance maps: what lies on the left of a mirrored image is the left one again."""
    label = np.zeros((1, 4, 1, 1), np.uint8)
    label[0, :, 0, 0] = (1, 0, 0, 2)
    distance = np.stack([np.full((4, 1, 1), value, np.float16) for value in range(3)])[None]
    image = np.arange(4, dtype=np.float32).reshape(1, 1, 4, 1, 1)
    store = PatchStore(PatchBank(image, label, distance, ("a",)), torch.device("cpu"), mirrored=(0, 2, 1))
    rows, flips = np.zeros((1, 2), np.int64), np.array([[False, True]])
    (batch,) = store.batches(rows, flips, with_distance=True)
    assert batch.label[:, 0, :, 0, 0].tolist() == [[1, 0, 0, 2], [1, 0, 0, 2]]
    assert batch.image[1, 0, :, 0, 0].tolist() == [3, 2, 1, 0]
    assert batch.distance_map is not None
    assert batch.distance_map[:, :, 0, 0, 0].tolist() == [[0, 1, 2], [0, 2, 1]]


@pytest.mark.parametrize("code", ["RAS", "LPS", "PIR"])
def test_sides_are_exchanged_where_training_mirrors_however_files_are_stored(write_nnunet_cohort, code: str) -> None:
    label = np.zeros((8, 8, 8), np.uint8)
    label[1:3, 2:6, 2:6], label[5:7, 2:6, 2:6] = 1, 2  # the first axis runs to the right
    cases = {
        name: (np.random.default_rng(n).normal(size=label.shape) + 9 * label, label) for n, name in enumerate("abc")
    }
    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(code))
    stored = {
        name: (apply_orientation(image.astype(np.float32), change), apply_orientation(mask, change).astype(np.uint8))
        for name, (image, mask) in cases.items()
    }
    folder = write_nnunet_cohort(
        stored,
        labels={"background": 0, "Kidney_L": 1, "Kidney_R": 2},
        affine=inv_ornt_aff(change, label.shape),
    )
    settings = TaskSettings(patch_size=(8, 8, 8), patches_per_volume=1, flip_probability=0.5)
    data = make_training_data(prepare(read_cohort(folder), spacing_mm=(1.0, 1.0, 1.0)), settings)
    trainer = Trainer(data, device=torch.device("cpu"))
    assert (data.mirrored, trainer.flip_probability) == ((0, 2, 1), 0.5)

    rows, flips = np.zeros((1, 2), np.int64), np.array([[False, True]])
    (batch,) = trainer.patches.batches(rows, flips, with_distance=True)
    seen, mirrored = batch.label[:, 0].numpy()
    np.testing.assert_array_equal(seen, label)
    np.testing.assert_array_equal(mirrored, np.array([0, 2, 1])[label[::-1]])
    np.testing.assert_array_equal(batch.image[1], batch.image[0].flip(1))
    np.testing.assert_array_equal(batch.distance_map[1], batch.distance_map[0][[0, 2, 1]].flip(1))
    # Left stays left: at the smaller x, as in every patient.
    assert np.argwhere(mirrored == 1)[:, 0].max() < np.argwhere(mirrored == 2)[:, 0].min()


@pytest.mark.parametrize(
    ("labels", "scheme", "mirrored"),
    [
        ({"kidney_L": 1, "liver": 2}, SEPARATE, None),
        ({"kidney_L": 1, "kidney_R": 2}, LabelScheme(classes={"kidney": ("kidney_L",)}), None),
        ({"kidney_L": 1, "kidney_R": 2}, MERGED, (0, 1)),
        ({"kidney_L": 1, "kidney_R": 2}, LabelScheme(classes="separate", mirror_pairs="off"), None),
        ({"a": 1, "b": 2}, LabelScheme(classes="separate", mirror_pairs=(("a", "b"),)), (0, 2, 1)),
    ],
)
def test_what_training_mirrors_is_part_of_what_identifies_it(write_nnunet_cohort, labels, scheme, mirrored) -> None:
    rng = np.random.default_rng(0)
    cases = {name: (rng.normal(size=(8, 8, 8)), rng.integers(0, 3, (8, 8, 8), np.uint8)) for name in "ab"}
    folder = write_nnunet_cohort(cases, labels={"background": 0, **labels})

    def made(labels: LabelScheme) -> TrainingData:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CohortWarning)
            cohort = read_cohort(folder, labels=labels)
        return make_training_data(prepare(cohort, spacing_mm=(1.0, 1.0, 1.0)), TaskSettings())

    data = made(scheme)
    assert data.mirrored == mirrored
    assert Trainer(data, device=torch.device("cpu")).flip_probability == (0.0 if mirrored is None else 0.5)
    otherwise = made(scheme.model_copy(update={"mirror_pairs": ()}))
    assert (otherwise.fingerprint == data.fingerprint) == (otherwise.mirrored == data.mirrored)
