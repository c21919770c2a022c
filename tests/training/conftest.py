from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import numpy as np
import pytest

from lossevo.data.cohort import Volume
from lossevo.data.preprocessing import PreparedCohort
from lossevo.training import TaskSettings, TrainingData, make_training_data

SMALL = TaskSettings(patch_size=(16, 24, 24), patches_per_volume=2)


def ball_volume(number: int, *, shape: tuple[int, int, int], channels: int = 1, classes: int = 2) -> Volume:
    """Bright balls, one per foreground class, in unit noise."""
    rng = np.random.default_rng([77, number])
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"), axis=-1)
    image = rng.normal(size=(channels, *shape)).astype(np.float32)
    label = np.zeros(shape, np.uint8)
    for value in range(1, classes):
        centre = rng.uniform(0.3, 0.7, size=3) * shape
        inside = np.linalg.norm(grid - centre, axis=-1) < min(shape) / 4
        label[inside] = value
        image[:, inside] += 3.0 * value
    name = f"ball-{number:02d}"
    return Volume(case_id=name, subject=name, image=image, label=label, spacing_mm=(4.0, 4.0, 4.0))


def prepared_balls(
    cases: int = 8, *, shape: tuple[int, int, int] = (16, 24, 24), channels: int = 1, classes: int = 2
) -> PreparedCohort:
    volumes = tuple(ball_volume(n, shape=shape, channels=channels, classes=classes) for n in range(cases))
    return PreparedCohort(
        name="balls",
        class_names=("background", *(f"ball{value}" for value in range(1, classes))),
        spacing_mm=(4.0, 4.0, 4.0),
        volumes=volumes,
        subject_hashes=MappingProxyType({volume.subject: volume.case_id for volume in volumes}),
        fingerprint=f"balls-{cases}-{shape}-{channels}-{classes}",
    )


@pytest.fixture(scope="session")
def small_settings() -> TaskSettings:
    return SMALL


@pytest.fixture(scope="session")
def make_balls() -> Callable[..., PreparedCohort]:
    return prepared_balls


@pytest.fixture(scope="session")
def balls() -> TrainingData:
    """Eight subjects of one volume each, as large as a patch."""
    return make_training_data(prepared_balls(), SMALL)
