"""What preprocessing gives, pinned: results of different preprocessing must not meet in one ranking."""

from __future__ import annotations

import numpy as np
import pytest

from lossevo.data import prepare, read_cohort
from lossevo.data.preprocessing import PREPROCESSING_VERSION, PreprocessingSettings

SETTINGS = {
    "default": PreprocessingSettings(),
    "body": PreprocessingSettings(crop="body", statistics="body"),
}
GOLDEN = {
    2: {
        "default": [3211.0, 98.0, 0.0, 1.0, -0.844064],
        "body": [3211.0, 98.0, -1.420448, 1.386971, -2.474802],
    },
}
"""Of each version: voxels, labelled voxels, mean, standard deviation and last voxel of the image."""


def found(what: str, write_nnunet_cohort) -> list[float]:
    generator = np.random.default_rng(7)
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in (20, 26, 14)), indexing="ij"), axis=-1)
    near = np.linalg.norm((grid - (9, 12, 7)) / (1, 1.3, 0.7), axis=-1)
    image = np.where(near < 9, 400 - 12 * near, 0) + generator.uniform(0, 20, near.shape)
    folder = write_nnunet_cohort({"a": (image.astype(np.float32), (near < 4).astype(np.uint8))}, spacing_mm=(2, 1.5, 4))
    (stored,) = prepare(read_cohort(folder), spacing_mm=(3.0, 3.0, 3.0), settings=SETTINGS[what]).volumes
    volume = stored.read()
    voxels = volume.image.astype(float)
    return [*map(float, (volume.label.size, volume.label.sum(), voxels.mean(), voxels.std(), voxels.flat[-1]))]


@pytest.mark.parametrize("what", SETTINGS)
def test_preprocessing_gives_what_it_gave(what: str, write_nnunet_cohort):
    golden = GOLDEN.get(PREPROCESSING_VERSION)
    measured = found(what, write_nnunet_cohort)
    assert golden is not None, f"put what version {PREPROCESSING_VERSION} gives into GOLDEN: {measured}"
    assert measured == pytest.approx(golden[what], rel=1e-4, abs=1e-4), (
        "the same case is prepared otherwise: raise PREPROCESSING_VERSION in lossevo/data/preprocessing.py, and put "
        "what the new version gives into GOLDEN"
    )
