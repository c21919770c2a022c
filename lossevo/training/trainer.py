"""One short training of the proxy network with a given loss, and its validation on held-out subjects."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lossevo.data.augmentation import Augmentation, draw
from lossevo.data.cohort import AnyVolume
from lossevo.errors import LossevoError, nearest
from lossevo.losses import from_spec
from lossevo.metrics import dice_per_class, false_voxels_per_class, mean_over_cases
from lossevo.training.batches import PatchStore, draw_order
from lossevo.training.inference import predict
from lossevo.training.lookahead import LearningLoss, look_ahead
from lossevo.training.network import build_network
from lossevo.training.request import TrainingRequest, TrainingResult
from lossevo.training.task import TrainingData

CURVE_POINTS = 60
LOSS_EPOCHS = 100
"""How often ``loss.step()`` is called in a training of any length: the papers' schedules run over 100 epochs."""
# Reading a number from a GPU waits for it; divergence is looked for after this many steps there, after each on a CPU.
CUDA_CHECK_INTERVAL = 25


def train(request: TrainingRequest, data: TrainingData) -> TrainingResult:
    """Train once; see :meth:`Trainer.train`. For many trainings on the same data keep a :class:`Trainer`."""
    return Trainer(data).train(request)


class Trainer:
    """Trains on one set of training data; holds what all its trainings share and nothing that one leaves behind.

    Args:
        data: training data; not copied on a CPU, copied to the device once on a GPU.
        device: default CUDA if there is one, else CPU.
    """

    def __init__(self, data: TrainingData, *, device: torch.device | None = None) -> None:
        self.data = data
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        settings, spacing_mm = data.settings, data.volumes[0].spacing_mm
        full = settings.augmentation == "full"
        augmentation = Augmentation(settings.patch_size, spacing_mm, len(data.class_names)) if full else None
        self.patches = PatchStore(data.bank, self.device, augmentation, data.mirrored)
        self.flip_probability = settings.flip_probability if data.mirrored is not None else 0.0

    def train(self, request: TrainingRequest) -> TrainingResult:
        """Train with AdamW on a one-cycle schedule and validate by the Dice of the argmax over whole volumes.

        Trainings with the same seed, subjects and budget differ in the loss only: initial weights, batches,
        augmentation and learning rates are the same. On a CPU the result is the same bit for bit whenever and wherever
        it runs with the same number of torch threads.

        Raises:
            LossevoError: the request names an unknown loss or subject, or no validation subject has foreground.
            FloatingPointError: the training loss or its gradient is not finite; the message names the step.
        """
        started = time.perf_counter()
        settings = self.data.settings
        loss = from_spec(request.loss).to(self.device)
        loss.use_spacing(self.data.volumes[0].spacing_mm)
        rows, volumes = self._select(request)
        network = build_network(
            settings,
            channel_count=self.data.bank.channels,
            class_count=len(self.data.class_names),
            seed=request.seed,
            device=self.device,
        )
        optimiser = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser,
            max_lr=settings.learning_rate,
            total_steps=request.budget_steps,
            pct_start=settings.warmup_share,
        )
        order, flips = draw_order(
            rows,
            batch_size=settings.batch_size,
            steps=request.budget_steps,
            seed=request.seed,
            flip_probability=self.flip_probability,
        )
        draws = (
            draw(request.seed, steps=request.budget_steps, batch_size=settings.batch_size)
            if settings.augmentation == "full"
            else None
        )
        checkpoints = _checkpoints(request.budget_steps, settings.validations)
        curve = LossCurve(check_interval=CUDA_CHECK_INTERVAL if self.device.type == "cuda" else 1)
        validation_curve: list[list[float]] = []
        cases: dict[str, _Validated] = {}
        parameters = list(network.parameters())
        learning = loss if isinstance(loss, LearningLoss) else None

        batches = self.patches.batches(order, flips, with_distance=loss.uses_distance_map, draws=draws)
        for step, (batch, following) in enumerate(pairwise(chain(batches, (None,))), start=1):
            assert batch is not None
            if learning is not None and following is not None and learning.wants_lookahead(step - 1):
                look_ahead(learning, network, optimiser, batch, following, step - 1)
            with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
                logits = network(batch.image)
            logits = logits.float()
            if batch.distance_map is None:
                value = loss(logits, batch.label)
            else:
                value = loss(logits, batch.label, distance_map=batch.distance_map)
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            curve.add(value.detach(), nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
            optimiser.step()
            schedule.step()
            for _ in range(
                LOSS_EPOCHS * (step - 1) // request.budget_steps, LOSS_EPOCHS * step // request.budget_steps
            ):
                loss.step()
            if step in checkpoints:
                curve.check()
                cases = {volume.case_id: self._validate(network, volume) for volume in volumes}
                validation_curve.append([step, mean_over_cases(case.dice for case in cases.values())])

        foreground = self.data.class_names[1:]
        return TrainingResult(
            score=validation_curve[-1][1],
            cases={case_id: dict(zip(foreground, case.dice, strict=True)) for case_id, case in cases.items()},
            curve=curve.thinned(CURVE_POINTS),
            validation_curve=validation_curve,
            seconds=time.perf_counter() - started,
            trajectory=loss.trajectory(),
            false_voxels={
                case_id: {
                    name: voxels
                    for name, voxels in zip(foreground, case.false_voxels, strict=True)
                    if voxels is not None
                }
                for case_id, case in cases.items()
                if None in case.dice
            },
        )

    def _select(self, request: TrainingRequest) -> tuple[NDArray[np.int64], list[AnyVolume]]:
        """Patch indices of the training subjects and whole volumes of the validation subjects."""
        known = {volume.subject for volume in self.data.volumes}
        for subject in (*request.train, *request.validate):
            if subject not in known:
                raise LossevoError(f"no subject '{subject}' in the training data{nearest(subject, known)}")
        volumes = [volume for volume in self.data.volumes if volume.subject in set(request.validate)]
        if not any(volume.label.any() for volume in volumes):
            raise LossevoError("no validation subject has a labelled voxel, so their Dice is undefined; choose others")
        return self.data.bank.of_subjects(request.train), volumes

    def _validate(self, network: nn.Module, volume: AnyVolume) -> _Validated:
        prediction, label = predict(network, volume.image, self.data.settings, self.device), volume.label
        class_count = len(self.data.class_names)
        return _Validated(
            dice_per_class(prediction, label, class_count), false_voxels_per_class(prediction, label, class_count)
        )


class _Validated(NamedTuple):
    """A validation case: of each foreground class the Dice or, where the label lacks it, the voxels predicted of it."""

    dice: tuple[float | None, ...]
    false_voxels: tuple[int | None, ...]


class LossCurve:
    """The training loss of every step, checked for divergence every ``check_interval`` steps."""

    def __init__(self, check_interval: int) -> None:
        self._check_interval = check_interval
        self._pending: list[Tensor] = []
        self._values: list[float] = []

    def add(self, loss: Tensor, gradient_norm: Tensor) -> None:
        """Take the loss and the norm of its gradient at the next step."""
        self._pending.append(torch.stack((loss.float(), gradient_norm.float())))
        if len(self._pending) == self._check_interval:
            self.check()

    def check(self) -> None:
        """Read the pending values.

        Raises:
            FloatingPointError: one of them is not finite; names the first such step.
        """
        if not self._pending:
            return
        for loss, gradient_norm in torch.stack(self._pending).tolist():
            self._values.append(loss)
            if not math.isfinite(loss):
                raise FloatingPointError(f"training loss is {loss} at step {len(self._values)}")
            if not math.isfinite(gradient_norm):
                raise FloatingPointError(f"gradient norm is {gradient_norm} at step {len(self._values)}")
        self._pending.clear()

    def thinned(self, points: int) -> list[list[float]]:
        """``[last step, mean loss]`` of at most ``points`` windows of equal length (the last may be shorter)."""
        width = -(-len(self._values) // points)
        windows: list[Sequence[float]] = [self._values[i : i + width] for i in range(0, len(self._values), width)]
        return [[min((n + 1) * width, len(self._values)), sum(w) / len(w)] for n, w in enumerate(windows)]


def _checkpoints(budget_steps: int, count: int) -> Collection[int]:
    """Up to ``count`` evenly spaced steps, ``budget_steps`` among them."""
    return {math.ceil(budget_steps * part / count) for part in range(1, count + 1)}
