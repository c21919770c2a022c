"""Losses after the Hausdorff distance: every error counts by how far it lies from the boundary it should lie on.

Karimi & Salcudean replace the maximum over the boundary by a sum over all voxels, and estimate the distance in three
ways: by distance transforms, by repeated erosion of the error, by convolution with balls. All of them are 0 for a
perfect prediction and grow like (size of the error)^α, so they are far more uneven than a region loss; the authors add
Dice (:class:`~lossevo.losses.scheduled.DiceHausdorff`), and alone they may fail to train.

p is the probability, g the target, (p - g)² the error; where a formula is as recalled, its class says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import scipy
import torch
from torch import Tensor

from lossevo.errors import LossevoError
from lossevo.losses import arguments
from lossevo.losses.base import Description, SegmentationLoss
from lossevo.losses.inputs import LossInputs
from lossevo.losses.signed_distance import signed_distance_map

_SOURCE = "Karimi & Salcudean, Reducing the Hausdorff distance in medical image segmentation, IEEE TMI 2020"
RADII = (3.0, 6.0, 9.0, 12.0, 15.0, 18.0)


class HausdorffLoss(SegmentationLoss):
    """What the Hausdorff losses share: the exponent α of the distance, and which classes count."""

    def __init__(self, *, alpha: float, include_background: bool, spacing_mm: Sequence[float] | None = None) -> None:
        super().__init__(spacing_mm=spacing_mm)
        self.alpha = arguments.number("alpha", alpha)
        self.include_background = arguments.flag("include_background", include_background)

    def classes(self, maps: Tensor) -> Tensor:
        """The channels of ``maps`` (B, C, *spatial) that count."""
        return maps if self.include_background else maps[:, 1:]


class HausdorffDT(HausdorffLoss):
    """Hausdorff loss by distance transforms, the mean over batch, classes and voxels of (p - g)² (d_g^α + d_p^α).

    d_g is the unsigned distance to the boundary of the target, d_p to the boundary of the prediction (p >= 1/2), both
    |φ| of :func:`~lossevo.losses.signed_distance.signed_distance_map`: they grow on both sides of the boundary, so a
    false positive costs more the farther off it lies (public code that measures inside the object only misses that).
    d_p is held fixed in the gradient. It is measured anew with every call.

    The loss is in mm^α: halving the voxels' size divides it by 2^α, and beside another loss its weight has to be chosen
    with that in mind. ``spacing_mm`` is also the spacing that d_p is measured with, so give the one that a given
    ``distance_map`` was computed with. A class that the target (the prediction) lacks or fills an image with has
    d_g = 0 (d_p = 0) there. With spacing 1 this is MONAI's ``HausdorffDTLoss``, which has no spacing; its ``batch``
    changes nothing under a mean.

    Args:
        alpha: exponent of the distances.
        include_background: let class 0 count as the others do.
        spacing_mm: distance between neighbouring voxels per axis (default 1 mm).
    """

    description: ClassVar[Description] = Description(
        name="hausdorff_dt",
        family="distance",
        summary="Squared error times the squared distances to the true and the predicted boundary.",
        formula="mean_c 1/|Ω| Σ_i (p_ic - g_ic)² (d_g,ic^α + d_p,ic^α)",
        source=_SOURCE,
        purpose="Few far outliers, which decide the Hausdorff distance; beside Dice.",
    )
    uses_distance_map = True

    def __init__(
        self, *, alpha: float = 2.0, include_background: bool = False, spacing_mm: Sequence[float] | None = None
    ) -> None:
        super().__init__(alpha=alpha, include_background=include_background, spacing_mm=spacing_mm)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        assert inputs.distance_map is not None
        probability, target = self.classes(inputs.probability), self.classes(inputs.target)
        weight = self._power(self.classes(inputs.distance_map)) + self.predicted_distance(probability)
        return ((probability - target).square() * weight).mean()

    def predicted_distance(self, probability: Tensor) -> Tensor | float:
        """d_p^α of probabilities (B, C, *spatial), without gradient."""
        spacing_mm = self.spacing_mm or (1.0,) * (probability.ndim - 2)
        return self._power(signed_distance_map(probability.detach(), spacing_mm))

    def _power(self, signed_distance: Tensor) -> Tensor:
        # square() takes a fraction of the time of pow(2.0) after abs().
        return signed_distance.square() if self.alpha == 2 else signed_distance.abs().pow(self.alpha)


class HausdorffDTOneSided(HausdorffDT):
    """One-sided Hausdorff loss by distance transforms, the mean over batch, classes and voxels of (p - g)² d_g^α.

    :class:`HausdorffDT` without the prediction's boundary, so nothing is measured during training if the distance map
    is given. A missed voxel costs by its depth in the object, however far the nearest prediction is, and a class that
    the target lacks costs nothing. The formula is as recalled, not checked against the paper.

    Args:
        alpha: exponent of the distance.
        include_background: let class 0 count as the others do.
        spacing_mm: distance between neighbouring voxels per axis, for maps computed from the target (default 1 mm).
    """

    description: ClassVar[Description] = Description(
        name="hausdorff_dt_one_sided",
        family="distance",
        summary="Squared error times the squared distance to the true boundary.",
        formula="mean_c 1/|Ω| Σ_i (p_ic - g_ic)² d_g,ic^α",
        source=_SOURCE,
        purpose="As hausdorff_dt, nearly as cheap as Dice if distance maps are given; far false positives above all.",
    )

    def predicted_distance(self, probability: Tensor) -> float:
        """The prediction's boundary plays no part."""
        return 0.0


