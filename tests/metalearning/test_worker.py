"""A task: some steps of a true training of the U-Net, and the gradient of what they lead to."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.func import functional_call

from lossevo.errors import LossevoError
from lossevo.losses.neural import LearnedLoss, LossNetwork
from lossevo.metalearning.networks import random_network, tensors, with_weights
from lossevo.metalearning.tasks import MetaTask, unpacked
from lossevo.metalearning.worker import MetaWorker, run_task
from lossevo.training.network import build_network
from lossevo.training.trainer import Trainer
from tests.metalearning.conftest import TASK
from tests.trials import trial_of


def network(*inputs: str) -> LossNetwork:
    generator = torch.Generator().manual_seed(2)
    return random_network(inputs or ("margin", "target"), (4,), "tanh", generator)


def task(trainer: Trainer, **changes: object) -> MetaTask:
    subjects = tuple(sorted({volume.subject for volume in trainer.data.volumes}))
    made = MetaTask(
        network=network().to_json(),
        masked=(),
        optimiser="adam",
        fixed_length=False,
        cool_down=False,
        outer_loss="dice_ce",
        inner=subjects[:4],
        outer=subjects[4:],
        outer_batches=2,
        seed=11,
        length=TASK.budget_steps,
        first=0,
        steps=2,
        state="",
    )
    return replace(made, **changes)


def test_the_same_task_has_the_same_outcome(trainer: Trainer) -> None:
    first, second = (replace(run_task(task(trainer), trainer), seconds=0.0) for _ in range(2))
    assert first == second
    assert first.after != first.before


def test_steps_in_pieces_are_steps_at_once(trainer: Trainer) -> None:
    whole = run_task(task(trainer, steps=4), trainer)
    state = ""
    for first in (0, 2):
        piece = run_task(task(trainer, first=first, state=state), trainer)
        state = piece.state
    assert state == whole.state


def test_it_is_the_training_that_the_trainer_does(trainer: Trainer) -> None:
    """The same network after the same steps as with PyTorch's own optimiser and schedule."""
    done = run_task(task(trainer, steps=TASK.budget_steps), trainer)
    theirs = build_network(TASK, channel_count=1, class_count=2, seed=11, device=torch.device("cpu"))
    state = unpacked(done.state, [*theirs.parameters()] * 3)
    weights: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, arguments: object, output: object) -> None:
        weights[:] = [parameter.detach().clone() for parameter in module.parameters()]

    def watched(*arguments: object, **options: object) -> torch.nn.Module:
        made = build_network(*arguments, **options)  # type: ignore[arg-type]
        made.register_forward_hook(keep)
        return made

    subjects = task(trainer).inner
    request = trial_of({"learned": network().to_json()}, subjects, task(trainer).outer, TASK.budget_steps, 11)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lossevo.training.session.build_network", watched)
        trainer.train(request)
    # The hook last saw them in the validation, after the last step. A bias before a norm has a gradient of rounding
    # alone, which Adam makes a step of: what counts is what the network says.
    image = torch.randn(1, 1, *TASK.patch_size, generator=torch.Generator().manual_seed(0))
    names = [name for name, _ in theirs.named_parameters()]
    said, expected = (
        functional_call(theirs, dict(zip(names, found[: len(names)], strict=True)), (image,))
        for found in (state, weights)
    )
    torch.testing.assert_close(said, expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(said, theirs(image), atol=0.1)


def test_the_gradient_is_that_of_the_outer_loss(trainer: Trainer) -> None:
    """Along the gradient the outer loss falls as fast as its norm says."""
    here = run_task(task(trainer, optimiser="sgd"), trainer)
    weights = tensors(network())
    gradient = unpacked(here.gradient, weights)
    norm = float(torch.cat([part.flatten() for part in gradient]).norm())
    values = []
    for sign in (1, -1):
        moved = [w + sign * 0.3 * g / norm for w, g in zip(weights, gradient, strict=True)]
        there = with_weights(network(), moved).to_json()
        values.append(run_task(task(trainer, optimiser="sgd", network=there), trainer))
    slope = (values[0].after - values[1].after) / 0.6
    assert slope == pytest.approx(norm, rel=0.05)


def test_a_masked_input_counts_as_0(trainer: Trainer) -> None:
    shaped = network("margin", "target", "distance")
    masked = run_task(task(trainer, network=shaped.to_json(), masked=("distance",)), trainer)
    free = run_task(task(trainer, network=shaped.to_json()), trainer)
    assert masked.after != free.after
    first, _ = unpacked(masked.gradient, tensors(shaped))
    assert not first[:, 2].any()
    assert first[:, :2].any()
    without = LossNetwork(("margin", "target"), (tuple(row[:2] for row in shaped.layers[0]), shaped.layers[1]), "tanh")
    assert run_task(task(trainer, network=without.to_json()), trainer).after == pytest.approx(masked.after, rel=1e-5)


def test_a_task_that_diverges_says_at_which_step(trainer: Trainer) -> None:
    wild = with_weights(network(), [1e30 * weight for weight in tensors(network())])
    with pytest.raises(FloatingPointError, match=r"not finite after step 2|outer loss is .* after step 2"):
        run_task(task(trainer, network=wild.to_json(), optimiser="sgd"), trainer)


def test_unknown_subjects_are_an_error(trainer: Trainer) -> None:
    with pytest.raises((LossevoError, ValueError), match="nobody"):
        run_task(task(trainer, inner=("nobody",)), trainer)


def test_the_worker_does_both_tasks_and_trainings(trainer: Trainer) -> None:
    worker = MetaWorker(trainer.data)
    done = worker(task(trainer).to_payload())
    assert {*done} == {"before", "after", "gradient", "state", "seconds"}
    request = trial_of("dice", task(trainer).inner, task(trainer).outer, 2)
    assert "values" in worker(request.to_payload())


def test_a_learned_loss_s_weights_are_left_alone(trainer: Trainer) -> None:
    loss = LearnedLoss(network())
    before = [weight.clone() for weight in loss.weights.values()]
    run_task(task(trainer), trainer)
    assert all(torch.equal(one, other) for one, other in zip(before, loss.weights.values(), strict=True))


_GROWTH = """
import sys
from pathlib import Path
from lossevo.data import prepare, read_cohort
from lossevo.metalearning.learner import Learner
from lossevo.metalearning.worker import MetaWorker
from lossevo.metalearning.tasks import MetaOutcome
from lossevo.training import make_training_data
from tests.metalearning.conftest import SETTINGS, TASK

data = make_training_data(prepare(read_cohort(Path(sys.argv[1]))), TASK)
worker = MetaWorker(data)
learner = Learner(SETTINGS, tuple(sorted({v.subject for v in data.volumes})), TASK.budget_steps, 0)

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

seen = {}
last = int(sys.argv[2])
while learner.step < last:
    learner.learn([MetaOutcome(**worker(task.to_payload())) for task in learner.tasks()])
    if learner.step in (10, last):
        seen[learner.step] = resident_mb()
print(seen[last] - seen[10])
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.parametrize("steps", [30, pytest.param(200, marks=pytest.mark.chaos)])
def test_memory_does_not_grow_with_outer_steps(balls_folder: Path, steps: int) -> None:
    """A graph that is kept, as of public implementations, would be hundreds of MiB: one step's has some ten."""
    command = [sys.executable, "-c", _GROWTH, str(balls_folder), str(steps)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=300)
    assert float(done.stdout) < 15
