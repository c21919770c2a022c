from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lossevo.cluster import Executor, WorkerSpec, open_executor
from lossevo.comparison import ComparisonConfig, configure, contenders_with_specs
from lossevo.data import Fold
from lossevo.experiment import CohortSource, Ledger, Subjects, hall_of_fame
from lossevo.experiment.candidate import Candidate
from lossevo.experiment.origin import Distilled, Evolved, HandCrafted, MetaLearned
from lossevo.export.document import document_of
from lossevo.expression import Expression
from lossevo.losses.neural import LossNetwork
from lossevo.search import Run, RunConfig, load_space
from lossevo.training import TaskSettings
from tests.networks import CROSS_ENTROPY
from tests.trials import trial_of

SMALL = TaskSettings(patch_size=(8, 16, 16), patches_per_volume=2, channels=(4, 8), strides=(2,), budget_steps=3)
SPACING_MM = (4.0, 4.0, 4.0)

Balls = Callable[..., Path]
SearchedRun = Callable[..., Path]


def ball(number: int, *, bright: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Image and label (8, 16, 16): a bright ball in unit noise."""
    rng = np.random.default_rng([5, number])
    shape = (8, 16, 16)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    inside = np.linalg.norm(grid - rng.uniform(0.35, 0.65, size=3) * shape, axis=-1) < 3.5
    image = rng.normal(10, 1, size=shape) + bright * inside
    return image.astype(np.float32), inside.astype(np.uint8)


@pytest.fixture
def balls(write_nnunet_cohort) -> Balls:
    """Writes a cohort of small balls; ``names`` maps the names of the cases to the numbers of the balls."""

    def write(names: dict[str, int] | int, name: str = "balls") -> Path:
        if isinstance(names, int):
            names = {f"ball_{number:02d}": number for number in range(names)}
        cases = {case: ball(number) for case, number in names.items()}
        return write_nnunet_cohort(cases, spacing_mm=SPACING_MM, name=name)

    return write


@pytest.fixture
def searched_run(tmp_path: Path) -> SearchedRun:
    """A run folder as a search leaves it: an evolved loss first, a hand-crafted one second."""

    def make(
        cohort: Path,
        name: str = "myo",
        *,
        seed: int = 0,
        evolved: str = "class_mean(mean(y / p - 2.0 * logp))",
        fold: Fold | None = None,
    ):
        config = RunConfig(
            space=load_space("segmentation"),
            task=SMALL,
            cohort=CohortSource(path=cohort),
            spacing_mm=SPACING_MM,
            seed=seed,
            fold=fold,
        )
        folder = tmp_path / "runs" / name
        Run.create(folder, config)
        candidates = [
            Candidate(Expression.parse(evolved), Evolved("crossover", ("a", "b")), 0, {2: {0: 0.8}}),
            Candidate(Expression.parse("-class_sum(mean(y * logp))"), HandCrafted("cross_entropy"), 1, {2: {0: 0.7}}),
        ]
        for candidate in candidates:
            put_on_record(folder, candidate.id, candidate.spec)
        hall_of_fame.write(hall_of_fame.rank(candidates, 3), folder)
        return folder

    return make


def put_on_record(run: Path, loss_id: str, spec: dict[str, object]) -> None:
    """As a search does it when it is about to train with a loss."""
    subjects = Subjects.read(run)
    request = trial_of(spec, subjects.train, subjects.validation, 3)
    with Ledger(run / "ledger.sqlite") as ledger:
        ledger.submit(len(ledger.records()), "evolution", loss_id, request.to_payload())


@pytest.fixture
def metalearned_run(searched_run: SearchedRun) -> Callable[[Path], Path]:
    """A run folder as meta-learning leaves it: a loss network first, what it was distilled to second."""

    def make(cohort: Path) -> Path:
        folder = searched_run(cohort, "learned")
        distilled = hall_of_fame.read(folder)[0]
        network = replace(
            distilled,
            id=CROSS_ENTROPY.hash[:8],
            formula=str(CROSS_ENTROPY),
            unicode=str(CROSS_ENTROPY),
            complexity=CROSS_ENTROPY.weight_count,
            origin=MetaLearned(200),
            loss={"learned": CROSS_ENTROPY.to_json()},
        )
        put_on_record(folder, network.id, network.loss)
        hall_of_fame.write([network, replace(distilled, rank=2, origin=Distilled((network.id,), 0.9))], folder)
        config = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        kept = {key: config[key] for key in ("cohort", "labels", "spacing_mm", "task", "seed")}
        document = {"format": "lossevo.metalearning/3", "settings": {"outer_loss": "dice"}, **kept}
        (folder / "run.json").write_text(json.dumps(document), encoding="utf-8")
        return folder

    return make


@pytest.fixture
def write_loss(tmp_path):
    def write(folder: str, loss: str | LossNetwork = "class_mean(mean(y / p))", **metadata):
        path = tmp_path / folder / "loss.json"
        path.parent.mkdir(parents=True)
        definition = Expression.parse(loss) if isinstance(loss, str) else loss
        path.write_text(document_of(definition, metadata).to_text(), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def in_process() -> Callable[[WorkerSpec], Executor]:
    return lambda spec: open_executor(spec, in_process=True)


Configure = Callable[..., ComparisonConfig]


@pytest.fixture(scope="session")
def configured() -> Configure:
    """The configuration of a comparison of a few seconds on a cohort of balls."""

    def make(cohort: Path, losses=("cross_entropy", "dice"), hof=(), loss_files=(), **given):
        given = {"steps": 3, "folds": 2, "spacing_mm": SPACING_MM, "task": SMALL, **given}
        return configure(contenders_with_specs(losses, map(str, hof), loss_files), CohortSource(path=cohort), **given)

    return make
