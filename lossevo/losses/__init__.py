"""Losses for segmentation, each an ``nn.Module`` with one call convention (see :mod:`lossevo.losses.base`)."""

from __future__ import annotations

from lossevo.losses.base import Description, SegmentationLoss
from lossevo.losses.catalogue import create, describe, from_spec, installed_losses, names, parameters
from lossevo.losses.documentation import Explanation, Parameter, explain
from lossevo.losses.expressions import (
    expressible_names,
    expression_of,
    expression_parameters,
    expression_takes,
    inexpressible_names,
)
from lossevo.losses.inputs import LossInputs
from lossevo.losses.installed import InstalledLoss
from lossevo.losses.loss_modules import LossModule
from lossevo.losses.relations import Relation
from lossevo.losses.signed_distance import signed_distance_map
from lossevo.losses.soft_targets import SoftTargetWarning

__all__ = [
    "create",
    "names",
    "installed_losses",
    "describe",
    "parameters",
    "explain",
    "from_spec",
    "expressible_names",
    "inexpressible_names",
    "expression_of",
    "expression_parameters",
    "expression_takes",
    "SegmentationLoss",
    "LossInputs",
    "LossModule",
    "InstalledLoss",
    "Description",
    "Explanation",
    "Parameter",
    "Relation",
    "signed_distance_map",
    "SoftTargetWarning",
]
