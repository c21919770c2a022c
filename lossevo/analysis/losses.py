"""What is analysed: a loss as plain data, with what a reader should know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from lossevo.losses import SegmentationLoss, describe, from_spec, parameters

EVOLVED, METALEARNED = "evolved", "meta-learned"
"""Families of losses that come from a run or a file; all others have their family from the catalogue."""


@dataclass(frozen=True, slots=True)
class AnalysedLoss:
    """A loss under analysis; ``spec`` is what :func:`lossevo.losses.from_spec` takes."""

    name: str
    family: str
    formula: str
    source: str
    spec: Mapping[str, Any] = field(hash=False)
    summary: str = ""
    purpose: str = ""

    @classmethod
    def of_catalogue(cls, name: str) -> Self:
        """A hand-crafted loss with its default parameters.

        Raises:
            LossevoError: no such loss (with the nearest known name).
        """
        known = describe(name)
        return cls(name, known.family, known.formula, known.source, {"name": name}, known.summary, known.purpose)

    @classmethod
    def found(cls, name: str, formula: str, source: str, spec: Mapping[str, Any]) -> Self:
        """A loss of a run or a file."""
        return cls(name, METALEARNED if "learned" in spec else EVOLVED, formula, source, spec)

    def module(self, spacing_mm: tuple[float, float, float]) -> SegmentationLoss:
        """The loss itself, for images of this spacing; if it has a schedule, it stands at its beginning.

        In evaluation mode: what adapts to the values it sees must not adapt to the scenes of an analysis.
        """
        spec = dict(self.spec)
        if "name" in spec and "spacing_mm" in parameters(spec["name"]):
            # A distance map is given with the target, but some losses measure the prediction, too.
            spec["parameters"] = {**spec.get("parameters", {}), "spacing_mm": spacing_mm}
        return from_spec(spec).eval()
