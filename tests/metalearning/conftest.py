"""A meta-training of seconds: balls in noise, a network of two levels, a loss network of four units."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lossevo.cluster import Executor, WorkerSpec, open_executor
from lossevo.data import SEPARATE, prepare, read_cohort
from lossevo.experiment import CohortSource
from lossevo.metalearning import MetaConfig, MetaSettings
from lossevo.training import TaskSettings, make_training_data
from lossevo.training.trainer import Trainer
from tests.cohorts import write_balls

TASK = TaskSettings(patch_size=(8, 16, 16), patches_per_volume=2, channels=(4, 8), strides=(2,), budget_steps=6)
SETTINGS = MetaSettings(
    hidden=(4,),
    inner_steps=2,
    tasks=2,
    outer_steps=6,
    evaluate_every=3,
    evaluation_seeds=1,
    confirmation_seeds=2,
    baselines=("dice", "cross_entropy"),
    distillation_budget=4,
)


@pytest.fixture(scope="session")
def balls_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_balls(tmp_path_factory.mktemp("metalearning") / "balls")


@pytest.fixture(scope="session")
def trainer(balls_folder: Path) -> Trainer:
    prepared = prepare(read_cohort(balls_folder, labels=SEPARATE))
    return Trainer(make_training_data(prepared, TASK))


@pytest.fixture
def config(balls_folder: Path) -> MetaConfig:
    return MetaConfig(settings=SETTINGS, task=TASK, cohort=CohortSource(path=balls_folder))


@pytest.fixture
def in_process() -> Callable[[WorkerSpec], Executor]:
    return lambda spec: open_executor(spec, in_process=True)


def refuse(spec: WorkerSpec) -> Executor:
    """For what needs no executor."""
    raise AssertionError("an executor was made")
