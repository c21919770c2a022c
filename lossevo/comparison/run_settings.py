"""What a comparison takes from the runs that its losses come from, and where it departs from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from lossevo.comparison.contenders import Contender
from lossevo.comparison.leakage import same_content
from lossevo.comparison.provenance import named
from lossevo.data import LabelScheme
from lossevo.errors import LossevoError
from lossevo.experiment import CohortSource
from lossevo.training import TaskSettings

Setting = Literal["labels", "spacing_mm", "task"]

_OPTIONS: Mapping[str, str] = {"cohort": "--data", "labels": "--labels", "spacing_mm": "--spacing", "task": "--task"}
# A comparison has its own.
_OWN_TASK_SETTINGS = ("budget_steps", "validations", "step_limit_s")
_NOT_IN_FINGERPRINT = ("budget_steps", "preprocessing", "step_limit_s")


def cohort_of_runs(contenders: Sequence[Contender]) -> CohortSource | None:
    """The cohort that all runs share; None if no contender comes from a run.

    Raises:
        LossevoError: the runs have different cohorts, one of them is not on record, or it is not there any more.
    """
    found: dict[str, CohortSource] = {}
    for contender in _members(contenders):
        if contender.search is None:
            continue
        if contender.search.cohort is None:
            raise LossevoError(
                f"{contender.name}: the cohort that it was found on is not on record; name a cohort with --data"
            )
        found[contender.name] = contender.search.cohort
    _require_agreement({name: _place(cohort) for name, cohort in found.items()}, "cohort", found)
    for name, cohort in found.items():
        if cohort.path is not None and not cohort.path.exists():
            raise LossevoError(
                f"{name} was found on {cohort.path}, which is not there; say with --data where that cohort is now, or "
                "name another"
            )
    # A format that was named is the better one to read it with.
    return next((cohort for cohort in found.values() if cohort.format), next(iter(found.values()), None))


def setting_of_runs(contenders: Sequence[Contender], setting: Setting, steps: int | None = None) -> Any:
    """The setting that all runs share, None if there is no run; tasks may differ in their steps if those are given.

    Raises:
        LossevoError: the runs have different ones.
    """
    found = {
        contender.name: getattr(contender.search, setting)
        for contender in _members(contenders)
        if contender.search is not None and contender.search.labels is not None
    }
    if steps is not None:
        found = {name: task and task.model_copy(update={"budget_steps": steps}) for name, task in found.items()}
    if setting == "task":
        found = {name: task and _in_effect(task) for name, task in found.items()}
    _require_agreement(found, setting, found)
    return next(iter(found.values()), None)


def departures(
    contenders: Sequence[Contender],
    *,
    cohort: CohortSource,
    labels: LabelScheme,
    spacing_mm: tuple[float, float, float] | None,
    task: TaskSettings,
) -> tuple[str, ...]:
    """A sentence for each set of losses that was found with other settings than those of the comparison."""
    names: dict[str, list[str]] = {}
    for contender in _members(contenders):
        record = contender.search
        if record is None:
            continue
        differing = []
        if record.cohort is not None and _place(record.cohort) != _place(cohort):
            differing.append(f"on {record.cohort} (here {cohort})")
        if record.labels is not None:  # older files say nothing of the rest
            if record.labels != labels:
                differing.append(f"with labels {_told(record.labels)} (here {_told(labels)})")
            if record.spacing_mm != spacing_mm:
                differing.append(f"at spacing {_told(record.spacing_mm)} (here {_told(spacing_mm)})")
        if record.task is not None:
            differing += [f"with {key} {old} (here {new})" for key, old, new in _differing(record.task, task)]
        if differing:
            names.setdefault(", ".join(differing), []).append(contender.name)
    return tuple(
        f"Not the setting of the search: {', '.join(found)} {'was' if len(found) == 1 else 'were'} found {differing}."
        for differing, found in names.items()
    )


def require_unchanged(
    contenders: Sequence[Contender],
    hashes: Mapping[str, str],
    *,
    labels: LabelScheme,
    spacing_mm: tuple[float, float, float] | None,
) -> None:
    """Refuse a cohort that was taken from a run's record and is not what it was; new subjects are welcome.

    ``hashes`` maps each subject of the cohort to its content hash.

    Raises:
        LossevoError: a subject on record is gone, or has other images or labels.
    """
    for contender in _members(contenders):
        record = contender.search
        if record is None or record.cohort is None:
            continue
        if record.cohort.path is None and record.spacing_mm != spacing_mm:
            continue  # a phantom is drawn at its spacing, so every image is another
        changed = [
            subject
            for subject, hash_ in record.subjects.hashes.items()
            if subject not in hashes or not same_content(hash_, hashes[subject], labels=record.labels == labels)
        ]
        if changed:
            raise LossevoError(
                f"{record.cohort}: {len(changed)} of the {len(record.subjects.hashes)} subjects that {contender.name} "
                f"was found with are gone, or have other images or labels ({named(changed)}); restore them, or name "
                "a cohort with --data to compare on it as it is now"
            )


def _members(contenders: Iterable[Contender]) -> list[Contender]:
    return [member for contender in contenders for member in contender.members]


def _require_agreement(found: Mapping[str, object], setting: str, shown: Mapping[str, object]) -> None:
    if any(value != next(iter(found.values())) for value in found.values()):
        told = ", ".join(f"{name}: {_told(value)}" for name, value in shown.items())
        raise LossevoError(
            f"the losses come from runs with different {setting} ({told}); say which with {_OPTIONS[setting]}"
        )


def _place(cohort: CohortSource) -> object:
    """What makes two cohorts the same: the place, however it is written and read; of a phantom all of it."""
    return cohort.path.resolve() if cohort.path else cohort


def _differing(old: TaskSettings, new: TaskSettings) -> list[tuple[str, object, object]]:
    keys = [key for key in TaskSettings.model_fields if key not in _OWN_TASK_SETTINGS]
    old, new = _in_effect(old), _in_effect(new)
    return [(key, getattr(old, key), getattr(new, key)) for key in keys if getattr(old, key) != getattr(new, key)]


def _in_effect(task: TaskSettings) -> TaskSettings:
    """A task with the default of every setting that does not apply to its schedule and weights."""
    defaults = {key: field.default for key, field in TaskSettings.model_fields.items()}
    idle = {
        key: default
        for key, default in defaults.items()
        if key not in _NOT_IN_FINGERPRINT
        and task.model_copy(update={key: default}).fingerprint("") == task.fingerprint("")
    }
    return task.model_copy(update=idle)


def _told(value: object) -> str:
    """A setting in a message; of a task what is not the default."""
    if isinstance(value, TaskSettings):
        value = ", ".join(f"{key} {item}" for key, item in value.model_dump(exclude_defaults=True).items()) or "default"
    if isinstance(value, tuple):
        return " × ".join(f"{side:g}" for side in value) + " mm"
    return str(value or "automatic")
