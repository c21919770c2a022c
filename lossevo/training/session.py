"""One training as an object that can stop and go on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import closing
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lossevo.data.augmentation import Draws, draw
from lossevo.data.cohort import AnyVolume
from lossevo.errors import LossevoError, nearest
from lossevo.losses import from_spec
from lossevo.metrics import parse_metrics
from lossevo.training.batches import Batch, draw_order
from lossevo.training.curve import LossCurve
from lossevo.training.lookahead import LearningLoss, look_ahead
from lossevo.training.network import build_network
from lossevo.training.schedule import Rates, rates_of
from lossevo.training.snapshot import damaged, pack, unpack
from lossevo.training.task import RECIPE_VERSION, TrainingData
from lossevo.training.trial import MeasuredOn, Trial
from lossevo.training.validation import Validated, require_originals, validate

if TYPE_CHECKING:
    from lossevo.training.trainer import Trainer

LOSS_EPOCHS = 100
"""The papers' schedules of losses run over so many epochs: how often ``loss.step()`` is called within the horizon."""
# Reading a number from a GPU waits for it; divergence is looked for after this many steps there, after each on a CPU.
CUDA_CHECK_INTERVAL = 25


class Session:
    """A training with AdamW that advances by any number of steps, is validated in between, and goes on from a state.

    However it is cut into pieces it is the same training: bit for bit on a CPU, in any process with the same number of
    torch threads. There is no generator whose state would have to be kept. Initial weights, batches and augmentation
    follow from seed and step, and the learning rate from the step.

    The task's schedule decides how far it goes:

    - ``one_cycle``: the trial's steps, or the length that it states, are the length of the training, and all rates
      depend on it. It can be stopped and continued, but not beyond.
    - ``constant``: nothing depends on the trial's steps, and the training has no end. A trial of 100 steps
      goes on from the state of one of 40. A loss with a schedule of its own needs a horizon, which cannot be the
      length: it goes through its 100 epochs within the task's ``loss_horizon_steps``, and on at the same pace.

    After an error in :meth:`advance` or :meth:`restore` a session stands between two states: make another.

    Args:
        trial: the training.
        trainer: holds what the trainings on the same data share.

    Attributes:
        steps: how many steps have been made.
        curve: the training loss of each.
        validation_curve: ``[step, mean foreground Dice at the working spacing]`` of each :meth:`validate`.

    Raises:
        LossevoError: the trial names an unknown loss or subject, is of another study, or is measured on grids that the
            data lacks; or no validation subject has foreground.
    """

    def __init__(self, trial: Trial, trainer: Trainer) -> None:
        data, device = trainer.data, trainer.device
        self._trial, self._data, self._device = trial, data, device
        settings = data.settings
        if trial.learning_rate is not None:
            settings = settings.model_copy(update={"learning_rate": trial.learning_rate})
        self._settings = settings
        self._patches, self._flip_probability = trainer.patches, trainer.flip_probability
        self.steps = 0
        self.curve = LossCurve(check_interval=CUDA_CHECK_INTERVAL if device.type == "cuda" else 1)
        self.validation_curve: list[list[float]] = []

        self._loss = from_spec(trial.loss, data.loss_modules).to(device)
        self._loss.use_spacing(data.volumes[0].spacing_mm)
        self._learning = self._loss if isinstance(self._loss, LearningLoss) else None
        self._rows, self._volumes = _selected(trial, data)
        self._network = build_network(
            settings,
            channel_count=data.bank.channels,
            class_count=len(data.class_names),
            seed=trial.fidelity.seed,
            device=device,
        )
        self._averaged: AveragedModel | None = None
        if settings.weights == "ema":
            average = get_ema_multi_avg_fn(settings.ema_decay)  # type: ignore[no-untyped-call]
            self._averaged = AveragedModel(self._network, multi_avg_fn=average, use_buffers=True)
        self._parameters = list(self._network.parameters())
        self._optimiser = torch.optim.AdamW(
            self._parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        # Drawn as far as needed. A longer draw begins with a shorter one, so how far makes no difference.
        self._order: NDArray[np.int64] = np.empty((0, settings.batch_size), np.int64)
        self._flips: NDArray[np.bool_] = np.empty((0, settings.batch_size), np.bool_)
        self._draws: Draws | None = None
        self._rates: list[Rates] = []

    @property
    def last_step(self) -> int | None:
        """Where the training ends; None: nowhere."""
        if self._settings.schedule != "one_cycle":
            return None
        return self._trial.length or self._trial.fidelity.steps

    def advance(self, steps: int) -> None:
        """Train for so many steps more.

        Raises:
            LossevoError: fewer than one, or beyond the end of a one-cycle schedule.
            FloatingPointError: the training loss or its gradient is not finite, the message names the step; or the loss
                does not depend on the prediction.
        """
        if steps < 1:
            raise LossevoError(f"cannot advance a training by {steps} steps, expected 1 or more")
        stop, end = self.steps + steps, self.last_step
        if end is not None and stop > end:
            raise LossevoError(
                f"cannot advance a training by {steps} steps after {self.steps} of {end}: its one-cycle schedule ends "
                "there; only a task with 'schedule: constant' goes on"
            )
        # A loss that looks a step ahead needs the batch after the last.
        known = stop + 1 if self._learning is not None and stop != end else stop
        self._draw(known)
        now = slice(self.steps, known)
        batches = self._patches.batches(
            self._order[now],
            self._flips[now],
            with_distance=self._loss.uses_distance_map,
            draws=self._draws,
            first=self.steps,
        )
        with closing(batches):
            for batch, following in islice(pairwise(chain(batches, (None,))), steps):
                assert batch is not None
                self._step(batch, following)
        self.curve.check()

    def validate(self, metrics: Iterable[str] = (), *, grid: MeasuredOn = "working") -> Validated:
        """Dice and ``metrics`` of each validation case, whole, on a grid of :class:`Trial`, at this step.

        The mean Dice at the working spacing joins the validation curve.

        Raises:
            LossevoError: there is no such metric, or the data lacks the cases' own grids.
        """
        measured = parse_metrics(dict.fromkeys(("dice", *metrics)))
        network = self._averaged or self._network
        found = validate(network, self._volumes, self._data, self._device, measured, grid)
        point = [self.steps, found.working_dice]
        self.validation_curve = [*(known for known in self.validation_curve if known[0] != self.steps), point]
        return found.cases

    def trajectory(self) -> list[dict[str, float]]:
        """What moved in the loss so far, see :meth:`~lossevo.losses.SegmentationLoss.trajectory`."""
        return self._loss.trajectory()

    def state(self) -> bytes:
        """Where the training stands, for :meth:`restore`; ``torch.load(weights_only=True)`` can read it."""
        content = {
            "steps": self.steps,
            "network": self._network.state_dict(),
            "moments": self._optimiser.state_dict()["state"],
            "averaged": self._averaged.state_dict() if self._averaged else None,
            "loss": self._loss.state_dict(),
            "curve": torch.tensor(self.curve.values, dtype=torch.float64),
            "validation_curve": self.validation_curve,
        }
        return pack(self._identity(), content)

    def restore(self, state: bytes) -> None:
        """Stand where a session of the same training stood when it gave its :meth:`state`.

        With the constant schedule its trial may have another number of steps.

        Raises:
            LossevoError: the bytes are no state or damaged, or they are of another loss, seed, subjects, task, data,
                recipe, kind of device or, with one-cycle, length.
        """
        content = unpack(state, self._identity())
        try:
            self._load(content)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as problem:
            raise damaged(problem) from problem

    def _load(self, content: Mapping[str, Any]) -> None:
        self._require_whole(content)
        self._network.load_state_dict(content["network"])
        if self._averaged:
            self._averaged.load_state_dict(content["averaged"])
        self._optimiser.load_state_dict({**self._optimiser.state_dict(), "state": content["moments"]})
        self._loss.load_state_dict(content["loss"])
        self.steps = int(content["steps"])
        self.curve.resume(content["curve"].tolist())
        self.validation_curve = [[*point] for point in content["validation_curve"]]

    def _require_whole(self, content: Mapping[str, Any]) -> None:
        """Refuse a state whose parts do not fit each other: fused AdamW does not look at shapes.

        Raises:
            LossevoError: as it says.
        """
        steps, moments = int(content["steps"]), content["moments"]
        if not 0 <= steps <= (self.last_step or steps):
            raise damaged(f"{steps} steps of {self.last_step}")
        if len(content["curve"]) != steps:
            raise damaged(f"{len(content['curve'])} losses of {steps} steps")
        if moments.keys() != ({*range(len(self._parameters))} if steps else set()):
            raise damaged(f"moments of {len(moments)} parameters, expected {len(self._parameters)}")
        for number, of_one in moments.items():
            shapes = {moment.shape for name, moment in of_one.items() if name != "step"}
            if shapes != {self._parameters[number].shape}:
                raise damaged(f"moments of parameter {number} have another shape")

    def _identity(self) -> dict[str, Any]:
        """All that decides how the training goes on, by the names that a message uses."""
        trial, split = self._trial, self._trial.fidelity.split
        return {
            "recipe": RECIPE_VERSION,
            "task and data": self._data.fingerprint,
            "device": self._device.type,
            "loss": json.dumps(dict(trial.loss), sort_keys=True),
            "training subjects": sorted(split.train),
            "validation subjects": sorted(split.validate),
            "seed": trial.fidelity.seed,
            "learning rate": self._settings.learning_rate,
            "length of the one-cycle schedule": self.last_step,
        }

    def _draw(self, steps: int) -> None:
        """Know batches, augmentation and rates of the first ``steps`` steps, and of some more."""
        if steps <= len(self._rates):
            return
        settings, fidelity = self._settings, self._trial.fidelity
        steps = self.last_step or max(steps, fidelity.steps + 1, 2 * len(self._rates))
        self._order, self._flips = draw_order(
            self._rows,
            batch_size=settings.batch_size,
            steps=steps,
            seed=fidelity.seed,
            flip_probability=self._flip_probability,
        )
        if settings.augmentation == "full":
            self._draws = draw(fidelity.seed, steps=steps, batch_size=settings.batch_size)
        self._rates = rates_of(settings, steps)

    def _step(self, batch: Batch, following: Batch | None) -> None:
        network, loss = self._network, self._loss
        rates = self._rates[self.steps]
        for group in self._optimiser.param_groups:
            group.update(lr=rates.learning_rate, betas=(rates.beta1, rates.beta2))
        if self._learning is not None and following is not None and self._learning.wants_lookahead(self.steps):
            look_ahead(self._learning, network, self._optimiser, batch, following, self.steps)
        with torch.autocast("cuda", torch.bfloat16, enabled=self._device.type == "cuda"):
            logits = network(batch.image)
        logits = logits.float()
        if batch.distance_map is None:
            value = loss(logits, batch.label)
        else:
            value = loss(logits, batch.label, distance_map=batch.distance_map)
        if not value.requires_grad:
            raise FloatingPointError("the loss has no gradient, since it does not depend on the prediction")
        self._optimiser.zero_grad(set_to_none=True)
        value.backward()
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        self.curve.add(value.detach(), nn.utils.get_total_norm(gradients))
        self._optimiser.step()
        if self._averaged:
            self._averaged.update_parameters(network)
        self.steps += 1
        horizon = self.last_step or self._settings.loss_horizon_steps
        for _ in range(LOSS_EPOCHS * (self.steps - 1) // horizon, LOSS_EPOCHS * self.steps // horizon):
            loss.step()


def _selected(trial: Trial, data: TrainingData) -> tuple[NDArray[np.int64], list[AnyVolume]]:
    """Patch indices of the training subjects and whole volumes of the validation subjects."""
    if trial.study not in ("", data.fingerprint):
        raise LossevoError(
            f"the training is of another study ({trial.study[:8]}…) than the data here "
            f"({data.fingerprint[:8]}…): task or cohort differ"
        )
    split = trial.fidelity.split
    tested = {volume.subject for volume in data.volumes}
    for subjects, known in ((split.train, {*data.bank.subject}), (split.validate, tested)):
        for subject in subjects:
            if subject not in known:
                raise LossevoError(f"no subject '{subject}' in the training data{nearest(subject, known)}")
    volumes = [volume for volume in data.volumes if volume.subject in set(split.validate)]
    if not any(volume.label.any() for volume in volumes):
        raise LossevoError("no validation subject has a labelled voxel, so their Dice is undefined; choose others")
    if trial.grid == "original":
        require_originals(volumes, data)
    return data.bank.of_subjects(split.train), volumes
