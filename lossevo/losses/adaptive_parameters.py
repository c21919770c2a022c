"""A loss whose parameters are learned while a network trains with it.

The loss knows its parameters and how to move them; what it cannot know is which way. That is the hyper-gradient, which
needs the network and its optimiser: :mod:`lossevo.training.lookahead`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lossevo.errors import LossevoError, nearest, shown
from lossevo.losses import arguments
from lossevo.losses.adaptive import AdaptiveWeighting, named_parts, share_spacing
from lossevo.losses.base import Description, SegmentationLoss, check_shapes
from lossevo.losses.inputs import LossInputs
from lossevo.losses.learnable import FREE_LIMIT, LEARNABLE, SHARE, Learnable, Range
from lossevo.losses.trajectory import Trajectory

BETA1, BETA2, EPS = 0.9, 0.99, 1e-30
"""Of Adam's steps on the parameters. Hyper-gradients go with the learning rate of the network: none is too small."""


class AdaptiveParameters(SegmentationLoss):
    """A loss whose parameters ρ are learned in training: L_ρ(logits, target), ρ moved every few steps.

    ρ moves along the hyper-gradient: how good is the network after one more step with L_ρ, by M, soft Dice +
    cross-entropy on the batch that comes next, and how does that change with ρ? With the optimiser's own step u,

        θ'(ρ) = u(θ, J^T Ĝ_ρ),   Ĝ_ρ = G_ρ ‖G‖ / ‖G_ρ‖,   G_ρ = ∂L_ρ/∂logits on this batch,   J = ∂logits/∂θ,

    and an Adam step on the free numbers x descends along d/dx M(θ'(ρ(x))). ‖G‖ is ‖G_ρ‖ as it stands, a constant: only
    the direction of the loss's gradient counts, so that shrinking the loss, the trivial way to make it small, changes
    nothing. For the same reason weights of which only the ratio matters (w_fp and w_fn, those of a sum) keep their sum.
    Each parameter is held within bounds, ρ = low + (high - low) σ(x), and starts at the wrapped loss's own value.

    Between two updates this is the wrapped loss with other numbers, at its cost. In evaluation mode, and where nobody
    looks ahead, it is that too. ``lossevo``'s trainer looks ahead by itself; in a loop of one's own
    :func:`lossevo.training.lookahead.look_ahead` does. The state is in the loss's state dict.

    Seo, Bassenne & Xing determine "functional parameters" of a generalised loss during training. Their exact
    parametrisation was not available: the same in spirit is that the parameters of a known family of losses, with
    Tversky's weights and exponents among them, follow from the training itself. What they follow from is ours.

    Args:
        loss: the loss, a name or {"name": ..., "parameters": {...}}, or a list of two losses, whose weights, 1 and 1
            at first, are learned (any losses that do not adapt themselves; w_NAME is the weight of NAME).
        learn: names of parameters to learn; None is all of the loss's that can be.
        factors: of two losses: a fixed number > 0 for each, which is multiplied by it before all else (default 1).
        every: number of the optimiser's steps between updates.
        learning_rate: of Adam on the free numbers; an update moves a parameter by up to a quarter of its range times
            this.
        spacing_mm: distance between neighbouring voxels per axis, for a loss that measures (default 1 mm).
    """

    description: ClassVar[Description] = Description(
        name="adaptive",
        family="adaptive",
        summary="A loss whose own parameters are learned in training, by looking one step ahead.",
        formula="L_ρ,  ρ ← ρ - η d/dρ (Dice + CE on the next batch, after one more step with L_ρ)",
        source="after Seo, Bassenne & Xing, IEEE TMI 2021, in spirit",
        purpose="A loss that fits but for its parameters: w_fp and w_fn, exponents, the mix of two losses.",
    )
    free: Tensor
    first: Tensor
    second: Tensor
    updates: Tensor

    def __init__(
        self,
        *,
        loss: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] = "dice_ce",
        learn: Sequence[str] | None = None,
        factors: Sequence[float] | None = None,
        every: int = 5,
        learning_rate: float = 0.1,
        spacing_mm: Sequence[float] | None = None,
    ) -> None:
        super().__init__(spacing_mm=spacing_mm)
        self.loss, name, learnable = _wrapped(loss, factors)
        self.uses_distance_map = self.loss.uses_distance_map
        share_spacing(self, [part for part in self.loss.modules() if isinstance(part, SegmentationLoss)])
        self.every = arguments.count("every", every, minimum=1)
        self.learning_rate = arguments.number("learning_rate", learning_rate)
        self._ranges = [Range.of(self.loss, item) for item in _chosen(self.loss, name, learnable, learn)]
        self._initial = {
            place: attrgetter(place)(self.loss) for x in self._ranges for place in (*x.value_places, *x.rest_places)
        }
        self.register_buffer("free", torch.tensor([x.free() for x in self._ranges], dtype=torch.float64))
        self.register_buffer("first", torch.zeros_like(self.free))
        self.register_buffer("second", torch.zeros_like(self.free))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.record = Trajectory([*self.values()])
        self._write(0)

    def values(self) -> dict[str, float]:
        """The learned parameters as they stand, and the partners of those that are one of a pair."""
        found = {}
        for x in self._ranges:
            found[x.name] = float(attrgetter(x.value_places[0])(self.loss))
            if x.partner:
                found[x.partner] = float(attrgetter(x.rest_places[0])(self.loss))
        return found

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        return self.loss.compute(inputs)

    def compute_with_gradient(self, inputs: LossInputs) -> Tensor:
        """As :meth:`compute`; the wrapped loss makes its gradient in its own way."""
        return self.loss.compute_with_gradient(inputs) if self.loss.has_own_gradient else self.loss.compute(inputs)

    def step(self) -> None:
        """End an epoch for the wrapped loss."""
        self.loss.step()

    def trajectory(self) -> list[dict[str, float]]:
        """The parameters from each update on, ``[{"step": 0, "w_fp": 0.3, "w_fn": 0.7}, ...]``."""
        return self.record.table(self.updates + 1)

    def wants_lookahead(self, steps: int) -> bool:
        """Whether an update is due when the optimiser has made ``steps`` steps."""
        return steps > 0 and steps % self.every == 0

    def at(self, free: Tensor, logits: Tensor, target: Tensor, distance_map: Tensor | None = None) -> Tensor:
        """The wrapped loss at other parameters, a function of ``free`` (k,) and the logits that can be differentiated.

        Nothing of the loss's state moves.
        """
        training = self.training
        check_shapes(logits, target, distance_map)
        with torch.autocast(device_type=logits.device.type, enabled=False):
            inputs = self.prepare(logits, target, distance_map)
            before = {place: attrgetter(place)(self.loss) for place in self._initial}
            try:
                self.eval()
                for x, number in zip(self._ranges, free.to(inputs.logits), strict=True):
                    self._assign(x.placed(number))
                return self.loss.compute(inputs)
            finally:
                self._assign(before)
                self.train(training)

    def learn(self, gradient: Tensor, steps: int) -> None:
        """Move the parameters by a step of Adam against ``gradient`` (k,), that by ``free``, after ``steps`` steps.

        A gradient that is not finite counts for nothing.
        """
        gradient = gradient.detach().to(self.free)
        if not bool(gradient.isfinite().all()):
            return
        self.updates += 1
        count = int(self.updates)
        self.first.lerp_(gradient, 1 - BETA1)
        self.second.lerp_(gradient.square(), 1 - BETA2)
        root = (self.second / (1 - BETA2**count)).sqrt()
        self.free -= self.learning_rate / (1 - BETA1**count) * self.first / (root + EPS)
        self.free.clamp_(-FREE_LIMIT, FREE_LIMIT)
        self._settle()
        self._write(steps)

    def _settle(self) -> None:
        """Make the parameters ordinary numbers of the wrapped loss."""
        if not self.updates:
            # Those it was made with, to the last bit.
            self._assign(self._initial)
            return
        for x, number in zip(self._ranges, self.free.cpu(), strict=True):
            self._assign({place: float(value) for place, value in x.placed(number).items()})

    def _assign(self, values: Mapping[str, Any]) -> None:
        for place, value in values.items():
            owner, _, attribute = place.rpartition(".")
            setattr(self.loss.get_submodule(owner), attribute, value)

    def _write(self, steps: int) -> None:
        values = torch.tensor([*self.values().values()], dtype=torch.float64)
        self.record.write(self.updates, torch.tensor(steps), values)

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        super()._load_from_state_dict(*arguments, **named)
        self._settle()

    def extra_repr(self) -> str:
        """The parameters as they stand, shown by ``print(loss)``."""
        return ", ".join(f"{name}={value:.4g}" for name, value in self.values().items())


