from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from lossevo.data.patches import PatchBank
from lossevo.training.batches import PatchStore, draw_order

ROWS = np.array([3, 5, 8, 9, 11])


def draw(steps: int, seed: int = 0, flip_probability: float = 0.5):
    return draw_order(ROWS, batch_size=2, steps=steps, seed=seed, flip_probability=flip_probability)


def test_every_patch_comes_once_before_any_comes_again():
    order, _ = draw(steps=15)

    for epoch in order.reshape(-1, len(ROWS)):
        assert sorted(epoch) == ROWS.tolist()


def test_a_longer_training_begins_like_a_shorter_one_and_another_seed_differently():
    (long, long_flips), (short, short_flips) = draw(steps=40), draw(steps=7)

    np.testing.assert_array_equal(long[:7], short)
    np.testing.assert_array_equal(long_flips[:7], short_flips)
    assert not np.array_equal(draw(steps=40, seed=1)[0], long)
    assert not np.array_equal(draw(steps=40, seed=1)[1], long_flips)


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_flip_probability_at_its_ends(probability: float, share: float):
    assert draw(steps=50, flip_probability=probability)[1].mean() == share


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
    assert store._image.data_ptr() == bank.image.ctypes.data
