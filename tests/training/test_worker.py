"""A worker of trainings, in a process that has other things to do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from lossevo.training.worker import TrainingWorker
from tests.trials import trial_of

SUBJECTS = tuple(f"ball-{number:02d}" for number in range(8))


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_a_training_takes_one_thread_and_leaves_as_many_as_there_were(balls, two_threads, monkeypatch):
    worker = TrainingWorker(balls)
    threads = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda *given, **options: threads.append(torch.get_num_threads()) or step(*given)
    )
    loss = {"name": "dice_ce", "parameters": {}}
    done = trial_of(loss, SUBJECTS[2:], SUBJECTS[:2], 3).to_payload()
    assert worker(done)["values"]["dice"]
    assert set(threads) == {1}
    assert torch.get_num_threads() == 2
    with pytest.raises(Exception, match="steps is -1"):
        worker(done | {"steps": -1})
    assert torch.get_num_threads() == 2
