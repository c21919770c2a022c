"""Screening: reject what cannot be a useful loss in milliseconds, before any training.

The checks, cheapest first; a candidate is rejected by the first it fails, and each check counts what it saw and what
it rejected:

========== =======================================================================================================
limits     within the space's limits on nodes and depth, and of the right kind
inputs     depends on the target (itself or its distance map) and on the prediction
seen       its canonical hash is new
overflow   interval arithmetic proves that no value of the loss or its gradient can overflow in float32, whatever the
           images are, up to 256³ voxels, 128 classes and batches of 16, also where the search's own are smaller: a
           winner is for others to train with
finite     finite value and gradient on random logits, and at ±50 with an empty, a full and a one-voxel mask: what is
           proved is also tried
flat       its gradient is not zero everywhere
equivalent its *gradient fingerprint* is new: gradients on fixed logits, divided by the largest, rounded. Losses that
           differ by a positive factor and a constant train alike under Adam and share a fingerprint. The idea is that
           of functional hashing (Unified Functional Hashing in AutoML, arXiv 2302.05433)
descent    40 Adam steps on the *logits* of two tiny label volumes give a foreground Dice of at least 90% of what the
           slowest of some hand-crafted losses gives (in the manner of AutoLoss-Zero's rejection protocol, arXiv
           2103.14026; relative, because descent is slower with more and smaller classes). One that does not raise the
           true class's probability is given up on the way
========== =======================================================================================================
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossevo.expression import Expression
from lossevo.expression.dangers import is_safe
from lossevo.losses import create, expressible_names, expression_of, signed_distance_map
from lossevo.losses.base import SegmentationLoss
from lossevo.losses.inputs import LossInputs
from lossevo.losses.symbolic import EPOCHS, ExpressionLoss

DESCENT_RATE = 0.2
DESCENT_STEPS = 40
DICE_SHARE = 0.9
"""Of the Dice that the slowest reference reaches at the end of the descent."""
GAIN_SHARES = {3: 0.5, 5: 0.5, 10: 0.5}
"""Step of the descent -> by how much the true class's probability must have risen there, as a share of the slowest
reference's rise: most fail early.
"""
DESCENT_REFERENCES = ("cross_entropy", "dice", "focal", "tversky", "jaccard", "baikal", "topk")
"""The last, which looks at the worst voxels alone, is by far the slowest to begin."""
MOMENTS = (0.25, 0.75)
"""Of a training, from 0 to 1: when a loss that changes with its progress is measured."""
_PROBE_SPACING_MM = (4.0, 4.0, 4.0)


class Check(StrEnum):
    """The checks in their order."""

    LIMITS = "limits"
    INPUTS = "inputs"
    SEEN = "seen"
    OVERFLOW = "overflow"
    FINITE = "finite"
    FLAT = "flat"
    EQUIVALENT = "equivalent"
    DESCENT = "descent"


@dataclass(frozen=True, slots=True)
class Measured:
    """What the checks from ``overflow`` on found: the check it failed, if any, and its fingerprint. Of an equivalent
    of an earlier one no descent is made.
    """

    failed: Check | None
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Sample:
    """What a loss is measured on: logits (B, C, *spatial), labels (B, 1, *spatial), distance map (B, C, *spatial)."""

    logits: Tensor
    labels: Tensor
    distance_map: Tensor


def _ball(shape: tuple[int, int, int], centre: tuple[float, float, float], radius: float) -> Tensor:
    axes = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in shape), indexing="ij")
    return sum((axis - middle) ** 2 for axis, middle in zip(axes, centre, strict=True)) <= radius**2  # type: ignore[return-value]


def balls(classes: int, side: int = 8) -> Tensor:
    """Two label volumes (2, 1, side, side, side): a ball for each foreground class, of different sizes in the two."""
    labels = torch.zeros(2, 1, side, side, side, dtype=torch.long)
    scale = side / 8
    for image in range(2):
        for label in range(1, classes):
            along = (label - 0.5) * 8 / (classes - 1)
            radius = max(1.0, min(2.9 - 0.9 * image, 0.62 * 8 / (classes - 1) - 0.2 * image))
            centre = ((along - 0.5) * scale, (3.5 - image) * scale, (3.0 + image) * scale)
            labels[image, 0][_ball((side, side, side), centre, radius * scale)] = label
    return labels


def sample_of(labels: Tensor, logits: Tensor) -> Sample:
    """What a loss is measured on, with the distance map of the labels."""
    one_hot = torch.cat([labels == label for label in range(logits.shape[1])], dim=1)
    return Sample(logits, labels, signed_distance_map(one_hot, _PROBE_SPACING_MM).to(logits.dtype))


@dataclass(frozen=True, slots=True)
class _Probes:
    """What losses are measured on: noise in float64 on small objects, saturated noise (p down to 1e-12) on labels drawn
    voxel by voxel, extreme logits, and where the descent starts, with what it must have reached after some of its
    steps.
    """

    noise: Sample
    saturated: Sample
    extremes: tuple[Sample, ...]
    start: Sample
    least: Mapping[int, float]


def _reference(name: str) -> SegmentationLoss:
    return ExpressionLoss(expression_of(name)) if name in expressible_names() else create(name)


def noise_samples(classes: int) -> tuple[Sample, Sample]:
    """Noise on small objects, and saturated noise on labels drawn voxel by voxel."""
    probes = _probes(classes)
    return probes.noise, probes.saturated


@cache
def _probes(classes: int) -> _Probes:
    generator = torch.Generator().manual_seed(20200611)
    labels = balls(classes)
    noise = torch.randn(2, classes, *labels.shape[2:], generator=generator, dtype=torch.float64)
    extreme = 50 * noise.sign().float()
    one_voxel, full = torch.zeros_like(labels), torch.full_like(labels, classes - 1)
    one_voxel[:, 0, 3, 3, 3] = 1
    start = sample_of(labels, noise.flip(0).float())
    shares = {**GAIN_SHARES, DESCENT_STEPS: DICE_SHARE}
    references = [_descent(_reference(name), start, dict.fromkeys(shares, -math.inf)) for name in DESCENT_REFERENCES]
    return _Probes(
        noise=sample_of(labels, 2 * noise),
        saturated=sample_of(torch.randint(0, classes, labels.shape, generator=generator), 8 * noise),
        extremes=tuple(sample_of(mask, extreme) for mask in (labels, torch.zeros_like(labels), full, one_voxel)),
        start=start,
        least={step: share * min(reached[step] for reached in references) for step, share in shares.items()},
    )


@dataclass
class Screening:
    """Screens the candidates of one search, which trains with ``classes`` classes (background included).

    Without ``numeric`` it computes nothing: whatever is new and within the limits passes, as in GLO. ``on_rejected`` is
    called with each rejection.
    """

    classes: int
    numeric: bool = True
    saw: dict[Check, int] = field(default_factory=lambda: dict.fromkeys(Check, 0))
    rejected: dict[Check, int] = field(default_factory=lambda: dict.fromkeys(Check, 0))
    on_rejected: Callable[[Check, Expression | None], None] = lambda check, expression: None

    def __post_init__(self) -> None:
        self._probes = _probes(self.classes)
        self._hashes: set[str] = set()
        self._fingerprints: set[str] = set()
        self._new: list[tuple[str, str, str]] = []

    def screen(self, expression: Expression | None) -> bool:
        """Whether a candidate passes every check; None is one beyond the limits."""
        for check, passed in self._checks(expression):
            self.saw[check] += 1
            if not passed:
                self._reject(check, expression)
                return False
        return True

    def _reject(self, check: Check, expression: Expression | None) -> None:
        self.rejected[check] += 1
        self.on_rejected(check, expression)

    def _checks(self, expression: Expression | None) -> Iterator[tuple[Check, bool]]:
        """Each check and whether it is passed; the next is only computed if it is asked for."""
        yield Check.LIMITS, expression is not None
        assert expression is not None
        if not self.numeric:
            yield Check.SEEN, expression.hash not in self._hashes
            self._remember(expression, Measured(None, ""))
            return
        yield Check.INPUTS, depends_on_both(expression)
        yield Check.SEEN, expression.hash not in self._hashes
        measured = self._before_descent(expression)
        if measured.failed is None:
            if measured.fingerprint in self._fingerprints:
                measured = Measured(Check.EQUIVALENT, measured.fingerprint)
            elif not self._descends(ExpressionLoss(expression)):
                measured = Measured(Check.DESCENT, measured.fingerprint)
        self._remember(expression, measured)
        yield Check.OVERFLOW, measured.failed is not Check.OVERFLOW
        yield Check.FINITE, measured.failed is not Check.FINITE
        yield Check.FLAT, measured.failed is not Check.FLAT
        yield Check.EQUIVALENT, measured.failed is not Check.EQUIVALENT
        self._fingerprints.add(measured.fingerprint)
        yield Check.DESCENT, measured.failed is not Check.DESCENT

    def is_new(self, simplified: Expression, *, than: Expression) -> bool:
        """Whether a candidate that passed is new also in the form it is trained in, with a gradient that is nearly the
        same; if not, it is rejected as an equivalent.
        """
        fingerprint = self.fingerprint(simplified) if self.numeric else ""
        known = fingerprint in self._fingerprints and fingerprint != self.fingerprint(than)
        if known or simplified.hash in self._hashes:
            self._reject(Check.EQUIVALENT, than)
            return False
        self._remember(simplified, Measured(None, fingerprint))
        if fingerprint:
            self._fingerprints.add(fingerprint)
        return True

    def admit(self, expression: Expression) -> None:
        """Let a loss in that is trained whatever the checks say, so that only its equivalents are turned down."""
        fingerprint = self.fingerprint(expression) if self.numeric else ""
        self._remember(expression, Measured(None, fingerprint))
        self._fingerprints.add(fingerprint)

    def _remember(self, expression: Expression, measured: Measured) -> None:
        self._hashes.add(expression.hash)
        self._new.append((expression.hash, measured.failed or "", measured.fingerprint))

    def new(self) -> list[tuple[str, str, str]]:
        """What was measured since this was last asked: (hash, failed check or "", fingerprint) of each expression."""
        new, self._new = self._new, []
        return new

    def counts(self) -> dict[str, list[int]]:
        """How many candidates each check saw and rejected, by its name."""
        return {check.value: [self.saw[check], self.rejected[check]] for check in Check if self.saw[check]}

    def restore(self, measured: Iterable[tuple[str, str, str]], counts: Mapping[str, Sequence[int]]) -> None:
        """Know what another screening measured and counted, as :meth:`new` and :meth:`counts` gave it."""
        for check in Check:
            self.saw[check], self.rejected[check] = counts.get(check.value, (0, 0))
        for hash_, _, fingerprint in measured:
            self._hashes.add(hash_)
            if fingerprint:
                self._fingerprints.add(fingerprint)

    def measure(self, expression: Expression) -> Measured:
        """The checks on what the expression computes: overflow, finite, flat, descent, and the fingerprint."""
        return self.try_out(expression) if is_safe(expression) else Measured(Check.OVERFLOW, "")

    def try_out(self, expression: Expression) -> Measured:
        """The numeric checks, of whatever expression: finite, flat, descent, and the fingerprint."""
        return self.judge(ExpressionLoss(expression))

    def judge(self, loss: SegmentationLoss) -> Measured:
        """The numeric checks, of whatever loss; they leave it as after a training."""
        measured = self._flat_or_not_finite(loss)
        if measured.failed is None and not self._descends(loss):
            return Measured(Check.DESCENT, measured.fingerprint)
        return measured

    def _before_descent(self, expression: Expression) -> Measured:
        if not is_safe(expression):
            return Measured(Check.OVERFLOW, "")
        return self._flat_or_not_finite(ExpressionLoss(expression))

    def _flat_or_not_finite(self, loss: SegmentationLoss) -> Measured:
        gradient = gradients(loss, self._probes.noise)
        if gradient is None or not all(gradients(loss, sample) is not None for sample in self._probes.extremes):
            return Measured(Check.FINITE, "")
        fingerprint = _fingerprint(gradient)
        return Measured(None if fingerprint else Check.FLAT, fingerprint)

    def _descends(self, loss: SegmentationLoss) -> bool:
        reached = _descent(loss, self._probes.start, self._probes.least)
        return all(reached.get(step, -1.0) >= least for step, least in self._probes.least.items())

    def direction(self, expression: Expression) -> NDArray[np.float32]:
        """The unit vector of the gradient on the probe, half-way through a training, or zero if that is not finite."""
        gradient = logit_gradient(ExpressionLoss(expression), self._probes.noise, progress=0.5)
        if gradient is None:
            return np.zeros(self._probes.noise.logits.numel(), dtype=np.float32)
        return torch.nn.functional.normalize(gradient.flatten(), dim=0, eps=1e-30).float().numpy()

    def fingerprint(self, expression: Expression) -> str:
        """The gradient fingerprint; empty if the gradient is zero everywhere or not finite."""
        gradient = gradients(ExpressionLoss(expression), self._probes.noise)
        return "" if gradient is None else _fingerprint(gradient)

    def behaviour(self, expression: Expression) -> str:
        """The gradient fingerprint and a second one, on other labels and saturated logits: protected arithmetic may act
        on one probe alone, where p / p is not 1.
        """
        gradient = gradients(ExpressionLoss(expression), self._probes.saturated)
        return self.fingerprint(expression) + ("" if gradient is None else _fingerprint(gradient))


def depends_on_both(expression: Expression) -> bool:
    """Whether it depends on the target (itself or its distance map) and on the prediction."""
    return bool(expression.inputs & {"y", "d"} and expression.inputs & {"p", "logp", "m"})


def gradients(loss: SegmentationLoss, sample: Sample) -> Tensor | None:
    """The gradient with respect to the logits, of a loss that changes one at each moment; None if one, or a value, is
    not finite.
    """
    if not isinstance(loss, ExpressionLoss) or loss.progress is None:
        return logit_gradient(loss, sample, progress=0.0)
    at_each = (logit_gradient(loss, sample, progress=moment) for moment in MOMENTS)
    found = [gradient for gradient in at_each if gradient is not None]
    return torch.stack(found) if len(found) == len(MOMENTS) else None


def logit_gradient(loss: SegmentationLoss, sample: Sample, *, progress: float) -> Tensor | None:
    """The gradient with respect to the logits at this progress of a training; None if it or the value is not finite."""
    _set_progress(loss, progress)
    gradient = _gradient(loss, sample.logits, sample)
    return gradient if gradient is not None and bool(torch.isfinite(gradient).all()) else None


def _set_progress(loss: SegmentationLoss, progress: float) -> None:
    if isinstance(loss, ExpressionLoss) and loss.progress is not None:
        loss.progress.fill_(progress)


def _gradient(loss: SegmentationLoss, logits: Tensor, sample: Sample) -> Tensor | None:
    """The gradient at these logits, of a loss without any 0; None if the value is not finite."""
    if isinstance(loss, ExpressionLoss):
        found = loss.value_and_gradient(LossInputs(logits, sample.labels, sample.distance_map))
        if found is not None:
            value, gradient = found
            return gradient if math.isfinite(float(value)) else None
    logits = logits.clone().requires_grad_()
    value = loss(logits, sample.labels, sample.distance_map)
    if not math.isfinite(float(value.detach())):
        return None
    if not value.requires_grad:
        return torch.zeros_like(logits)
    (gradient,) = torch.autograd.grad(value, logits)
    return gradient


def _descent(loss: SegmentationLoss, start: Sample, least: Mapping[int, float]) -> dict[int, float]:
    """What is reached after some steps of a descent on the logits, up to the first that is missed: by how much the true
    class's probability rose, and at the end the foreground Dice.
    """
    reached: dict[int, float] = {}
    logits, adam = start.logits.clone(), Adam(start.logits, DESCENT_RATE)
    before = true_probability(logits, start.labels)
    _set_progress(loss, 0.0)
    for step in range(1, DESCENT_STEPS + 1):
        gradient = _gradient(loss, logits, start)
        if gradient is None:
            break
        adam.step(logits, gradient)
        for _ in range(EPOCHS * (step - 1) // DESCENT_STEPS, EPOCHS * step // DESCENT_STEPS):
            loss.step()
        if step in least:
            at_end = step == DESCENT_STEPS
            reached[step] = (
                foreground_dice(logits, start.labels) if at_end else true_probability(logits, start.labels) - before
            )
            if not reached[step] >= least[step]:
                break
    return reached


class Adam:
    """Adam (Kingma & Ba, ICLR 2015) on one tensor, to the bit as PyTorch does it, in a tenth of the time."""

    def __init__(self, parameter: Tensor, rate: float) -> None:
        self._rate = rate
        self._mean, self._square = torch.zeros_like(parameter), torch.zeros_like(parameter)
        self._steps = 0

    def step(self, parameter: Tensor, gradient: Tensor) -> None:
        """Move the parameter, in place."""
        self._steps += 1
        self._mean.lerp_(gradient, 1 - 0.9)
        self._square.mul_(0.999).addcmul_(gradient, gradient, value=1 - 0.999)
        size = (self._square.sqrt() / (1 - 0.999**self._steps) ** 0.5).add_(1e-8)
        parameter.addcdiv_(self._mean, size, value=-self._rate / (1 - 0.9**self._steps))


def _fingerprint(gradient: Tensor) -> str:
    largest = float(gradient.abs().max())
    if largest < 1e-30:
        return ""
    rounded = (gradient / largest).mul(1e5).round().to(torch.int64)
    return hashlib.sha256(rounded.numpy().tobytes()).hexdigest()[:32]


def true_probability(logits: Tensor, labels: Tensor) -> float:
    """Mean probability of the true class; each class that has voxels counts as much."""
    found = logits.softmax(1).gather(1, labels).flatten()
    sums = torch.zeros(logits.shape[1]).index_add_(0, labels.flatten(), found)
    voxels = torch.bincount(labels.flatten(), minlength=logits.shape[1])
    return float((sums / voxels)[voxels > 0].mean())


def foreground_dice(logits: Tensor, labels: Tensor) -> float:
    """Dice of the arg max, mean over images and foreground classes."""
    predicted = logits.argmax(dim=1, keepdim=True)
    dice = []
    for label in range(1, logits.shape[1]):
        p, y = (predicted == label).flatten(1), (labels == label).flatten(1)
        dice.append(2 * (p & y).sum(1) / (p.sum(1) + y.sum(1)).clamp(min=1))
    return float(torch.stack(dice).mean())
