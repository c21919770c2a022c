"""Code of a user's on workers: its source travels, and it runs only where it is allowed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lossevo.cluster import Status, WorkerSpec, open_executor
from lossevo.errors import LossevoError
from lossevo.experiment.trainings import TRAINING_WORKER
from lossevo.losses import LossModule
from lossevo.training import make_training_data
from tests.training.conftest import SMALL, prepared_balls
from tests.trials import trial_of

CODE = """\
import torch
class Own(torch.nn.Module):
    def forward(self, logits, labels):
        return torch.nn.functional.cross_entropy(logits, labels[:, 0])
"""
SUBJECTS = tuple(f"ball-{number:02d}" for number in range(3))


@pytest.fixture(params=["in process", "ray"])
def opened(request):
    """Opens an executor of one worker."""
    if request.param == "in process":
        return lambda spec: open_executor(spec, in_process=True)
    request.getfixturevalue("ray_session")
    return lambda spec: open_executor(spec, workers=1)


def test_its_source_travels_and_it_runs_where_it_is_allowed(opened, tmp_path, drain):
    data = make_training_data(prepared_balls(3), SMALL)
    file = tmp_path / "my_losses.py"
    file.write_text(CODE)
    module = LossModule.read(f"{file}:Own")
    file.unlink()
    trials = [trial_of(loss, SUBJECTS[1:], SUBJECTS[:1], 2).to_payload() for loss in (module.spec, "cross_entropy")]
    with opened(
        WorkerSpec(TRAINING_WORKER, replace(data, loss_modules=(module,), foreign_losses=(module.spec,)))
    ) as ours:
        own, known = drain(ours, *trials).values()
    assert (own.status, known.status) == (Status.DONE, Status.DONE)
    assert own.value["values"] == known.value["values"]
    with opened(WorkerSpec(TRAINING_WORKER, data)) as others:
        (outcome,) = drain(others, trials[0]).values()
    assert outcome.status is Status.ERROR
    assert "is not run unless it is named" in outcome.error
    lacking = replace(data, foreign_losses=({"name": "theirs", "distribution": "their-losses 1.2"},))
    with pytest.raises(LossevoError, match="unknown loss 'theirs'"):
        opened(WorkerSpec(TRAINING_WORKER, lacking))
