"""The one registry of hand-written losses, and the way from plain data to a loss.

Beside lossevo's own catalogue there may be losses that installed packages bring (:mod:`lossevo.losses.installed`).
They have a name, too, and are looked for where the catalogue has none of that name.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

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
from lossevo.losses.installed import InstalledLoss, installed
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

if TYPE_CHECKING:
    from lossevo.losses.loss_modules import LossModule

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


def installed_losses() -> tuple[InstalledLoss, ...]:
    """The losses that installed packages bring, also those that cannot be used; nothing is imported."""
    return tuple(installed(_CLASSES).values())


def brought_by(name: str) -> str | None:
    """Name and version of the package that brings a loss; None for one of the catalogue.

    Raises:
        LossevoError: unknown loss.
    """
    found = find(name)
    return found.distribution if isinstance(found, InstalledLoss) else None


def describe(name: str) -> Description:
    """What the catalogue says about a loss: family, summary, formula, source."""
    found = find(name)
    return found.describe() if isinstance(found, InstalledLoss) else found.description


def parameters(name: str) -> dict[str, Any]:
    """The loss's parameters and their defaults, in the order of its constructor."""
    found = find(name)
    if isinstance(found, InstalledLoss):
        return found.parameters()
    return {key: value.default for key, value in inspect.signature(found).parameters.items()}


def create(name: str, /, **chosen: Any) -> SegmentationLoss:
    """The loss called ``name``, with its paper's defaults where no parameter is chosen.

    Raises:
        LossevoError: Unknown loss or parameter (with the nearest known name), or a value that a parameter cannot have.
    """
    found = find(name)
    if isinstance(found, InstalledLoss):
        return found.make(**chosen)
    known = parameters(name)
    for key in chosen:
        if key not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise LossevoError(f"loss '{name}' has no parameter {shown(key)}{nearest(key, known)}; {takes}")
    return found(**chosen)


def named_spec(name: str, /, **chosen: Any) -> dict[str, Any]:
    """The specification of a loss called ``name``; one that a package brings has the package's version in it.

    Raises:
        LossevoError: unknown loss.
    """
    distribution = brought_by(name)
    return {
        "name": name,
        **({"parameters": chosen} if chosen else {}),
        **({"distribution": distribution} if distribution else {}),
    }


def from_spec(spec: object, modules: Iterable[LossModule] = ()) -> SegmentationLoss:
    """The loss that plain data describes.

    ``{"name": "tversky", "parameters": {"w_fp": 0.3}}`` (parameters may be left out), ``{"expression": <JSON>}`` or
    ``{"learned": <JSON of a loss network>}``. The name may be that of a loss that a package brings; with its
    ``"distribution"`` no other version of the package will do. ``{"module": …}`` names code of a user's, which is
    refused unless it is among ``modules``.

    Raises:
        LossevoError: Any other form, and whatever :func:`create` or the expression's reader refuses.
    """
    if isinstance(spec, Mapping) and [*spec] in (["expression"], ["learned"]):
        # Only here, since a hand-written loss needs nothing of the expression language.
        from lossevo.losses.definitions import definition_in, loss_of

        return loss_of(definition_in(spec))
    if isinstance(spec, Mapping) and "module" in spec:
        from lossevo.losses.loss_modules import made_from

        return made_from(spec, modules)
    if not isinstance(spec, Mapping) or "name" not in spec or not {*spec} <= {"name", "parameters", "distribution"}:
        raise LossevoError(
            f'loss specification {shown(spec)} is none of {{"name": ..., "parameters": {{...}}}}, {{"expression": ...}}'
            ' and {"learned": ...}'
        )
    chosen = spec.get("parameters", {})
    if not isinstance(chosen, Mapping) or not all(isinstance(key, str) for key in chosen):
        raise LossevoError(
            f"parameters of loss {shown(spec['name'])} are {shown(chosen)}, expected a mapping of names to values"
        )
    if "distribution" in spec and (here := brought_by(spec["name"])) != spec["distribution"]:
        raise LossevoError(
            f"loss {shown(spec['name'])} is that of {shown(spec['distribution'])}, but here it is that of "
            f"{here or 'lossevo'}; install the same package and version everywhere"
        )
    return create(spec["name"], **chosen)


def find(name: object) -> type[SegmentationLoss] | InstalledLoss:
    """The class of a loss of the catalogue, or what a package brings.

    Raises:
        LossevoError: unknown loss (with the nearest known name).
    """
    loss = _CLASSES.get(name) if isinstance(name, str) else None
    if loss is not None:
        return loss
    others = installed(_CLASSES)
    if isinstance(name, str) and name in others:
        return others[name]
    known = (*_CLASSES, *others)
    raise LossevoError(f"unknown loss {shown(name)}{nearest(str(name), known)}; known: {', '.join(known)}")
