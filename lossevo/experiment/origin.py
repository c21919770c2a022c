"""Where a loss comes from: one tagged record in ledger, hall of fame and messages. Its text is for readers alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter


@dataclass(frozen=True, slots=True)
class HandCrafted:
    """A loss of the literature, under its name in the catalogue."""

    name: str
    kind: Literal["hand-crafted"] = "hand-crafted"
    parents: tuple[()] = ()

    def __str__(self) -> str:
        return f"hand-crafted: {self.name}"


@dataclass(frozen=True, slots=True)
class Seed:
    """A formula in the search-space file."""

    kind: Literal["seed"] = "seed"
    parents: tuple[()] = ()

    def __str__(self) -> str:
        return "seed"


@dataclass(frozen=True, slots=True)
class Evolved:
    """A formula that evolution made: the operator, and the ids of its parents."""

    operator: str
    parents: tuple[str, ...] = ()
    kind: Literal["evolved"] = "evolved"

    def __str__(self) -> str:
        return f"{self.operator} of {', '.join(self.parents)}" if self.parents else self.operator


@dataclass(frozen=True, slots=True)
class Tuned:
    """A formula with coefficients by CMA-ES; ``parents`` is the one whose structure it has.

    A sample of its distribution, or the ``mean`` of it: under noise a better guess than the best sample.
    """

    parents: tuple[str]
    mean: bool = False
    kind: Literal["tuned"] = "tuned"

    def __str__(self) -> str:
        return f"cma-es{' mean' if self.mean else ''} of {self.parents[0]}"


@dataclass(frozen=True, slots=True)
class Variant:
    """A loss of the literature with other parameters; the parent is what these were chosen from."""

    parents: tuple[str]
    name: str
    parameters: dict[str, bool | float]
    kind: Literal["variant"] = "variant"

    def __str__(self) -> str:
        values = ", ".join(
            f"{name} {str(value).lower() if isinstance(value, bool) else f'{value:g}'}"
            for name, value in self.parameters.items()
        )
        return f"variant of {self.parents[0]}: {self.name} with {values}"


@dataclass(frozen=True, slots=True)
class MetaLearned:
    """A loss network after so many outer steps of a meta-training."""

    outer_steps: int
    kind: Literal["metalearned"] = "metalearned"
    parents: tuple[()] = ()

    def __str__(self) -> str:
        return f"metalearned: {self.outer_steps} outer steps"


@dataclass(frozen=True, slots=True)
class Distilled:
    """A formula for the gradient of a loss network, its parent; ``agreement`` is their mean cosine."""

    parents: tuple[str]
    agreement: float
    kind: Literal["distilled"] = "distilled"

    def __str__(self) -> str:
        return f"distilled: {self.parents[0]}, agreement {self.agreement:.3f}"


Origin = Annotated[
    HandCrafted | Seed | Evolved | Tuned | Variant | MetaLearned | Distilled, Field(discriminator="kind")
]

_ORIGIN: TypeAdapter[Origin] = TypeAdapter(Origin)


def origin_document(origin: Origin) -> dict[str, Any]:
    """Plain data."""
    return asdict(origin)


def origin_in(document: Mapping[str, Any]) -> Origin:
    """The inverse of :func:`origin_document`.

    Raises:
        pydantic.ValidationError: no such document.
    """
    return _ORIGIN.validate_python(document)
