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
from lossevo.losses.soft_targets import LOOKS, may_look, warn_if_minimum_is_elsewhere

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
    looks_for_soft_targets: int = LOOKS
    """In so many more batches with a target of floats soft labels are looked for, see
    :mod:`lossevo.losses.soft_targets`.
    """

    def __init__(self, *, spacing_mm: Sequence[float] | None = None) -> None:
        super().__init__()
        self.spacing_mm = arguments.spacing("spacing_mm", spacing_mm)

    def forward(self, logits: Tensor, target: Tensor, distance_map: Tensor | None = None) -> Tensor:
        """The loss as a scalar tensor; see this module's docstring for the arguments.

        Raises:
            LossevoError: No tensors, or of a wrong type, shapes or devices that do not fit together, labels out of
                range, a soft target that does not sum to 1.
        """
        check_shapes(logits, target, distance_map)
        with torch.autocast(device_type=logits.device.type, enabled=False):
            inputs = self._prepared(logits, target, distance_map)
            if self.has_own_gradient and may_have_own_gradient(inputs):
                return self.compute_with_gradient(inputs)
            return self.compute(inputs)

    def prepare(self, logits: Tensor, target: Tensor, distance_map: Tensor | None = None) -> LossInputs:
        """Check the arguments and bring them to the canonical form: C >= 2 classes, float32 or float64."""
        check_shapes(logits, target, distance_map)
        return self._prepared(logits, target, distance_map)

    def _prepared(self, logits: Tensor, target: Tensor, distance_map: Tensor | None) -> LossInputs:
        # Reading values back would break torch.compile and torch.export graphs.
        if not torch.compiler.is_compiling():
            self._check_target(logits, target)
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

    def _check_target(self, logits: Tensor, target: Tensor) -> None:
        looks = self.looks_for_soft_targets > 0 and target.is_floating_point() and may_look()
        is_soft = check_target(target, logits.shape[1], look_for_soft=looks)
        if looks:
            self.looks_for_soft_targets = 0 if is_soft else self.looks_for_soft_targets - 1
        if is_soft:
            warn_if_minimum_is_elsewhere(self, logits)

    def _distance_map(self, logits: Tensor, target: Tensor, distance_map: Tensor | None) -> Tensor:
        if distance_map is None:
            spacing_mm = self.spacing_mm or (1.0,) * (logits.ndim - 2)
            return signed_distance_map(one_hot(target, logits.shape[1]).to(logits.dtype), spacing_mm)
        if distance_map.shape[1:2] == (1,) and logits.shape[1] == 2:
            distance_map = torch.cat([-distance_map, distance_map], dim=1)
        check_distance_map(distance_map, logits)
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
    """What moves tensors to another device as ``convert`` does, and leaves their type as it is.

    A device without float64, which refuses it with a TypeError (Apple's MPS), gets float32.
    """

    def move(tensor: Tensor) -> Tensor:
        try:
            converted = convert(tensor)
            return converted if converted.dtype == tensor.dtype else tensor.to(converted.device)
        except TypeError:
            if tensor.dtype != torch.float64:
                raise
            return move(tensor.float())

    return move


