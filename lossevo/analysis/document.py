"""An analysis as one JSON document, and in words how its numbers are defined."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import lossevo
from lossevo.analysis.analysis import Analysis
from lossevo.analysis.cost import COST_SHAPE
from lossevo.analysis.profiles import PROFILE_SHARE
from lossevo.analysis.scenes import EDGE_MM, LARGEST_LOGIT, SURE, WAVES_SD_MM

if TYPE_CHECKING:
    import pandas as pd

DEFINITIONS: Mapping[str, str] = MappingProxyType(
    {
        "logit": (
            "Two classes. x is the foreground's logit where the background's is 0, p = σ(x) the foreground's "
            "probability; gradients are ∂L/∂x, in float64. Every loss has its default parameters; one with a schedule "
            "stands at its beginning."
        ),
        "profile": (
            f"A ball fills {100 * PROFILE_SHARE:.0f} % of a cube of 20³ voxels of 3 mm. Target 1: all voxels of the "
            f"ball have probability p, the background is right (p = {1 - SURE:.2f}). Target 0: all voxels of the "
            f"background have p, the ball is right (p = {SURE:.2f}). Value: |Ω|/n (L(p) - L(everything right)) with n "
            "voxels of probability p; gradient: |Ω| times their mean ∂L/∂x, the derivative of the value by their "
            "common logit. For a mean over voxels, as cross-entropy is, that is one voxel's term; for all other losses "
            "it depends on this scene."
        ),
        "distance": (
            "A vertebral body (48 × 28 × 34 mm) in voxels of 4 × 1 × 1 mm, predicted with a boundary that wanders in "
            f"and out (SD {WAVES_SD_MM:g} mm) and is blurred: x = -distance/{EDGE_MM:g} mm, at most "
            f"±{LARGEST_LOGIT:g}. Mean |∂L/∂x| over the voxels of a 2 mm interval of signed distance to the true "
            "boundary, relative to the mean over all voxels (1 = average)."
        ),
        "share": (
            "Σ|∂L/∂x| over the foreground's voxels as a share of Σ|∂L/∂x| over all, for a ball that fills 1, 5 or "
            "20 % of a cube of 20³ voxels of 3 mm. Untrained: logits drawn from a normal distribution with SD 0.1, so "
            "p is about 1/2 everywhere. Trained: the ball is predicted one voxel too far to a side, "
            f"x = -distance/{EDGE_MM:g} mm, at most ±{LARGEST_LOGIT:g}."
        ),
        "response": (
            "(L(error) - L(right)) / (L(empty) - L(right)): 1 is the cost of predicting nothing. Two balls of 12.6 mm "
            f"radius in 40 × 20 × 20 voxels of 3 mm, predicted without blur (p = {SURE:.2f} or {1 - SURE:.2f}). "
            "Errors: the prediction is shifted by one voxel; one of the balls is missing; a third ball of the same "
            "size is predicted 45 mm away (centre to centre). Missing and false ball have the same number of voxels, "
            "half of the foreground's. No value where a loss does not prefer the right prediction to the empty one."
        ),
        "cost": (
            f"One call, forward and backward, on logits {' × '.join(map(str, COST_SHAPE))} in float32 on one CPU "
            "thread, distance map given: median time of up to 31 repetitions; and bytes kept for the backward pass "
            "beside logits, target and distance map, per byte of logits. Time depends on the machine and on what else "
            "it does."
        ),
    }
)


def to_document(analysis: Analysis) -> dict[str, Any]:
    """The whole analysis as plain data: definitions, and per loss its part of every table, by columns.

    What is not a number is None.
    """
    return {
        "made_by": "lossevo analyze",
        "lossevo": lossevo.__version__,
        "definitions": dict(DEFINITIONS),
        "losses": [
            {
                "name": loss.name,
                "family": loss.family,
                "formula": loss.formula,
                "source": loss.source,
                "spec": dict(loss.spec),
                **{name: _columns(table, loss.name) for name, table in analysis.tables.items()},
            }
            for loss in analysis.losses
        ],
    }


def _columns(table: pd.DataFrame, loss: str) -> dict[str, list[Any]]:
    columns = table[table["loss"] == loss].drop(columns="loss").to_dict("list")
    return {str(name): [_plain(value) for value in values] for name, values in columns.items()}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
