"""Losses that a search has found and a paper has published: Baikal, by GLO."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from lossevo.expression.primitives import EPSILON
from lossevo.losses.base import Description, SegmentationLoss
from lossevo.losses.inputs import LossInputs


class Baikal(SegmentationLoss):
    """Baikal loss, the mean over batch, classes and voxels of g/p - log p.

    It pulls *every* class up through -log p, and so keeps the network from certainty: with softmax over C classes its
    optimum is p = 1/√C for the true class (0.71 for two classes), by construction and not by error. 1/p is computed as
    1/max(p, 1e-4), log p exactly, so that a confidently wrong voxel has a finite gradient that still helps.
    """

    description: ClassVar[Description] = Description(
        name="baikal",
        family="learned",
        summary="Found by genetic programming for image classification; regularises against over-confidence.",
        formula="1/(C|Ω|) Σ_i Σ_c (g_ic / p_ic - log p_ic)",
        source="Gonzalez & Miikkulainen, Improved training speed … through loss function optimization, CEC 2020",
        purpose="A control from automatic search: found for classification, not for segmentation.",
    )
    coefficients: ClassVar[tuple[float, float, float, float, float, float]] = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0)

    def __init__(self) -> None:
        super().__init__()

    def compute(self, inputs: LossInputs) -> Tensor:
        """c0 · mean(c3 c4/c5 g/p - c1 log(c2 p))."""
        c0, c1, c2, c3, c4, c5 = self.coefficients
        log_term = c1 * (inputs.log_probability.mean() + math.log(c2))
        ratio_term = c3 * c4 / c5 * (inputs.target / inputs.probability.clamp_min(EPSILON)).mean()
        return c0 * (ratio_term - log_term)


class BaikalCMA(Baikal):
    """Baikal with coefficients tuned by CMA-ES, the mean of c0 (c3 (c4 g)/(c5 p) - c1 log(c2 p)).

    One coefficient per node of the expression; its optimum lies at p = 0.77 for two classes. The values of c0 to c5 are
    as recalled and confirmed by one re-implementation, not checked against the paper.
    """

    description: ClassVar[Description] = Description(
        name="baikal_cma",
        family="learned",
        summary="Baikal with coefficients tuned by CMA-ES.",
        formula="1/(C|Ω|) Σ_i Σ_c 2.7279 (1.1135 · 1.3716 g_ic / (0.8411 p_ic) - 0.9863 log(1.5352 p_ic))",
        source="Gonzalez & Miikkulainen, Improved training speed … through loss function optimization, CEC 2020",
        purpose="As baikal; its optimum is not the perfect prediction, which regularises.",
    )
    coefficients = (2.7279, 0.9863, 1.5352, 1.1135, 1.3716, 0.8411)
