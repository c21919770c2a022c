"""The loss network's own training: which tasks an outer step has, and what is done with their gradients.

Several U-Nets are trained side by side under the loss as it is; an outer step looks through the next few steps of
each. A U-Net that is done makes room for a new one, with other weights and other subjects. So the loss meets networks
at every stage of a training, which a loss that was only ever asked for the first steps would not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lossevo.losses.neural import LossNetwork
from lossevo.metalearning.networks import STARTS, tensors, with_weights, without
from lossevo.metalearning.settings import MetaSettings
from lossevo.metalearning.tasks import MetaOutcome, MetaTask, unpacked
from lossevo.training.seeds import task_seed

LARGEST_NORM = 1.0
"""Of a task's meta-gradient; a longer one is shortened."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A U-Net in training: how many there were in its place before, and where it stands."""

    place: int
    episode: int = 0
    first: int = 0
    state: str = ""


@dataclass(slots=True)
class Learner:
    """A loss network in training.

    Attributes:
        settings: knobs.
        subjects: those it may use, for inner and outer losses.
        length: steps of a U-Net's training.
        seed: the course depends on it, the settings and the subjects alone.
        step: outer steps done.
        network: the loss network, shaping inputs among its inputs.
    """

    settings: MetaSettings
    subjects: tuple[str, ...]
    length: int
    seed: int
    step: int = 0
    network: LossNetwork = field(init=False)
    trajectories: list[Trajectory] = field(init=False)
    _first: list[Tensor] = field(init=False)
    _second: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        inputs = (*self.settings.inputs, *self.settings.shaping)
        generator = torch.Generator().manual_seed(self.seed)
        self.network = STARTS[self.settings.start](inputs, self.settings.hidden, self.settings.activation, generator)
        self.trajectories = [Trajectory(place) for place in range(self.settings.tasks)]
        self._first = [torch.zeros_like(weight) for weight in tensors(self.network)]
        self._second = [torch.zeros_like(weight) for weight in tensors(self.network)]

    @property
    def learned(self) -> LossNetwork:
        """The loss network without what it is given in meta-training alone."""
        return without(self.network, self.settings.shaping)

    def tasks(self) -> list[MetaTask]:
        """Those of the next outer step."""
        return [self._task(trajectory) for trajectory in self.trajectories]

    def _task(self, trajectory: Trajectory) -> MetaTask:
        number = trajectory.episode * self.settings.tasks + trajectory.place
        drawn = np.random.default_rng([self.seed, number]).permutation(sorted(self.subjects)).tolist()
        half = (len(drawn) + 1) // 2
        return MetaTask(
            network=self.network.to_json(),
            masked=self.settings.shaping if number % 2 == 0 else (),
            optimiser=self.settings.optimiser,
            fixed_length=self.settings.fixed_length,
            cool_down=self.settings.cool_down,
            outer_loss=self.settings.outer_loss,
            inner=tuple(sorted(drawn[:half])),
            outer=tuple(sorted(drawn[half:])),
            outer_batches=self.settings.outer_batches,
            seed=task_seed(self.seed, number),
            length=self.length,
            first=trajectory.first,
            steps=min(self.settings.inner_steps, self.length - trajectory.first),
            state=trajectory.state,
        )

    def learn(self, outcomes: Sequence[MetaOutcome | None]) -> None:
        """One step along the mean of the tasks' meta-gradients, and on with their U-Nets; None for a task that failed.

        Its U-Net is given up, and it counts for nothing.
        """
        weights = tensors(self.network)
        gradients = [_shortened(unpacked(outcome.gradient, weights)) for outcome in outcomes if outcome is not None]
        self.step += 1
        if gradients:
            mean = [torch.stack(parts).mean(dim=0) for parts in zip(*gradients, strict=True)]
            self.network = with_weights(self.network, self._adam(weights, mean))
        self.trajectories = [
            self._next(trajectory, outcome) for trajectory, outcome in zip(self.trajectories, outcomes, strict=True)
        ]

    def _adam(self, weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
        optimiser = torch.optim.Adam(
            [weight.clone().requires_grad_() for weight in weights], self.settings.learning_rate
        )
        (group,) = optimiser.param_groups
        for weight, gradient, first, second in zip(group["params"], gradients, self._first, self._second, strict=True):
            weight.grad = gradient
            state = {"step": torch.tensor(float(self.step - 1)), "exp_avg": first, "exp_avg_sq": second}
            optimiser.state[weight] = state
        optimiser.step()
        return [weight.detach() for weight in group["params"]]

    def _next(self, trajectory: Trajectory, outcome: MetaOutcome | None) -> Trajectory:
        first = trajectory.first + self.settings.inner_steps
        # The first U-Nets end one after another, so that there is one at every stage from then on.
        last = self.length
        if trajectory.episode == 0:
            last = -(-self.length * (trajectory.place + 1) // self.settings.tasks)
        if outcome is None or first >= last:
            return Trajectory(trajectory.place, trajectory.episode + 1)
        return replace(trajectory, first=first, state=outcome.state)

    def checkpoint(self) -> dict[str, Any]:
        """All that its further course depends on."""
        return {
            "step": self.step,
            "weights": list(tensors(self.network)),
            "first": self._first,
            "second": self._second,
            "trajectories": [{"episode": t.episode, "first": t.first, "state": t.state} for t in self.trajectories],
        }

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        """The inverse of :meth:`checkpoint`."""
        self.step = checkpoint["step"]
        self.network = with_weights(self.network, checkpoint["weights"])
        self._first, self._second = list(checkpoint["first"]), list(checkpoint["second"])
        self.trajectories = [Trajectory(place, **fields) for place, fields in enumerate(checkpoint["trajectories"])]


def _shortened(gradient: Sequence[Tensor]) -> list[Tensor]:
    norm = torch.linalg.vector_norm(torch.cat([part.reshape(-1) for part in gradient]))
    return [part * (LARGEST_NORM / norm.clamp_min(LARGEST_NORM)) for part in gradient]
