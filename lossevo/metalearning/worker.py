"""The worker of a meta-learning run: it does the tasks of outer steps, and whole trainings."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from lossevo.data.augmentation import draw
from lossevo.losses import SegmentationLoss, create
from lossevo.losses.neural import LearnedLoss, LossNetwork
from lossevo.metalearning.networks import tensors
from lossevo.metalearning.tasks import MetaOutcome, MetaTask, packed, unpacked
from lossevo.training import TrainingData
from lossevo.training.batches import Batch, draw_order
from lossevo.training.differentiable import DifferentiableTraining, Tensors, meta_gradient, one_cycle
from lossevo.training.network import build_network
from lossevo.training.trainer import Trainer
from lossevo.training.worker import TrainingWorker

_OUTER_STREAM = 500_000
"""Added to a task's seed for the batches of the outer loss."""


class MetaWorker(TrainingWorker):
    """Does payloads of :class:`MetaTask`, and of training requests as its base class does."""

    def __init__(self, payload: TrainingData) -> None:
        super().__init__(payload)
        self._networks: dict[int, torch.nn.Module] = {}

    def __call__(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do a task or train."""
        if "meta" not in payload:
            return super().__call__(payload)
        return run_task(MetaTask.from_payload(payload), self.trainer).to_payload()


def run_task(task: MetaTask, trainer: Trainer) -> MetaOutcome:
    """Some steps of a training and their meta-gradient; the same task gives the same outcome, bit for bit on a CPU.

    Raises:
        LossevoError: unknown subjects or losses.
        FloatingPointError: a loss, gradient or weight is not finite.
    """
    started = time.perf_counter()
    data, device = trainer.data, trainer.device
    spacing_mm = data.volumes[0].spacing_mm
    network = LossNetwork.from_json(task.network)
    learned = LearnedLoss(network).to(device)
    outer_loss = create(task.outer_loss).to(device)
    outer_loss.use_spacing(spacing_mm)
    names = list(learned.weights)
    kept = torch.tensor([name not in task.masked for name in network.inputs], device=device)

    def inner_loss(logits: Tensor, batch: Batch, parameters: Tensors) -> Tensor:
        first, *others = parameters
        weights = dict(zip(names, (first * kept, *others), strict=True))
        value: Tensor = functional_call(learned, weights, (logits, batch.label, batch.distance_map))
        return value

    training = DifferentiableTraining(
        build_network(
            data.settings,
            channel_count=data.bank.channels,
            class_count=len(data.class_names),
            seed=task.seed,
            device=device,
        ),
        inner_loss,
        optimiser=task.optimiser,
    )
    state = training.initial()
    if task.state:
        state = state.replaced(unpacked(task.state, state.tensors), task.first)
    batches = _batches(trainer, task, task.inner, task.seed, learned)
    (outer_batch,) = _batches(trainer, task, task.outer, task.seed + _OUTER_STREAM, outer_loss)[:1]

    def outer(weights: Sequence[Tensor]) -> Tensor:
        logits = training.logits(weights, outer_batch.image)
        value: Tensor = outer_loss(logits, outer_batch.label, outer_batch.distance_map)
        return value

    with torch.no_grad():
        before = float(outer(state.weights))
    rates = one_cycle(data.settings, task.length)[task.first : task.first + task.steps]
    found = meta_gradient(training, state, batches, rates, [w.to(device) for w in tensors(network)], outer)
    if not all(bool(tensor.isfinite().all()) for tensor in (*found.gradient, *found.state.tensors)):
        raise FloatingPointError(f"meta-gradient or weights are not finite after step {task.first + task.steps}")
    if not math.isfinite(found.value):
        raise FloatingPointError(f"outer loss is {found.value} after step {task.first + task.steps}")
    return MetaOutcome(
        before, found.value, packed(found.gradient), packed(found.state.tensors), time.perf_counter() - started
    )


def _batches(
    trainer: Trainer, task: MetaTask, subjects: Sequence[str], seed: int, loss: SegmentationLoss
) -> list[Batch]:
    """The batches of the task's steps, out of the shuffled epochs of a whole training."""
    settings = trainer.data.settings
    order, flips = draw_order(
        trainer.data.bank.of_subjects(subjects),
        batch_size=settings.batch_size,
        steps=task.length,
        seed=seed,
        flip_probability=trainer.flip_probability,
    )
    now = slice(task.first, task.first + task.steps)
    full = settings.augmentation == "full"
    draws = draw(seed + task.first, steps=task.steps, batch_size=settings.batch_size) if full else None
    return list(trainer.patches.batches(order[now], flips[now], with_distance=loss.uses_distance_map, draws=draws))
