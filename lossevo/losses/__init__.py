"""Losses for segmentation, each an ``nn.Module`` with one call convention (see :mod:`lossevo.losses.base`)."""

from __future__ import annotations

from lossevo.losses.base import Description, LossInputs, SegmentationLoss
from lossevo.losses.catalogue import create, describe, from_spec, names, parameters
from lossevo.losses.expressions import expressible_names, expression_of, expression_parameters
from lossevo.losses.signed_distance import signed_distance_map

__all__ = [
    "create",
    "names",
    "describe",
    "parameters",
    "from_spec",
    "expressible_names",
    "expression_of",
    "expression_parameters",
    "SegmentationLoss",
    "LossInputs",
    "Description",
    "signed_distance_map",
]
