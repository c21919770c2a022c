"""The worker of a meta-learning run: it does the tasks of outer steps, and whole trainings."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from lossevo.data.augmentation import draw
from lossevo.losses import SegmentationLoss, create, parameters
from lossevo.losses.neural import LearnedLoss, LossNetwork
from lossevo.metalearning.networks import tensors
from lossevo.metalearning.tasks import MetaOutcome, MetaTask, packed, unpacked
from lossevo.training import TrainingData
from lossevo.training.batches import Batch, draw_order
from lossevo.training.differentiable import DifferentiableTraining, Tensors, meta_gradient
from lossevo.training.network import build_network
from lossevo.training.schedule import Rates, rates_of
from lossevo.training.threads import one_thread
from lossevo.training.trainer import Trainer
from lossevo.training.worker import TrainingWorker

_OUTER_STREAM = 50_000
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
        with one_thread():
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
    outer_loss = make_outer_loss(task.outer_loss).to(device)
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
        fixed_length=task.fixed_length,
    )
    state = training.initial()
    if task.state:
        state = state.replaced(unpacked(task.state, state.tensors), task.first)
    now = slice(task.first, task.first + task.steps)
    batches = _batches(trainer, task, task.inner, task.seed, now, learned)
    # Others for every look: those of the shuffled epochs that a training as long would come to.
    look = task.first // task.steps * task.outer_batches if task.steps else 0
    outer_batches = _batches(
        trainer, task, task.outer, task.seed + _OUTER_STREAM, slice(look, look + task.outer_batches), outer_loss
    )

    def outer(batch: Batch, weights: Sequence[Tensor]) -> Tensor:
        value: Tensor = outer_loss(training.logits(weights, batch.image), batch.label, batch.distance_map)
        return value

    with torch.no_grad():
        before = sum(float(outer(batch, state.weights)) for batch in outer_batches) / len(outer_batches)
    rates = rates_of(data.settings, task.length)[now]
    looks = [partial(outer, batch) for batch in outer_batches]
    weights = tuple(weight.to(device) for weight in tensors(network))
    found = meta_gradient(training, state, batches, cooling(rates) if task.cool_down else rates, weights, looks)
    after = found.state
    if task.cool_down:
        after = state
        for batch, rate in zip(batches, rates, strict=True):
            after = training.advance(after, batch, weights, rate)
    if not all(bool(tensor.isfinite().all()) for tensor in (*found.gradient, *after.tensors)):
        raise FloatingPointError(f"meta-gradient or weights are not finite after step {task.first + task.steps}")
    if not math.isfinite(found.value):
        raise FloatingPointError(f"outer loss is {found.value} after step {task.first + task.steps}")
    return MetaOutcome(
        before, found.value, packed(found.gradient), packed(after.tensors), time.perf_counter() - started
    )


def make_outer_loss(name: str) -> SegmentationLoss:
    """The loss of the catalogue; a Dice over the classes present in the batch, where it can be chosen.

    Small patches have few classes in them, and a Dice of each for each image is mostly noise.
    """
    chosen = {"batch": True, "absent": "skip"}
    return create(name, **{key: value for key, value in chosen.items() if key in parameters(name)})


def cooling(rates: Sequence[Rates]) -> list[Rates]:
    """The same with learning rates that fall to 0 in a line: how the training would end, did it end now."""
    count = len(rates)
    return [
        replace(rate, learning_rate=rate.learning_rate * (count - step - 0.5) / count)
        for step, rate in enumerate(rates)
    ]


def _batches(
    trainer: Trainer, task: MetaTask, subjects: Sequence[str], seed: int, which: slice, loss: SegmentationLoss
) -> list[Batch]:
    """Some batches out of the shuffled epochs of a training."""
    settings = trainer.data.settings
    order, flips = draw_order(
        trainer.data.bank.of_subjects(subjects),
        batch_size=settings.batch_size,
        steps=max(task.length, which.stop),
        seed=seed,
        flip_probability=trainer.flip_probability,
    )
    full = settings.augmentation == "full"
    draws = draw(seed, steps=which.stop, batch_size=settings.batch_size) if full else None
    return list(
        trainer.patches.batches(
            order[which], flips[which], with_distance=loss.uses_distance_map, draws=draws, first=which.start
        )
    )
