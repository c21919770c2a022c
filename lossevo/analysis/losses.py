"""What is analysed: a loss as plain data, with what a reader should know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from lossevo.losses import LossModule, SegmentationLoss, describe, from_spec, parameters
from lossevo.losses.catalogue import named_spec

EVOLVED, METALEARNED, OWN = "evolved", "meta-learned", "own"
"""Families of losses that come from a run, a file or a user's code; all others have theirs from the catalogue."""


@dataclass(frozen=True, slots=True)
class AnalysedLoss:
    """A loss under analysis; ``spec`` and ``modules`` are what :func:`lossevo.losses.from_spec` takes."""

    name: str
    family: str
    formula: str
    source: str
    spec: Mapping[str, Any] = field(hash=False)
    summary: str = ""
    purpose: str = ""
    modules: tuple[LossModule, ...] = ()

    @classmethod
    def of_catalogue(cls, name: str) -> Self:
        """A hand-crafted loss, or one that a package brings, with its default parameters.

        Raises:
            LossevoError: no such loss (with the nearest known name).
        """
        known = describe(name)
        return cls(name, known.family, known.formula, known.source, named_spec(name), known.summary, known.purpose)

    @classmethod
    def found(cls, name: str, formula: str, source: str, spec: Mapping[str, Any]) -> Self:
        """A loss of a run or a file."""
        return cls(name, METALEARNED if "learned" in spec else EVOLVED, formula, source, spec)

    @classmethod
    def of_module(cls, name: str, formula: str, module: LossModule) -> Self:
        """Code of a user's. **It runs when the loss is made.**"""
        return cls(name, OWN, formula, str(module), module.spec, modules=(module,))

    @property
    def is_foreign(self) -> bool:
        """Whether the loss is not lossevo's."""
        return bool(self.modules) or "distribution" in self.spec

    def module(self, spacing_mm: tuple[float, float, float]) -> SegmentationLoss:
        """The loss itself, for images of this spacing; if it has a schedule, it stands at its beginning.

        In evaluation mode: what adapts to the values it sees must not adapt to the scenes of an analysis.
        """
        spec = dict(self.spec)
        if "name" in spec and "spacing_mm" in parameters(spec["name"]):
            # A distance map is given with the target, but some losses measure the prediction, too.
            spec["parameters"] = {**spec.get("parameters", {}), "spacing_mm": spacing_mm}
        return from_spec(spec, self.modules).eval()