class LogHausdorffDT(HausdorffDT):
    """Logarithm of the Hausdorff loss, log(1 + L) with L of :class:`HausdorffDT`.

    L runs over orders of magnitude; its logarithm stays near the scale of Dice, and its gradient is that of L divided
    by 1 + L. With spacing 1 this is MONAI's ``LogHausdorffDTLoss``.

    Args:
        alpha: exponent of the distances.
        include_background: let class 0 count as the others do.
        spacing_mm: distance between neighbouring voxels per axis (default 1 mm).
    """

    description: ClassVar[Description] = Description(
        name="log_hausdorff_dt",
        family="distance",
        summary="Logarithm of hausdorff_dt: large values tamed.",
        formula="log(1 + mean_c 1/|Ω| Σ_i (p_ic - g_ic)² (d_g,ic^α + d_p,ic^α))",
        source="MONAI, LogHausdorffDTLoss",
        purpose="hausdorff_dt beside another loss without a schedule or a weight of its own.",
    )

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        return super().compute(inputs).log1p()


class HausdorffErosion(HausdorffLoss):
    """Hausdorff loss by erosion, the mean over batch, classes and voxels of Σ_k k^α E_k, k = 1 … ``iterations``.

    E_0 = (p - g)², and E_k = max(0, 2 B∗E_{k-1} - 1), a soft erosion: B is the mean over a voxel and its neighbours
    along the axes (5 voxels in 2D, 7 in 3D), and what lies outside the image counts as right. The wider a region of
    error, the more erosions it survives. Where (p - g)² < 1/2, i.e. |p - g| < 0.71, there is no loss and no gradient.
    Erosion counts voxels, whatever their spacing.

    The public code subtracts 1/2, cuts at 0 and then stretches every image to [0, 1] by its own minimum and maximum.
    That makes the loss jump from 0 as soon as a region's error passes 1/2, with no gradient to bring it back. The fixed
    factor 2 here is the same wherever some voxel has a wholly wrong neighbourhood and another a right one, but it is
    continuous, never amplifies a weak error, and treats every region for itself. The most copied implementation
    computes in NumPy and has no gradient at all.

    Args:
        iterations: number of erosions K.
        alpha: exponent of the number of erosions survived.
        include_background: let class 0 count as the others do.
    """

    description: ClassVar[Description] = Description(
        name="hausdorff_erosion",
        family="distance",
        summary="Error regions by how many erosions they survive: thick errors cost, thin ones are forgiven.",
        formula="mean_c 1/|Ω| Σ_k k^α Σ_i E_k,ic,  E_k = max(0, 2 B∗E_{k-1} - 1), E_0 = (p - g)²",
        source=_SOURCE,
        purpose="Compact blobs of error, without a distance map; only beside Dice, since small errors cost nothing.",
    )

    def __init__(self, *, iterations: int = 10, alpha: float = 2.0, include_background: bool = False) -> None:
        super().__init__(alpha=alpha, include_background=include_background)
        self.iterations = arguments.count("iterations", iterations, minimum=1)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        error = self.classes((inputs.probability - inputs.target).square())
        neighbours = 2 * (error.ndim - 2) + 1
        loss = error.new_zeros(())
        for k in range(1, self.iterations + 1):
            error = torch.relu(2 / neighbours * cross_sum(error) - 1)
            loss = loss + k**self.alpha * error.mean()
            # Mostly everything is gone after a few erosions.
            if not torch.compiler.is_compiling() and not error.any():
                break
        return loss


