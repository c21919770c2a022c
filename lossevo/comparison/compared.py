"""Finished comparisons as a consensus reads them: which there are, and whether they can be combined."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lossevo.comparison.configuration import ComparisonConfig, read_config
from lossevo.errors import LossevoError, shown

_SCORES = "claims_reloaded.csv"


@dataclass(frozen=True, slots=True)
class Compared:
    """A finished comparison: its configuration, and metric → loss → subject → value."""

    folder: Path
    config: ComparisonConfig
    values: Mapping[str, Mapping[str, Mapping[str, float]]]


def read_compared(folder: Path) -> Compared:
    """A finished comparison.

    Raises:
        LossevoError: no comparison folder, not finished, or damaged.
    """
    config, path = read_config(folder), folder / _SCORES
    if not path.is_file():
        raise LossevoError(
            f"{folder}: this comparison has not ended (it has no {_SCORES}); go on with "
            f"'lossevo evaluate --resume {folder}'"
        )
    values: dict[str, dict[str, dict[str, float]]] = {name: {} for name in config.metrics}
    names = [contender.name for contender in config.contenders]
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            header, *rows = csv.reader(stream)
        if header[2:] != names:
            raise ValueError(f"its losses are {shown(header[2:])}, expected {shown(names)}")
        for metric, subject, *numbers in rows:
            for loss, text in zip(names, numbers, strict=True):
                value = float(text)
                if not math.isfinite(value):
                    raise ValueError(f"{loss}, {subject}: {text}")
                values[metric].setdefault(loss, {})[subject] = value
        if lacking := [metric for metric, by_loss in values.items() if not by_loss]:
            raise ValueError(f"it has no row of {', '.join(lacking)}")
    except (OSError, ValueError, KeyError, csv.Error) as problem:
        raise LossevoError(
            f"{path}: damaged ({problem}); 'lossevo evaluate --resume {folder}' writes it anew"
        ) from None
    return Compared(folder, config, values)


def require_comparable(compared: Sequence[Compared]) -> None:
    """Refuse comparisons that cannot be combined.

    Raises:
        LossevoError: fewer than two, the same twice, other metrics, grid or labels, or losses tuned in one alone.
    """
    if len(compared) < 2:
        raise LossevoError("a consensus needs at least two comparisons; give --combine for each")
    places = [one.folder.resolve() for one in compared]
    if len({*places}) < len(places):
        raise LossevoError("a comparison is given twice; name each folder once")
    first = compared[0]
    for other in compared[1:]:
        for what, option in (
            ("metrics", "--metrics"),
            ("grid", "--grid"),
            ("labels", "--labels or --levels"),
            ("tuned_parts", "--tune"),
        ):
            one, another = getattr(first.config, what), getattr(other.config, what)
            if one != another:
                raise LossevoError(
                    f"{other.folder} has other {what.replace('_', ' ')} than {first.folder} ({_told(another)}, and "
                    f"{_told(one)}); compare the losses again with the same {option}"
                )


def _told(setting: object) -> str:
    return ", ".join(setting) or "none" if isinstance(setting, tuple) else str(setting)


def common_losses(compared: Sequence[Compared]) -> tuple[list[str], tuple[str, ...]]:
    """The losses of one name and one definition in all comparisons, and all others.

    Raises:
        LossevoError: there are fewer than two.
    """
    identities = [{one.name: one.identity for one in comparison.config.contenders} for comparison in compared]
    everyone = list(dict.fromkeys(name for known in identities for name in known))
    common = [name for name in everyone if len({known.get(name) for known in identities}) == 1]
    if len(common) < 2:
        told = "; ".join(f"{one.folder}: {', '.join(known)}" for one, known in zip(compared, identities, strict=True))
        raise LossevoError(f"the comparisons share {len(common)} loss(es), a consensus needs 2 ({told})")
    return common, tuple(name for name in everyone if name not in common)


def names_of(compared: Sequence[Compared]) -> tuple[str, ...]:
    """The name of each cohort, or of the folder where two cohorts have one name."""
    cohorts = [one.config.cohort_title for one in compared]
    unique = len({*cohorts}) == len(cohorts)
    return tuple(cohorts) if unique else tuple(str(one.folder) for one in compared)