class _WeightedPair(SegmentationLoss):
    """w_1 f_1 L_1 + w_2 f_2 L_2 with fixed factors f."""

    def __init__(self, parts: Sequence[str | Mapping[str, Any]], factors: Sequence[float]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(named_parts(parts))
        self.factors = factors
        self.uses_distance_map = any(part.uses_distance_map for part in self._parts())
        self.w_1 = self.w_2 = 1.0

    def _parts(self) -> list[SegmentationLoss]:
        return [part for part in self.parts.values() if isinstance(part, SegmentationLoss)]

    def compute(self, inputs: LossInputs) -> Tensor:
        return self._weighted([part.compute(inputs) for part in self._parts()])

    def compute_with_gradient(self, inputs: LossInputs) -> Tensor:
        return self._weighted([part.compute_with_gradient(inputs) for part in self._parts()])

    def _weighted(self, values: Sequence[Tensor]) -> Tensor:
        (first, second), (factor1, factor2) = values, self.factors
        return self.w_1 * factor1 * first + self.w_2 * factor2 * second

    def step(self) -> None:
        for part in self._parts():
            part.step()


def _wrapped(loss: object, factors: Sequence[float] | None) -> tuple[SegmentationLoss, str, tuple[Learnable, ...]]:
    """The loss, its name for messages, and what can be learned of it."""
    # Only here: the catalogue knows this loss.
    from lossevo.losses.catalogue import from_spec

    made: SegmentationLoss
    learnable: tuple[Learnable, ...]
    if isinstance(loss, Sequence) and not isinstance(loss, str):
        if len(loss) != 2:
            raise LossevoError(f"loss is {shown(loss)}, expected one loss, or a list of two whose weights are learned")
        chosen = (1.0, 1.0) if factors is None else arguments.positive_numbers("factors", factors)
        if len(chosen) != 2:
            raise LossevoError(f"factors has {len(chosen)} numbers for 2 losses, expected one for each")
        made = _WeightedPair(loss, chosen)
        first, second = made.parts
        name = f"{first} and {second}"
        learnable = (Learnable(f"w_{first}", *SHARE, partner=f"w_{second}", places=("w_1",), rest=("w_2",)),)
    else:
        if factors is not None:
            raise LossevoError(f"factors is {shown(factors)}, expected none: they are for a list of two losses")
        made = from_spec({"name": loss} if isinstance(loss, str) else loss)
        name = made.description.name if hasattr(made, "description") else "a loss that was found"
        learnable = LEARNABLE.get(name, ())
    if any(isinstance(part, AdaptiveWeighting | AdaptiveParameters) for part in made.modules()):
        raise LossevoError(
            f"{name}: a loss that adapts cannot be part of 'adaptive'; give the losses that it is made of"
        )
    if not learnable:
        raise LossevoError(
            f"{name} has no parameter that can be learned; {', '.join(LEARNABLE)} have, as has a list of two losses"
        )
    return made, name, learnable


def _chosen(loss: nn.Module, name: str, learnable: Sequence[Learnable], learn: object) -> Sequence[Learnable]:
    """Those of ``learnable`` that are to be learned."""
    numbers = [item for item in learnable if attrgetter(item.value_places[0])(loss) is not None]
    if learn is None:
        return numbers
    known = {key: item for item in learnable for key in (item.name, item.partner) if key}
    if isinstance(learn, str) or not isinstance(learn, Sequence) or not learn:
        raise LossevoError(f"learn is {shown(learn)}, expected a list of some of {', '.join(known)}")
    for key in learn:
        if not isinstance(key, str) or key not in known:
            raise LossevoError(
                f"{shown(key)} of {name} cannot be learned{nearest(str(key), known)}; {', '.join(known)} can"
            )
        if known[key] not in numbers:
            raise LossevoError(
                f"{key} of {name} is not one number; give it one to start from, or leave it out of 'learn'"
            )
    return list(dict.fromkeys(known[key] for key in learn))
