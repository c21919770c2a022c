"""Code of a user's on workers: its source travels, and it runs only where it is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from lossevo.cluster import Status, WorkerSpec, open_executor
from lossevo.errors import LossevoError
from lossevo.experiment.trainings import TRAINING_WORKER
from lossevo.losses import LossModule
from lossevo.training import TrainingData, make_training_data
from tests.training.conftest import SMALL, prepared_balls
from tests.trials import trial_of

CODE = """\
import torch
class Own(torch.nn.Module):
    def forward(self, logits, labels):
        return torch.nn.functional.cross_entropy(logits, labels[:, 0])
"""
SUBJECTS = tuple(f"ball-{number:02d}" for number in range(3))


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return make_training_data(prepared_balls(3), SMALL)


@pytest.fixture(params=["in process", "ray"])
def opened(request):
    """Opens an executor of one worker."""
    if request.param == "in process":
        return lambda spec: open_executor(spec, in_process=True)
    request.getfixturevalue("ray_session")
    return lambda spec: open_executor(spec, workers=1)


@pytest.fixture
def module(tmp_path) -> LossModule:
    """Its file is gone."""
    file = tmp_path / "my_losses.py"
    file.write_text(CODE)
    module = LossModule.read(f"{file}:Own")
    file.unlink()
    return module


def trial(loss: Mapping[str, Any] | str) -> Mapping[str, Any]:
    return trial_of(loss, SUBJECTS[1:], SUBJECTS[:1], 2).to_payload()


def test_its_source_travels_and_it_runs_where_it_is_named(opened, data, module, tmp_path, drain):
    (tmp_path / "others.py").write_text(f"# Another file.\n{CODE}")
    other = LossModule.read(f"{tmp_path / 'others.py'}:Own")
    named = replace(data, loss_modules=(module,), foreign_losses=(module.spec,))
    with opened(WorkerSpec(TRAINING_WORKER, named)) as executor:
        own, known, refused = drain(executor, *map(trial, (module.spec, "cross_entropy", other.spec))).values()
    assert (own.status, known.status, refused.status) == (Status.DONE, Status.DONE, Status.ERROR)
    assert own.value["values"] == known.value["values"]
    assert "is not run unless it is named" in refused.error


def test_it_does_not_run_where_none_is_named(data, module, drain):
    with open_executor(WorkerSpec(TRAINING_WORKER, data), in_process=True) as executor:
        (refused,) = drain(executor, trial(module.spec)).values()
    assert refused.status is Status.ERROR
    assert "is not run unless it is named" in refused.error


def test_a_worker_that_lacks_a_loss_is_none(data):
    """On Ray it is refused as any other that cannot be made (test_conformance.py)."""
    lacking = replace(data, foreign_losses=({"name": "theirs", "distribution": "their-losses 1.2"},))
    with pytest.raises(LossevoError, match="unknown loss 'theirs'"):
        open_executor(WorkerSpec(TRAINING_WORKER, lacking), in_process=True)
