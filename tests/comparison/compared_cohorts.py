"""Finished comparisons with values written down, for a consensus."""

from __future__ import annotations

from pathlib import Path

from lossevo.comparison import ComparisonConfig, configure, contenders_from
from lossevo.comparison.compared import Compared
from lossevo.experiment import CohortSource
from lossevo.training import TaskSettings

LOSSES = ("dice", "focal", "cross_entropy", "tversky")


def config(cohort: str = "one", losses=LOSSES, **given) -> ComparisonConfig:
    return configure(
        contenders_from(losses), CohortSource(path=Path(cohort)), task=TaskSettings(),
        **{"steps": 3, "metrics": "dice,hd95", **given},
    )  # fmt: skip


def compared(cohort: str, dice: dict[str, list[float]], **given) -> Compared:
    """A comparison with these values of Dice; those of HD95 are 100 (1 − Dice)."""
    by_loss = {loss: {f"s{number}": value for number, value in enumerate(values)} for loss, values in dice.items()}
    hd95 = {loss: {name: 100 * (1 - value) for name, value in of.items()} for loss, of in by_loss.items()}
    return Compared(Path(cohort), config(cohort, tuple(dice), **given), {"dice": by_loss, "hd95": hd95})


ONE = compared("one", {"dice": [0.9, 0.8], "focal": [0.8, 0.7], "cross_entropy": [0.7, 0.6], "tversky": [0.7, 0.6]})
TWO = compared("two", {"dice": [0.5], "focal": [0.9], "cross_entropy": [0.4], "tversky": [0.3]})
