"""Sums of losses whose weights follow from the values that the parts take in training.

A scheme of weighting derives from :class:`AdaptiveWeighting` and says in ``observe`` how the weights of the next call
follow from what it has seen; the schemes are in :mod:`lossevo.losses.adaptive_schemes`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lossevo.errors import LossevoError
from lossevo.losses import arguments
from lossevo.losses.base import SegmentationLoss
from lossevo.losses.inputs import LossInputs

Parts = Sequence[str | Mapping[str, Any]]
"""Losses to be weighed: names of the catalogue, or specifications as ``from_spec`` takes them."""

PARTS: Parts = ("dice", "cross_entropy")
"""Those of dice_ce, which is their sum with equal weights."""

RECORD_ROWS = 512


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
        record: the weights of every ``stride``-th call, (512, n).
        stride: doubled, and every other row dropped, when the record is full; int64.
    """

    factors: Tensor
    weights: Tensor
    latest: Tensor
    calls: Tensor
    record: Tensor
    stride: Tensor

    def __init__(
        self, parts: Parts, factors: Sequence[float] | None, *, spacing_mm: Sequence[float] | None = None
    ) -> None:
        super().__init__(spacing_mm=spacing_mm)
        self.parts = nn.ModuleDict(_named(parts))
        self.uses_distance_map = any(part.uses_distance_map for part in self._parts())
        self._share_spacing()
        count = len(self.parts)
        chosen = (1.0,) * count if factors is None else arguments.positive_numbers("factors", factors)
        if len(chosen) != count:
            raise LossevoError(f"factors has {len(chosen)} numbers for {count} parts, expected one for each")
        self.register_buffer("factors", torch.tensor(chosen, dtype=torch.float64), persistent=False)
        self.register_buffer("weights", torch.ones(count, dtype=torch.float64))
        self.register_buffer("latest", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("record", torch.zeros(RECORD_ROWS, count, dtype=torch.float64))
        self.register_buffer("stride", torch.ones((), dtype=torch.int64))

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

    def weights_record(self) -> list[dict[str, float]]:
        """The weights that were in use, ``[{"call": 0, "dice": 1.0, "boundary": 1.0}, ...]``.

        At most 512 calls in training mode, evenly spaced from the first on. Rows of a table, for example
        ``pandas.DataFrame(loss.weights_record()).plot(x="call")``.
        """
        stride = int(self.stride)
        rows = self.record[: -(-int(self.calls) // stride)].tolist()
        return [{"call": stride * k, **dict(zip(self.parts, row, strict=True))} for k, row in enumerate(rows)]

    def _weighted(self, values: list[Tensor]) -> Tensor:
        stacked = torch.stack(values)
        stacked = self.factors.to(stacked) * stacked
        # Also in training mode no call without gradient is a step of a training.
        if not (self.training and torch.is_grad_enabled()):
            return stacked.sum()
        before = {name: buffer.clone() for name, buffer in self.named_buffers(recurse=False)}
        value = (self.weights.to(stacked) * stacked).sum() + self.regulariser().to(stacked)
        self._write_record()
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

    def _write_record(self) -> None:
        full = self.calls == RECORD_ROWS * self.stride
        thinned = torch.cat([self.record[::2], torch.zeros_like(self.record[::2])])
        self.record.copy_(torch.where(full, thinned, self.record))
        self.stride.copy_(torch.where(full, 2 * self.stride, self.stride))
        row = (self.calls // self.stride).view(1)
        due = self.calls % self.stride == 0
        self.record.index_copy_(0, row, torch.where(due, self.weights, self.record[row]))

    def _parts(self) -> Iterator[SegmentationLoss]:
        for part in self.parts.values():
            assert isinstance(part, SegmentationLoss)
            yield part

    def _share_spacing(self) -> None:
        """One spacing for all: the one given, else that of the parts, which must not contradict each other."""
        known = {self.spacing_mm, *(part.spacing_mm for part in self._parts())} - {None}
        if len(known) > 1:
            raise LossevoError(f"parts have different spacings, {sorted(map(str, known))}: give spacing_mm once")
        for spacing_mm in known:
            assert spacing_mm is not None
            self.use_spacing(spacing_mm)


def shares(sizes: Tensor) -> Tensor:
    """Sizes >= 0 (n,) as weights that are 1 on average, n · size_i / Σ size; all 1 if every size is 0."""
    total = sizes.sum()
    return torch.where(total > 0, len(sizes) * sizes / total, 1.0)


def _named(parts: object) -> dict[str, nn.Module]:
    # Only here: the catalogue knows the schemes.
    from lossevo.losses.catalogue import from_spec

    if isinstance(parts, str) or not isinstance(parts, Sequence) or len(parts) < 2:
        raise LossevoError(
            f"parts is {parts!r}, expected a list of two or more losses, each a name or"
            ' {"name": ..., "parameters": {...}}'
        )
    named: dict[str, nn.Module] = {}
    count = Counter[str]()
    for part in parts:
        spec = {"name": part} if isinstance(part, str) else part
        loss = from_spec(spec)
        name = str(spec.get("name", "expression"))
        count[name] += 1
        named[name if count[name] == 1 else f"{name}_{count[name]}"] = loss
    return named
