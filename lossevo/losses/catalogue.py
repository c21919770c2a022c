"""The one registry of hand-written losses, and the way from plain data to a loss."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from lossevo.errors import LossevoError, nearest, shown
from lossevo.losses.adaptive_parameters import AdaptiveParameters
from lossevo.losses.adaptive_schemes import CoVWeighting, SoftAdapt, UncertaintyWeighting
from lossevo.losses.base import Description, SegmentationLoss
from lossevo.losses.cldice import ClDice
from lossevo.losses.compound import DiceCE, DiceFocal, DiceTopK, FocalTversky
from lossevo.losses.distance import Boundary
from lossevo.losses.distribution import CrossEntropy, Focal, TopK
from lossevo.losses.exp_log import ExpLog
from lossevo.losses.hausdorff import (
    HausdorffConvolution,
    HausdorffDT,
    HausdorffDTOneSided,
    HausdorffErosion,
    LogHausdorffDT,
)
from lossevo.losses.learned import Baikal, BaikalCMA
from lossevo.losses.lovasz import Lovasz
from lossevo.losses.region import (
    AsymmetricSimilarity,
    Dice,
    GeneralizedDice,
    Jaccard,
    SensitivitySpecificity,
    Tversky,
)
from lossevo.losses.scheduled import DiceHausdorff, GeneralizedDiceBoundary
from lossevo.losses.unified_focal import UnifiedFocal

_CLASSES: Mapping[str, type[SegmentationLoss]] = {
    loss.description.name: loss
    for loss in (
        CrossEntropy,
        Focal,
        TopK,
        Dice,
        GeneralizedDice,
        Jaccard,
        Tversky,
        AsymmetricSimilarity,
        SensitivitySpecificity,
        Lovasz,
        Boundary,
        HausdorffDT,
        HausdorffDTOneSided,
        HausdorffErosion,
        HausdorffConvolution,
        LogHausdorffDT,
        DiceCE,
        DiceFocal,
        DiceTopK,
        FocalTversky,
        UnifiedFocal,
        GeneralizedDiceBoundary,
        DiceHausdorff,
        ExpLog,
        ClDice,
        SoftAdapt,
        CoVWeighting,
        UncertaintyWeighting,
        AdaptiveParameters,
        Baikal,
        BaikalCMA,
    )
}


def names() -> tuple[str, ...]:
    """Names of all losses in the catalogue, by family: distribution, region, distance, compound, adaptive, learned."""
    return tuple(_CLASSES)


def describe(name: str) -> Description:
    """What the catalogue says about a loss: family, summary, formula, source."""
    return _class(name).description


def parameters(name: str) -> dict[str, Any]:
    """The loss's parameters and their defaults, in the order of its constructor."""
    return {key: value.default for key, value in inspect.signature(_class(name)).parameters.items()}


def create(name: str, /, **chosen: Any) -> SegmentationLoss:
    """The loss called ``name``, with its paper's defaults where no parameter is chosen.

    Raises:
        LossevoError: Unknown loss or parameter (with the nearest known name), or a value that a parameter cannot have.
    """
    known = parameters(name)
    for key in chosen:
        if key not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise LossevoError(f"loss '{name}' has no parameter {shown(key)}{nearest(key, known)}; {takes}")
    return _class(name)(**chosen)


def from_spec(spec: object) -> SegmentationLoss:
    """The loss that plain data describes.

    ``{"name": "tversky", "parameters": {"w_fp": 0.3}}`` (parameters may be left out), ``{"expression": <JSON>}`` or
    ``{"learned": <JSON of a loss network>}``.

    Raises:
        LossevoError: Any other form, and whatever :func:`create` or the expression's reader refuses.
    """
    if isinstance(spec, Mapping) and [*spec] in (["expression"], ["learned"]):
        # Only here, since a hand-written loss needs nothing of the expression language.
        from lossevo.losses.definitions import definition_in, loss_of

        return loss_of(definition_in(spec))
    if not isinstance(spec, Mapping) or "name" not in spec or not set(spec) <= {"name", "parameters"}:
        raise LossevoError(
            f'loss specification {shown(spec)} is none of {{"name": ..., "parameters": {{...}}}}, {{"expression": ...}}'
            ' and {"learned": ...}'
        )
    chosen = spec.get("parameters", {})
    if not isinstance(chosen, Mapping) or not all(isinstance(key, str) for key in chosen):
        raise LossevoError(
            f"parameters of loss {shown(spec['name'])} are {shown(chosen)}, expected a mapping of names to values"
        )
    return create(spec["name"], **chosen)


def _class(name: object) -> type[SegmentationLoss]:
    loss = _CLASSES.get(name) if isinstance(name, str) else None
    if loss is None:
        raise LossevoError(f"unknown loss {shown(name)}{nearest(str(name), _CLASSES)}; known: {', '.join(_CLASSES)}")
    return loss
