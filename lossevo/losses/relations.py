"""Which loss is a special case of which, as plain data; every entry is checked in value and gradient by a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Relation:
    """``special`` with its parameters equals ``general`` with its parameters.

    Attributes:
        special: name of the loss that is the special case.
        general: name of the loss that generalises it.
        general_parameters: those that make the general loss the special one.
        special_parameters: those that the special loss has to be given for that.
        condition: what else must hold, empty if nothing.
    """

    special: str
    general: str
    general_parameters: Mapping[str, Any]
    special_parameters: Mapping[str, Any] = field(default_factory=dict)
    condition: str = ""

    def __str__(self) -> str:
        special, general = _call(self.special, self.special_parameters), _call(self.general, self.general_parameters)
        return f"{special} = {general}" + (f" ({self.condition})" if self.condition else "")


TWO_CLASSES = "two classes"

RELATIONS: tuple[Relation, ...] = (
    Relation("cross_entropy", "focal", {"gamma": 0}),
    Relation("cross_entropy", "topk", {"fraction": 1}),
    Relation("dice", "tversky", {"w_fp": 0.5, "w_fn": 0.5, "smooth": 0}, {"smooth": 0}),
    Relation("jaccard", "tversky", {"w_fp": 1, "w_fn": 1}),
    Relation(
        "asymmetric_similarity",
        "tversky",
        {"w_fp": 1 / 3.25, "w_fn": 2.25 / 3.25, "smooth": 0},
        {"beta": 1.5, "smooth": 0},
    ),
    Relation("dice", "asymmetric_similarity", {"beta": 1}),
    Relation("dice", "generalized_dice", {"include_background": False}, condition=TWO_CLASSES),
    Relation("dice", "dice_ce", {"w_ce": 0}),
    Relation("cross_entropy", "dice_ce", {"w_dice": 0}),
    Relation("dice_ce", "dice_focal", {"gamma": 0, "squared_denominator": False}),
    Relation("dice_ce", "dice_topk", {"fraction": 1}),
    Relation("tversky", "focal_tversky", {"gamma": 1}),
    Relation(
        "focal_tversky",
        "unified_focal",
        {"asymmetric": False, "w_tversky": 1},
        {"gamma": 2, "w_fp": 0.4, "w_fn": 0.6, "include_background": True},
    ),
    Relation("focal", "unified_focal", {"asymmetric": False, "w_tversky": 0}, {"gamma": 0.5, "alpha": 0.6}),
    Relation("generalized_dice", "generalized_dice_boundary", {"alpha": 0, "increment": 0}),
    Relation("dice", "cldice", {"alpha": 0}),
)


def relations_of(name: str) -> tuple[Relation, ...]:
    """The relations in which the loss takes part, on either side."""
    return tuple(relation for relation in RELATIONS if name in (relation.special, relation.general))


def _call(name: str, parameters: Mapping[str, Any]) -> str:
    chosen = ", ".join(f"{key}={_number(value)}" for key, value in parameters.items())
    return f"{name}({chosen})" if chosen else name


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