class _CrossSum(torch.autograd.Function):
    """Sum over a voxel and its neighbours along the axes, 0 outside: a symmetric operator, so its own gradient."""

    @staticmethod
    def forward(maps: Tensor) -> Tensor:
        # A tenth of the time of a grouped conv3d.
        total = maps.clone()
        for axis in range(2, maps.ndim):
            last = maps.shape[axis] - 1
            total.narrow(axis, 0, last).add_(maps.narrow(axis, 1, last))
            total.narrow(axis, 1, last).add_(maps.narrow(axis, 0, last))
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Nothing needs to be kept."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return cross_sum(gradient)


def cross_sum(maps: Tensor) -> Tensor:
    """Sum over each voxel of (B, C, *spatial) and its neighbours along the axes; outside the image are zeros."""
    total: Tensor = _CrossSum.apply(maps)  # type: ignore[no-untyped-call]
    return total


class HausdorffConvolution(HausdorffLoss):
    """Hausdorff loss by convolution with balls B_r of growing radius r.

    With the missed (p - g)² g and the false (p - g)² p it is the mean over batch, classes and voxels of

        Σ_r r^α [ missed · (f(B_r∗g) + f(B_r∗(1-p))) + false · (f(B_r∗(1-g)) + f(B_r∗p)) ]

    where B_r∗ is the mean over the ball, and f(x) = max(0, 2x - 1) the soft threshold at 1/2 that leaves 1 as it is. A
    false voxel thus counts r^α for every ball that finds mostly background in the target, i.e. by its distance from the
    object, and so on. Unlike :class:`HausdorffDT` it has a gradient through the prediction's boundary too.

    The formula, with its radii, is as recalled, not checked against the paper; whether the paper's soft threshold has
    the factor 2 is unknown, and it scales the loss alone. No other implementation is known. The part of a ball outside
    the image is left out of its mean: with zeros there the border would look like a boundary of g and of 1 - g. The
    loss is in mm^α, see :class:`HausdorffDT`.

    Args:
        radii: radii of the balls in mm, so in voxels with the default spacing.
        alpha: exponent of the radius.
        include_background: let class 0 count as the others do.
        spacing_mm: distance between neighbouring voxels per axis (default 1 mm).
    """

    description: ClassVar[Description] = Description(
        name="hausdorff_convolution",
        family="distance",
        summary="Errors by the balls around them that lie on the wrong side; smooth in the predicted boundary.",
        formula="mean_c 1/|Ω| Σ_r r^α Σ_i [(p-g)² g (f(B_r∗g) + f(B_r∗(1-p))) + (p-g)² p (f(B_r∗(1-g)) + f(B_r∗p))]",
        source=_SOURCE,
        purpose="The Hausdorff distance without distance maps; slow in 3D without a GPU; beside Dice.",
    )

    def __init__(
        self,
        *,
        radii: Sequence[float] = RADII,
        alpha: float = 2.0,
        include_background: bool = False,
        spacing_mm: Sequence[float] | None = None,
    ) -> None:
        super().__init__(alpha=alpha, include_background=include_background, spacing_mm=spacing_mm)
        self.radii = arguments.positive_numbers("radii", radii)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        probability, target = self.classes(inputs.probability), self.classes(inputs.target)
        balls = _Balls(self.radii, self.spacing_mm, probability)
        # With s = 2 B_r∗x - 1, f(B_r∗x) = (|s| + s)/2 and f(B_r∗(1-x)) = (|s| - s)/2, so the brackets of the formula
        # are (a ± d)/2 with a the sum of |s| of target and probability, d the difference of their s.
        a, d = torch.zeros_like(target), torch.zeros_like(target)
        for radius, of_target, of_probability in zip(
            self.radii, balls.means(2 * target - 1), balls.means(2 * probability - 1), strict=True
        ):
            a = a + radius**self.alpha * (of_target.abs() + of_probability.abs())
            d = d + radius**self.alpha * (of_target - of_probability)
        error = (probability - target).square()
        return (error * ((target + probability) * a + (target - probability) * d)).mean() / 2


