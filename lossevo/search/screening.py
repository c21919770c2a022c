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
           2103.14026; relative, because descent is slower with more and smaller classes)
========== =======================================================================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossevo.expression import Expression
from lossevo.expression.dangers import is_safe
from lossevo.losses import expression_of, signed_distance_map
from lossevo.losses.symbolic import EPOCHS, ExpressionLoss

DESCENT_RATE = 0.2
DESCENT_SHARES = {10: 0.3, 40: 0.9}
"""Step of the descent -> what Dice must be reached there, as a share of the slowest reference's: most fail early."""
DESCENT_REFERENCES = ("cross_entropy", "dice", "focal", "tversky", "jaccard", "baikal")
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
    """What the checks from ``overflow`` on found, a function of the expression alone: the check it failed, if any, and
    its fingerprint.
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
    voxel by voxel, extreme logits, and where the descent starts, with the Dice that it must have reached after some of
    its steps.
    """

    noise: Sample
    saturated: Sample
    extremes: tuple[Sample, ...]
    start: Sample
    least_dice: Mapping[int, float]


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
    references = [
        _descent(ExpressionLoss(expression_of(name)), start, dict.fromkeys(DESCENT_SHARES, 0.0))
        for name in DESCENT_REFERENCES
    ]
    return _Probes(
        noise=sample_of(labels, 2 * noise),
        saturated=sample_of(torch.randint(0, classes, labels.shape, generator=generator), 8 * noise),
        extremes=tuple(sample_of(mask, extreme) for mask in (labels, torch.zeros_like(labels), full, one_voxel)),
        start=start,
        least_dice={
            step: share * min(reached[step] for reached in references) for step, share in DESCENT_SHARES.items()
        },
    )


@dataclass
class Screening:
    """Screens the candidates of one search, which trains with ``classes`` classes (background included).

    Without ``numeric`` it computes nothing: whatever is new and within the limits passes, as in GLO.
    """

    classes: int
    numeric: bool = True
    saw: dict[Check, int] = field(default_factory=lambda: dict.fromkeys(Check, 0))
    rejected: dict[Check, int] = field(default_factory=lambda: dict.fromkeys(Check, 0))

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
                self.rejected[check] += 1
                return False
        return True

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
        measured = self.measure(expression)
        self._remember(expression, measured)
        yield Check.OVERFLOW, measured.failed is not Check.OVERFLOW
        yield Check.FINITE, measured.failed is not Check.FINITE
        yield Check.FLAT, measured.failed is not Check.FLAT
        yield Check.EQUIVALENT, measured.fingerprint not in self._fingerprints
        self._fingerprints.add(measured.fingerprint)
        yield Check.DESCENT, measured.failed is not Check.DESCENT

    def is_new(self, simplified: Expression, *, than: Expression) -> bool:
        """Whether a candidate that passed is new also in the form it is trained in, with a gradient that is nearly the
        same; if not, it is rejected as an equivalent.
        """
        fingerprint = self.fingerprint(simplified) if self.numeric else ""
        known = fingerprint in self._fingerprints and fingerprint != self.fingerprint(than)
        if known or simplified.hash in self._hashes:
            self.rejected[Check.EQUIVALENT] += 1
            return False
        self._remember(simplified, Measured(None, fingerprint))
        if fingerprint:
            self._fingerprints.add(fingerprint)
        return True

    def admit(self, expression: Expression) -> None:
        """Let a seed in whatever the checks say, so that only its equivalents are turned down."""
        measured = self.measure(expression)
        if measured.failed is Check.OVERFLOW:
            measured = Measured(measured.failed, self.fingerprint(expression))
        self._remember(expression, measured)
        self._fingerprints.add(measured.fingerprint)

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
        loss = ExpressionLoss(expression)
        gradient = gradients(loss, self._probes.noise)
        if gradient is None or not all(gradients(loss, sample) is not None for sample in self._probes.extremes):
            return Measured(Check.FINITE, "")
        fingerprint = _fingerprint(gradient)
        if not fingerprint:
            return Measured(Check.FLAT, "")
        reached = _descent(loss, self._probes.start, self._probes.least_dice)
        descends = all(reached.get(step, -1.0) >= least for step, least in self._probes.least_dice.items())
        return Measured(None if descends else Check.DESCENT, fingerprint)

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


def gradients(loss: ExpressionLoss, sample: Sample) -> Tensor | None:
    """The gradient with respect to the logits, of a loss that changes one at each moment; None if one, or a value, is
    not finite.
    """
    if loss.progress is None:
        return logit_gradient(loss, sample, progress=0.0)
    found = [logit_gradient(loss, sample, progress=moment) for moment in MOMENTS]
    return None if any(gradient is None for gradient in found) else torch.stack(found)  # type: ignore[arg-type]


def logit_gradient(loss: ExpressionLoss, sample: Sample, *, progress: float) -> Tensor | None:
    """The gradient with respect to the logits at this progress of a training; None if it or the value is not finite."""
    if loss.progress is not None:
        loss.progress.fill_(progress)
    logits = sample.logits.clone().requires_grad_()
    value = loss(logits, sample.labels, sample.distance_map)
    if not bool(torch.isfinite(value)):
        return None
    if not value.requires_grad:
        return torch.zeros_like(logits)
    (gradient,) = torch.autograd.grad(value, logits)
    return gradient if bool(torch.isfinite(gradient).all()) else None


def _descent(loss: ExpressionLoss, start: Sample, least_dice: Mapping[int, float]) -> dict[int, float]:
    """Foreground Dice at the checkpoints of a descent on the logits, up to the first that is missed."""
    reached: dict[int, float] = {}
    logits = start.logits.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=DESCENT_RATE)
    steps = max(DESCENT_SHARES)
    if loss.progress is not None:
        loss.progress.zero_()
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        value = loss(logits, start.labels, start.distance_map)
        if not value.requires_grad or not bool(torch.isfinite(value)):
            break
        value.backward()
        optimizer.step()
        for _ in range(EPOCHS * (step - 1) // steps, EPOCHS * step // steps):
            loss.step()
        if step in least_dice:
            reached[step] = foreground_dice(logits.detach(), start.labels)
            if reached[step] < least_dice[step]:
                break
    return reached


def _fingerprint(gradient: Tensor) -> str:
    largest = float(gradient.abs().max())
    if largest < 1e-30:
        return ""
    rounded = (gradient / largest).mul(1e5).round().to(torch.int64)
    return hashlib.sha256(rounded.numpy().tobytes()).hexdigest()[:32]


def foreground_dice(logits: Tensor, labels: Tensor) -> float:
    """Dice of the arg max, mean over images and foreground classes."""
    predicted = logits.argmax(dim=1, keepdim=True)
    dice = []
    for label in range(1, logits.shape[1]):
        p, y = (predicted == label).flatten(1), (labels == label).flatten(1)
        dice.append(2 * (p & y).sum(1) / (p.sum(1) + y.sum(1)).clamp(min=1))
    return float(torch.stack(dice).mean())
