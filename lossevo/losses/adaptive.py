"""Sums of losses whose weights follow from the values that the parts take in training.

A scheme of weighting derives from :class:`AdaptiveWeighting` and says in ``observe`` how the weights of the next call
follow from what it has seen; the schemes are in :mod:`lossevo.losses.adaptive_schemes`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lossevo.errors import LossevoError, shown
from lossevo.losses import arguments
from lossevo.losses.base import SegmentationLoss
from lossevo.losses.inputs import LossInputs
from lossevo.losses.trajectory import Trajectory

Parts = Sequence[str | Mapping[str, Any]]
"""Losses to be weighed: names of the catalogue, or specifications as ``from_spec`` takes them."""

PARTS: Parts = ("dice", "cross_entropy")
"""Those of dice_ce, which is their sum with equal weights."""


class AdaptiveWeighting(SegmentationLoss):
    """Σ w_i L_i over two or more losses, with weights that each call in training mode moves.

    L_i is a part times its fixed factor. In evaluation mode the loss is the plain sum Σ L_i, and nothing moves. The
    weights begin at 1; they are numbers, never part of a gradient. They depend on the values of earlier calls alone, so
    the derivative of a call is that of Σ w_i L_i. All state is in buffers, computed on the loss's device without
    waiting for it.

    One call in training mode is meant to be one step of the optimiser, and ``step()`` to end an epoch.

    Attributes:
        parts: the losses by name; of equal ones the second is called ``tversky_2``.
        weights: w (n,) of the next call, float64.
        factors: what each part is multiplied by before all else (n,), float64; not part of the state.
        latest: the values L (n,) in the last call that counted: in training mode, with gradient, all values finite.
        calls: number of calls in training mode, int64.
        record: the weights of at most 512 calls.
    """

    factors: Tensor
    weights: Tensor
    latest: Tensor
    calls: Tensor

    def __init__(
        self, parts: Parts, factors: Sequence[float] | None, *, spacing_mm: Sequence[float] | None = None
    ) -> None:
        super().__init__(spacing_mm=spacing_mm)
        self.parts = nn.ModuleDict(named_parts(parts))
        self.uses_distance_map = any(part.uses_distance_map for part in self._parts())
        if learning := [name for name, part in self.parts.items() if hasattr(part, "wants_lookahead")]:
            raise LossevoError(f"parts has {learning[0]!r}, whose parameters nobody would learn; give what it wraps")
        share_spacing(self, self._parts())
        count = len(self.parts)
        chosen = (1.0,) * count if factors is None else arguments.positive_numbers("factors", factors)
        if len(chosen) != count:
            raise LossevoError(f"factors has {len(chosen)} numbers for {count} parts, expected one for each")
        self.register_buffer("factors", torch.tensor(chosen, dtype=torch.float64), persistent=False)
        self.register_buffer("weights", torch.ones(count, dtype=torch.float64))
        self.register_buffer("latest", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.record = Trajectory([f"w_{name}" for name in self.parts])

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        return self._weighted([part.compute(inputs) for part in self._parts()])

    def compute_with_gradient(self, inputs: LossInputs) -> Tensor:
        """As :meth:`compute`; each part makes its gradient in its own way."""
        return self._weighted([part.compute_with_gradient(inputs) for part in self._parts()])

    def observe(self, values: Tensor) -> Tensor:
        """The weights (n,) of the next call, from the values L (n,), float64, in the call number ``calls``."""
        raise NotImplementedError

    def regulariser(self) -> Tensor:
        """What the objective holds beside the weighted sum, a function of the weights of this call alone."""
        return torch.zeros_like(self.weights[0])

    def step(self) -> None:
        """End an epoch, for the parts too."""
        for part in self._parts():
            part.step()

    def trajectory(self) -> list[dict[str, float]]:
        """The weights that were in use, ``[{"step": 0, "w_dice": 1.0, "w_boundary": 1.0}, ...]``; a step is a call."""
        return self.record.table(self.calls)

    def _weighted(self, values: list[Tensor]) -> Tensor:
        stacked = torch.stack(values)
        stacked = self.factors.to(stacked) * stacked
        # Also in training mode no call without gradient is a step of a training.
        if not (self.training and torch.is_grad_enabled()):
            return stacked.sum()
        before = {name: buffer.clone() for name, buffer in self.named_buffers(recurse=False)}
        value = (self.weights.to(stacked) * stacked).sum() + self.regulariser().to(stacked)
        self.record.write(self.calls, self.calls, self.weights)
        seen = stacked.detach().to(self.latest)
        self.latest.copy_(seen)
        # Not in place: the backward pass needs the weights of this call.
        self.weights = self.observe(self.latest)
        self.calls += 1
        # A call with a value that is not finite counts for nothing.
        counts = seen.isfinite().all()
        for name, old in before.items():
            setattr(self, name, torch.where(counts, getattr(self, name), old))
        return value

    def _parts(self) -> Iterator[SegmentationLoss]:
        for part in self.parts.values():
            assert isinstance(part, SegmentationLoss)
            yield part


def shares(sizes: Tensor) -> Tensor:
    """Sizes >= 0 (n,) as weights that are 1 on average, n · size_i / Σ size; all 1 if every size is 0."""
    total = sizes.sum()
    return torch.where(total > 0, len(sizes) * sizes / total, 1.0)


def share_spacing(loss: SegmentationLoss, parts: Iterable[SegmentationLoss]) -> None:
    """One spacing for a loss and its parts: the one given, else that of the parts.

    Raises:
        LossevoError: they contradict each other.
    """
    known = {loss.spacing_mm, *(part.spacing_mm for part in parts)} - {None}
    if len(known) > 1:
        raise LossevoError(f"parts have different spacings, {sorted(map(str, known))}: give spacing_mm once")
    for spacing_mm in known:
        assert spacing_mm is not None
        loss.use_spacing(spacing_mm)


def named_parts(parts: object) -> dict[str, nn.Module]:
    """Two or more losses by name; of equal names the second is called ``tversky_2``.

    Raises:
        LossevoError: not such a list, or not a loss.
    """
    # Only here: the catalogue knows the schemes.
    from lossevo.losses.catalogue import from_spec

    if isinstance(parts, str) or not isinstance(parts, Sequence) or len(parts) < 2:
        raise LossevoError(
            f"parts is {shown(parts)}, expected a list of two or more losses, each a name or"
            ' {"name": ..., "parameters": {...}}'
        )
    named: dict[str, nn.Module] = {}
    count = Counter[str]()
    for part in parts:
        spec = {"name": part} if isinstance(part, str) else part
        loss = from_spec(spec)
        name = str(spec.get("name") or next(iter(spec)))
        count[name] += 1
        named[name if count[name] == 1 else f"{name}_{count[name]}"] = loss
    return named