class _Balls:
    """Means of maps over balls around every voxel, without what lies outside the image."""

    def __init__(self, radii: Sequence[float], spacing_mm: Sequence[float] | None, maps: Tensor) -> None:
        self._size = maps.shape[2:]
        spacing_mm = spacing_mm or (1.0,) * len(self._size)
        if len(spacing_mm) != len(self._size):
            raise LossevoError(
                f"spacing_mm is {tuple(spacing_mm)} for an image of {len(self._size)} axes;"
                " expected one distance > 0 per axis"
            )
        # The tolerance keeps voxels at a distance of exactly r, whatever the rounding of 3 · 0.1.
        tolerance = 1e-9 if maps.dtype == torch.float64 else 1e-6
        radii = [radius * (1 + tolerance) for radius in radii]
        # Padded by the largest radius, so that no ball reaches around the torus of the FFT into the image again.
        self._padded = [
            _fast_length(size + int(max(radii) / step)) for size, step in zip(self._size, spacing_mm, strict=True)
        ]
        axes = len(self._size)
        squared = torch.zeros([1] * axes, dtype=maps.dtype, device=maps.device)
        for axis, (length, step) in enumerate(zip(self._padded, spacing_mm, strict=True)):
            index = torch.arange(length, device=maps.device)
            offset = step * torch.minimum(index, length - index).to(maps.dtype)
            squared = squared + offset.square().view([-1 if other == axis else 1 for other in range(axes)])
        balls = [(squared <= radius**2).to(maps.dtype) for radius in radii]
        self._spectra = [torch.fft.rfftn(ball).real for ball in balls]  # a ball is symmetric
        self._inside = list(self._sums(maps.new_ones((1, 1, *self._size))))

    def means(self, maps: Tensor) -> Iterator[Tensor]:
        """The means of ``maps`` (B, C, *spatial) for one radius after the other."""
        for total, inside in zip(self._sums(maps), self._inside, strict=True):
            yield total / inside

    def _sums(self, maps: Tensor) -> Iterator[Tensor]:
        axes = tuple(range(2, maps.ndim))
        spectrum = torch.fft.rfftn(maps, s=self._padded, dim=axes)
        image = (..., *(slice(size) for size in self._size))
        for ball in self._spectra:
            yield torch.fft.irfftn(spectrum * ball, s=self._padded, dim=axes)[image]


def _fast_length(length: int) -> int:
    """The next length whose FFT is fast; any length will do where it is symbolic."""
    if torch.compiler.is_compiling():
        return length
    found: int = scipy.fft.next_fast_len(length)
    return found
