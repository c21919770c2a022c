"""A cohort that does not fit into the memory allowed is read from the cache, and trains to the same result."""

from __future__ import annotations

import dataclasses
import functools
import pickle

import numpy as np
import pytest

from lossevo.data import Case, Cohort, PatchBank, prepare
from lossevo.data.cache import Cache, StoredVolume
from lossevo.data.patches import StoredPatchBank
from lossevo.errors import LossevoError
from lossevo.training import make_training_data
from lossevo.training.trainer import train
from tests.trials import trial_of

REQUEST = trial_of("dice", ("ball-00", "ball-01", "ball-02"), ("ball-03",), 6, seed=1)


@pytest.fixture(scope="module")
def prepared(make_balls, tmp_path_factory):
    volumes = make_balls(4, shape=(18, 26, 24)).volumes
    cases = tuple(Case(v.case_id, v.subject, functools.partial(lambda v: v, v)) for v in volumes)
    cohort = Cohort("balls", ("background", "ball1"), ("MRI",), cases)
    return prepare(cohort, spacing_mm=volumes[0].spacing_mm, cache=Cache(tmp_path_factory.mktemp("cache")))


def needed_bytes(data) -> int:
    """What patches and volumes take in memory."""
    bank = sum(getattr(data.bank, name).nbytes for name in ("image", "label", "distance_mm"))
    return bank + sum(volume.image.nbytes + volume.label.nbytes for volume in data.volumes)


def test_the_bound_is_kept_to_the_byte(prepared, small_settings):
    held = make_training_data(prepared, small_settings)
    bound = needed_bytes(held)
    assert isinstance(make_training_data(prepared, small_settings, patch_cache_bytes=bound).bank, PatchBank)
    on_disk = make_training_data(prepared, small_settings, patch_cache_bytes=bound - 1)
    assert isinstance(on_disk.bank, StoredPatchBank)
    assert all(isinstance(volume, StoredVolume) for volume in on_disk.volumes)
    assert not any(isinstance(volume, StoredVolume) for volume in held.volumes)
    assert on_disk.fingerprint == held.fingerprint


def test_what_travels_to_a_worker_is_small(prepared, small_settings):
    on_disk = make_training_data(prepared, small_settings, patch_cache_bytes=0)
    assert len(pickle.dumps(on_disk)) < 20_000 < needed_bytes(make_training_data(prepared, small_settings)) / 10


@pytest.mark.parametrize("augmentation", ["flip", "full"])
@pytest.mark.parametrize("loss", ["dice", "boundary"])
def test_the_result_does_not_depend_on_the_bound(prepared, small_settings, augmentation: str, loss: str):
    settings = small_settings.model_copy(update={"augmentation": augmentation})
    request = dataclasses.replace(REQUEST, loss={"name": loss})
    held, on_disk = (
        train(request, pickle.loads(pickle.dumps(make_training_data(prepared, settings, patch_cache_bytes=bound))))
        for bound in (2**30, 0)
    )
    assert on_disk.curve == held.curve
    assert on_disk.values == held.values
    assert np.isfinite(held.mean("dice"))


def test_without_a_cache_the_memory_must_suffice(make_balls, small_settings):
    with pytest.raises(
        LossevoError, match=r"more than the .* MiB allowed, and there is no cache on disk.*--patch-cache"
    ):
        make_training_data(make_balls(4), small_settings, patch_cache_bytes=1000)
