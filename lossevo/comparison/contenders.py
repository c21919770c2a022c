"""Who is compared: losses of the catalogue, of a run's hall of fame, and of exported files, each with what its search
has seen.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from lossevo.data import LabelScheme
from lossevo.errors import LossevoError
from lossevo.export.document import read_document
from lossevo.losses import create, describe, expressible_names, expression_of, from_spec, names, parameters
from lossevo.losses.definitions import definition_in, formula_of, spec_of
from lossevo.losses.expressions import expression_parameters
from lossevo.search import CohortSource, Subjects, hall_of_fame, read_study
from lossevo.search.candidate import HAND_CRAFTED
from lossevo.training import TaskSettings


class SearchRecord(BaseModel):
    """What is known of the search that a loss was chosen by: who it trained and validated on, and on which cohort."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    subjects: Subjects
    cohort: CohortSource | None = None
    labels: LabelScheme | None = None
    spacing_mm: tuple[float, float, float] | None = None
    task: TaskSettings | None = None

    @classmethod
    def of_run(cls, run: Path) -> Self:
        """What a run folder tells, whether losses evolved in it or were learned by gradient.

        Raises:
            LossevoError: not a run folder, or damaged.
        """
        study = read_study(run)
        return cls(
            subjects=Subjects.read(run),
            cohort=study.cohort,
            labels=study.labels,
            spacing_mm=study.spacing_mm,
            task=study.task,
        )


class Contender(BaseModel):
    """A loss under comparison, self-contained: what it was taken from may change or vanish afterwards.

    ``spec`` is what :func:`lossevo.losses.from_spec` takes, ``origin`` says where the loss comes from, and
    ``evolved`` is whether it is anything but a loss of the literature. ``search`` is None where no search is on
    record, which for an evolved loss means that nobody knows whom it has seen.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    spec: dict[str, Any]
    formula: str
    origin: str
    evolved: bool = False
    search: SearchRecord | None = None

    @property
    def identity(self) -> str:
        """Equal for two contenders that are the same loss, be one a name and the other its expression."""
        if "name" not in self.spec:
            return definition_in(self.spec).hash
        name, chosen = self.spec["name"], _with_defaults(self.spec["name"], self.spec.get("parameters", {}))
        if name in expressible_names() and chosen == _with_defaults(name, expression_parameters(name)):
            return expression_of(name).hash
        return chosen


def _with_defaults(name: str, chosen: Mapping[str, Any]) -> str:
    """A loss of the catalogue with all its parameters, as text."""
    return json.dumps([name, {**parameters(name), **chosen}], sort_keys=True, default=str)


def contenders_from(
    losses: Iterable[str] = (), hof: Iterable[str] = (), loss_files: Iterable[Path] = ()
) -> tuple[Contender, ...]:
    """The losses to compare, in the order given, under unique names.

    Args:
        losses: names in the catalogue; ``all`` for the whole of it.
        hof: ``RUN:RANK`` or ``RUN:ID``, or ``RUN`` for the first of its hall of fame.
        loss_files: what ``lossevo export`` wrote: the folder or its ``loss.json``. If the file's metadata have
            ``subjects``, as in a run's ``subjects.json``, those that were seen are not tested on.

    Raises:
        LossevoError: no loss at all, an unknown one, the same one twice, not a run folder, not a loss file.
    """
    contenders = [
        *(_of_catalogue(name) for given in losses for name in (names() if given == "all" else (given,))),
        *(_of_hall_of_fame(item) for item in hof),
        *(_of_file(path) for path in loss_files),
    ]
    if not contenders:
        raise LossevoError(
            "no loss to compare; name some of 'lossevo losses', or one of a run's hall of fame as RUN:RANK"
        )
    seen: dict[str, Contender] = {}
    for contender in contenders:
        try:
            from_spec(contender.spec)
        except LossevoError as problem:
            raise LossevoError(f"{contender.origin}: {problem}") from None
        twin = seen.setdefault(contender.identity, contender)
        if twin is not contender:
            raise LossevoError(f"the same loss twice: {twin.origin}, and {contender.origin}; leave one out")
    return _with_short_names(contenders)


def _of_catalogue(name: str) -> Contender:
    create(name)
    return Contender(
        name=name, spec={"name": name}, formula=describe(name).formula, origin=f"'{name}' of the catalogue"
    )


def _of_hall_of_fame(item: str) -> Contender:
    folder, colon, which = item.rpartition(":")
    if not colon or Path(item).is_dir():
        folder, which = item, "1"
    run = Path(folder)
    search = SearchRecord.of_run(run)
    entry = hall_of_fame.find(hall_of_fame.read(run), which, run)
    return Contender(
        name=f"{run.absolute()}:{which}",
        spec=entry.spec,
        formula=entry.unicode,
        origin=f"{run}, rank {entry.rank}, id {entry.id}, {entry.origin}",
        evolved=not entry.origin.startswith(HAND_CRAFTED),
        # Also of a hand-crafted loss: its place in this ranking was won on these subjects.
        search=search,
    )


def _of_file(path: Path) -> Contender:
    file = path / "loss.json" if path.is_dir() else path
    if file.suffix in (".py", ".pt2"):
        raise LossevoError(f"{file}: give the loss.json beside it; a comparison executes no file")
    document = read_document(file)
    return Contender(
        name=str(file.absolute()),
        spec=spec_of(document.definition),
        formula=formula_of(document.definition),
        origin=f"{file}",
        evolved=True,
        search=_record(document.metadata, file),
    )


def _record(metadata: Mapping[str, Any], file: Path) -> SearchRecord | None:
    if "subjects" not in metadata:
        return None
    task = metadata.get("task")
    known = (
        {"labels": task.get("labels"), "spacing_mm": task.get("spacing_mm"), "task": task.get("settings")}
        if isinstance(task, Mapping)
        else {}
    )
    try:
        return SearchRecord.model_validate({"subjects": metadata["subjects"], **known})
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in ("metadata", *problem["loc"]))
        raise LossevoError(f"{file}: {where}: {problem['msg']}; without it leakage cannot be ruled out") from None


def _with_short_names(contenders: Sequence[Contender]) -> tuple[Contender, ...]:
    """Names without leading folders, where those are unique."""
    short = [_short(contender.name) for contender in contenders]
    count = Counter(short)
    return tuple(
        contender.model_copy(update={"name": name}) if count[name] == 1 else contender
        for contender, name in zip(contenders, short, strict=True)
    )


def _short(name: str) -> str:
    """``runs/myo:1`` is ``myo:1``, ``my_loss/loss.json`` is ``my_loss``, ``losses/mine.json`` is ``mine``."""
    path = Path(name)
    return path.parent.name if path.name == "loss.json" else path.name.removesuffix(".json")
