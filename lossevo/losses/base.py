"""The call convention of every loss, and what all losses share: checks, one-hot, softmax, precision.

The convention (compatible with MONAI's losses) is ``loss(logits, target, distance_map=None) -> scalar``:

==============  ==================  ======================================================================
argument        shape               meaning
==============  ==================  ======================================================================
logits          (B, C, *spatial)    float, 2D or 3D. C >= 2: softmax. C = 1: sigmoid, which is the same thing
                                    as two classes whose background logit is 0, σ(x) = softmax([0, x])[1]
target          (B, 1, *spatial)    labels 0 … C-1 of any dtype (for C = 1 also the foreground's share in [0, 1])
                (B, C, *spatial)    one-hot or soft: in [0, 1], summing to 1 over the classes
distance_map    (B, C, *spatial)    signed distance to each class's boundary in mm, negative inside
==============  ==================  ======================================================================

With one logit, a one-hot target has two channels; a distance map has two, or the foreground's alone.

Everything is computed in float32 (float64 if the logits are float64), outside autocast: sums over a 96³ patch overflow
float16. Non-finite logits are not looked for; they give a non-finite loss, which a trainer must watch for anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from lossevo.errors import LossevoError
from lossevo.losses import arguments
from lossevo.losses.inputs import LossInputs
from lossevo.losses.one_pass import may_have_own_gradient, one_pass
from lossevo.losses.signed_distance import signed_distance_map

SMOOTH = 1e-5
"""Added to the denominator of every ratio of region sums, and only there: in the numerator it destabilises training."""


@dataclass(frozen=True, slots=True)
class Description:
    """What the catalogue says about a loss: plain text, the formula in Unicode (p probability, g target, Ω voxels)."""

    name: str
    family: str
    summary: str
    formula: str
    source: str
    purpose: str


def one_hot(target: Tensor, classes: int) -> Tensor:
    """One-hot (bool) of labels (B, 1, *spatial); a target that has its class channels already is returned as it is."""
    if target.shape[1] != 1:
        return target
    index = torch.arange(classes, device=target.device).view(1, classes, *[1] * (target.ndim - 2))
    return target == index


class SegmentationLoss(nn.Module):
    """Base of every loss: checks and prepares the arguments, then calls :meth:`compute`.

    A subclass has a :class:`Description` and implements ``compute(inputs)``; one that reads ``inputs.distance_map``
    sets ``uses_distance_map``. If no map is given it is computed from the target, with ``spacing_mm`` between voxels
    (default 1 mm on every axis). A map computed on the whole volume and then cropped is better: a patch does not know
    of the boundary beyond its border.
    """

    description: ClassVar[Description]
    uses_distance_map: bool = False
    has_own_gradient: bool = True
    """Whether the gradient is made beside the value where that is possible, see :mod:`lossevo.losses.one_pass`."""

    def __init__(self, *, spacing_mm: Sequence[float] | None = None) -> None:
        super().__init__()
        self.spacing_mm = arguments.spacing("spacing_mm", spacing_mm)

    def forward(self, logits: Tensor, target: Tensor, distance_map: Tensor | None = None) -> Tensor:
        """The loss as a scalar tensor; see this module's docstring for the arguments.

        Raises:
            LossevoError: Shapes that do not fit together, labels out of range, a soft target that does not sum to 1.
        """
        with torch.autocast(device_type=logits.device.type, enabled=False):
            inputs = self.prepare(logits, target, distance_map)
            if self.has_own_gradient and may_have_own_gradient(inputs):
                return self.compute_with_gradient(inputs)
            return self.compute(inputs)

    def prepare(self, logits: Tensor, target: Tensor, distance_map: Tensor | None = None) -> LossInputs:
        """Check the arguments and bring them to the canonical form: C >= 2 classes, float32 or float64."""
        check_shapes(logits, target)
        # Reading values back would break torch.compile and torch.export graphs.
        if not torch.compiler.is_compiling():
            check_target(target, logits.shape[1])
            # MONAI's MetaTensor, for one, runs code of its own in every operation, and lacks some.
            logits, target = logits.as_subclass(Tensor), target.as_subclass(Tensor)
            if distance_map is not None:
                distance_map = distance_map.as_subclass(Tensor)
        logits = logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
        if logits.shape[1] == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
            if target.is_floating_point() and target.shape[1] == 1:
                target = target.to(logits.dtype)
                target = torch.cat([1 - target, target], dim=1)
        if self.uses_distance_map:
            distance_map = self._distance_map(logits, target, distance_map)
        return LossInputs(logits, target, distance_map if self.uses_distance_map else None)

    def _distance_map(self, logits: Tensor, target: Tensor, distance_map: Tensor | None) -> Tensor:
        if distance_map is None:
            spacing_mm = self.spacing_mm or (1.0,) * (logits.ndim - 2)
            return signed_distance_map(one_hot(target, logits.shape[1]).to(logits.dtype), spacing_mm)
        if distance_map.shape[1:2] == (1,) and logits.shape[1] == 2:
            distance_map = torch.cat([-distance_map, distance_map], dim=1)
        if distance_map.shape != logits.shape:
            raise LossevoError(
                f"distance_map has shape {_shape(distance_map)}, expected one signed map per class: {_shape(logits)}"
            )
        return distance_map.to(logits.dtype)

    def compute(self, inputs: LossInputs) -> Tensor:
        """The loss as a scalar tensor, from checked inputs."""
        raise NotImplementedError

    def compute_with_gradient(self, inputs: LossInputs) -> Tensor:
        """As :meth:`compute`, where a gradient is wanted: made beside the value if the loss is made of sums."""
        return one_pass(self.compute, inputs)

    def use_spacing(self, spacing_mm: Sequence[float]) -> None:
        """Measure with ``spacing_mm`` between voxels, in this loss and its parts, where no spacing was chosen.

        A trainer that knows the spacing of its images calls this once.
        """
        spacing = arguments.spacing("spacing_mm", spacing_mm)
        for part in self.modules():
            if isinstance(part, SegmentationLoss) and part.spacing_mm is None:
                part.spacing_mm = spacing

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # half() or to(bfloat16) of a network that holds the loss must not round the loss's numbers.
        return super()._apply(keeping_dtype(fn), recurse)  # type: ignore[no-any-return, no-untyped-call]

    def step(self) -> None:
        """Advance the loss's schedule by one epoch; a loss without one does nothing.

        The papers' schedules run over 100 epochs. A trainer that counts in steps calls this after every hundredth of
        its training. Where a schedule stands is part of ``state_dict``.
        """

    def trajectory(self) -> list[dict[str, float]]:
        """The course of what moved in training, ``[{"step": 0, "w_dice": 1.0, ...}, ...]``: at most 512 rows, evenly
        spaced, each with the number of steps made before. A loss in which nothing moves has none.
        """
        return []


def keeping_dtype(convert: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """What moves tensors to another device as ``convert`` does, and leaves their type as it is."""

    def move(tensor: Tensor) -> Tensor:
        converted = convert(tensor)
        return converted if converted.dtype == tensor.dtype else tensor.to(converted.device)

    return move


def check_shapes(logits: object, target: object) -> None:
    """Raise LossevoError unless logits (B, C, *spatial) and target (B, 1 or C, *spatial) fit together."""
    if not (isinstance(logits, Tensor) and isinstance(target, Tensor)):
        raise LossevoError(
            f"a loss takes tensors: logits is {type(logits).__name__}, target is {type(target).__name__}"
        )
    if logits.ndim not in (4, 5) or not logits.is_floating_point():
        raise LossevoError(
            f"logits are {logits.dtype} of shape {_shape(logits)}, expected floating point and"
            " (batch, classes, height, width) or (batch, classes, depth, height, width)"
        )
    classes = max(2, logits.shape[1])
    if target.ndim != logits.ndim or target.shape[1] not in (1, classes):
        raise LossevoError(
            f"target has shape {_shape(target)} for logits {_shape(logits)}, expected labels (batch, 1, ...)"
            f" or one-hot (batch, {classes}, ...)"
        )
    if target.shape[0] != logits.shape[0] or target.shape[2:] != logits.shape[2:]:
        raise LossevoError(
            f"target has shape {_shape(target)} for logits {_shape(logits)}: batch and spatial sizes must be equal"
        )
    if logits.numel() == 0:
        raise LossevoError(f"logits have shape {_shape(logits)}: there is nothing to compute a loss from")


def check_target(target: Tensor, channels: int) -> None:
    """Raise LossevoError unless the target's values are labels, or shares in [0, 1] that sum to 1, of ``channels``."""
    classes = max(2, channels)
    if target.dtype == torch.bool:
        low, high = 0.0, 1.0
    else:
        low, high = (float(bound) for bound in torch.aminmax(target.detach()))
    shares = target.shape[1] != 1 or (channels == 1 and target.is_floating_point())
    top = 1 if shares else classes - 1
    # Written so that NaN, which makes every comparison false, is refused too.
    if not (low >= 0 and high <= top):
        expected = "shares between 0 and 1" if shares else f"labels 0 to {top} for {classes} classes"
        raise LossevoError(
            f"target holds values from {low:g} to {high:g}, expected {expected};"
            " re-map other labels (there is no 'ignore' label) and replace missing values first"
        )
    if not shares and target.is_floating_point() and not torch.equal(target, target.round()):
        raise LossevoError(f"target holds labels that are not whole numbers, expected 0 to {top}")
    if target.shape[1] != 1 and not bool(((target.sum(dim=1, dtype=torch.float32) - 1).abs() <= 1e-2).all()):
        raise LossevoError(
            f"target of shape {_shape(target)} does not sum to 1 over its {classes} classes at every voxel;"
            " give the background as class 0"
        )


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