def check_shapes(logits: object, target: object, distance_map: object = None) -> None:
    """Raise LossevoError unless logits (B, C, *spatial) and target (B, 1 or C, *spatial) are tensors that fit together.

    Nothing waits for the device that they are on.
    """
    if not isinstance(logits, Tensor):
        raise LossevoError(_no_tensor("logits", logits, "a floating-point tensor (batch, classes, ...)"))
    if not isinstance(target, Tensor):
        raise LossevoError(_no_tensor("target", target, "a tensor of labels (batch, 1, ...) or shares of classes"))
    if not (distance_map is None or isinstance(distance_map, Tensor)):
        raise LossevoError(_no_tensor("distance_map", distance_map, "a tensor (batch, classes, ...), or None"))
    if logits.ndim not in (4, 5) or not logits.is_floating_point():
        raise LossevoError(
            f"logits are {logits.dtype} of shape {_shape(logits)}, expected floating point and"
            " (batch, classes, height, width) or (batch, classes, depth, height, width)"
        )
    classes = max(2, logits.shape[1])
    if target.ndim != logits.ndim or target.shape[1] not in (1, classes):
        hint = "; add the axis of classes with target.unsqueeze(1)" if target.ndim == logits.ndim - 1 else ""
        raise LossevoError(
            f"target has shape {_shape(target)} for logits {_shape(logits)}, expected labels (batch, 1, ...)"
            f" or one-hot (batch, {classes}, ...){hint}"
        )
    if target.shape[0] != logits.shape[0] or target.shape[2:] != logits.shape[2:]:
        raise LossevoError(
            f"target has shape {_shape(target)} for logits {_shape(logits)}: batch and spatial sizes must be equal"
        )
    if logits.numel() == 0:
        raise LossevoError(f"logits have shape {_shape(logits)}: there is nothing to compute a loss from")
    if target.device != logits.device:
        raise LossevoError(
            f"target is on {target.device} and logits are on {logits.device}; move it with target.to(logits.device)"
        )
    whole = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    if target.dtype not in (*whole, torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise LossevoError(
            f"target is {target.dtype}, expected whole numbers of 8 to 64 bits, bool or floating point;"
            " convert labels with target.long()"
        )
    if logits.layout != torch.strided or target.layout != torch.strided:
        raise LossevoError(
            f"logits are {logits.layout} and target is {target.layout}, expected dense tensors; convert with to_dense()"
        )


def _no_tensor(name: str, value: object, expected: str) -> str:
    """What is wrong with an argument that is no tensor."""
    kind, hint = type(value).__name__, ""
    if isinstance(value, list | tuple):
        kind = f"{kind} of {len(value)}"
        hint = (
            ". If these are the outputs of deep supervision, call the loss once for each and add up:"
            " sum(w * loss(x, y) for w, x, y in zip(weights, outputs, targets))"
        )
    elif isinstance(value, dict):
        hint = f"; give the entry that holds it, as in loss(output[{next(iter(value), 'logits')!r:.40}], target)"
    elif type(value).__module__ == "numpy":
        hint = "; convert it with torch.from_numpy(...)"
    return f"a loss takes tensors: {name} is {kind}, expected {expected}{hint}"


def check_distance_map(distance_map: Tensor, logits: Tensor) -> None:
    """Raise LossevoError unless the distance map (B, C, *spatial) fits the logits."""
    if distance_map.shape != logits.shape:
        raise LossevoError(
            f"distance_map has shape {_shape(distance_map)}, expected one signed map per class: {_shape(logits)}"
        )
    if distance_map.is_complex() or distance_map.dtype == torch.bool:
        raise LossevoError(f"distance_map is {distance_map.dtype}, expected distances in mm as floating point")
    if distance_map.device != logits.device:
        raise LossevoError(
            f"distance_map is on {distance_map.device} and logits are on {logits.device};"
            " move it with distance_map.to(logits.device)"
        )


def check_target(target: Tensor, channels: int, *, look_for_soft: bool = False) -> bool:
    """Whether the target holds soft labels, if they are looked for: shares of which some are neither 0 nor 1.

    Raises LossevoError unless the target's values are labels, or shares in [0, 1] that sum to 1, of ``channels``.
    They are read back from the device once.
    """
    classes = max(2, channels)
    values = target.detach().as_subclass(Tensor)
    if values.dtype == torch.bool:
        if values.shape[1] == 1:
            return False
        values = values.to(torch.uint8)
    shares = values.shape[1] != 1 or (channels == 1 and values.is_floating_point())
    found = [*torch.aminmax(values)]
    if values.shape[1] != 1:
        found.append((values.sum(dim=1, dtype=torch.float32) - 1).abs().amax())
    elif not shares and values.is_floating_point():
        found.append((values != values.round()).any())
    if look_for_soft and shares:
        # The least of all voxels' largest share.
        found.append((values if values.shape[1] != 1 else torch.cat([values, 1 - values], dim=1)).amax(dim=1).amin())
    low, high, *others = torch.stack([number.float() for number in found]).tolist()
    top = 1 if shares else classes - 1
    # Written so that NaN, which makes every comparison false, is refused too.
    if not (low >= 0 and high <= top):
        expected = "shares between 0 and 1" if shares else f"labels 0 to {top} for {classes} classes"
        raise LossevoError(
            f"target holds values from {low:g} to {high:g}, expected {expected};"
            " re-map other labels (there is no 'ignore' label) and replace missing values first"
        )
    if not shares and others and others[0]:
        raise LossevoError(f"target holds labels that are not whole numbers, expected 0 to {top}")
    if values.shape[1] != 1 and not others[0] <= 1e-2:
        raise LossevoError(
            f"target of shape {_shape(target)} does not sum to 1 over its {classes} classes at every voxel;"
            " give the background as class 0"
        )
    return look_for_soft and shares and others[-1] < 0.99


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
