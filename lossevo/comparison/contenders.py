"""Who is compared: losses of the catalogue, of a run's hall of fame, and of exported files, each with what its search
has seen.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from lossevo.comparison.provenance import SearchRecord
from lossevo.errors import LossevoError
from lossevo.experiment import hall_of_fame, read_study
from lossevo.export.document import read_document
from lossevo.losses import LossModule, create, describe, expressible_names, expression_of, from_spec, names, parameters
from lossevo.losses.catalogue import brought_by, named_spec
from lossevo.losses.definitions import definition_in, formula_of, spec_of
from lossevo.losses.expressions import expression_parameters
from lossevo.losses.literature import literature_name

FIRST = "1"
"""The rank that a run without one stands for."""


class Contender(BaseModel):
    """A loss under comparison, self-contained: what it was taken from may change or vanish afterwards.

    ``spec`` is what :func:`lossevo.losses.from_spec` takes, ``origin`` says where the loss comes from. ``evolved`` says
    whether a search or a learning by gradient found it: whether it is anything but a loss of the literature
    (:func:`~lossevo.losses.literature.literature_name`). ``search`` is the run that it was taken from, whose settings
    a comparison shares. It is None where none is on record: for an evolved loss nobody knows whom it has seen.

    ``learning_rate`` is the peak of the schedule in its trainings; None: the task's. ``tuned`` says that ``search`` is
    a tuning, which chose the learning rate and the parameters.

    ``parts`` are the losses of searches inside the folds of a nested comparison, one for each fold
    (:mod:`lossevo.comparison.nested`). Then ``spec`` lists theirs, and ``search`` is None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    spec: dict[str, Any]
    formula: str
    origin: str
    evolved: bool = False
    search: SearchRecord | None = None
    learning_rate: float | None = None
    tuned: bool = False
    parts: tuple[Contender, ...] = ()

    @property
    def members(self) -> tuple[Contender, ...]:
        """The parts, or itself if it has none."""
        return self.parts or (self,)

    def of_fold(self, fold: int) -> Contender:
        """The loss that is trained in a fold, counted from 0."""
        return self.parts[fold] if self.parts else self

    @property
    def chosen_by(self) -> SearchRecord | None:
        """The search on whose subjects this loss was chosen or tuned, if it is on record.

        None for an untuned loss of the literature wherever it was taken from: it owes nothing to any subject.
        """
        return self.search if self.evolved or self.tuned else None

    @property
    def literature(self) -> str | None:
        """The name of the loss of the catalogue that this is; with parameters of its own it is none."""
        if self.parts or self.is_foreign:
            return None
        if "name" in self.spec:
            return None if self.spec.get("parameters") else str(self.spec["name"])
        return literature_name(definition_in(self.spec))

    @property
    def is_foreign(self) -> bool:
        """Whether the loss is code of a user's, or of an installed package: nothing that lossevo knows."""
        return "module" in self.spec or "distribution" in self.spec

    @property
    def identity(self) -> str:
        """Equal for two contenders that are the same loss, be one a name and the other its expression.

        A learning rate of its own is part of it.
        """
        if self.parts:
            return " ".join(part.identity for part in self.parts)
        rate = "" if self.learning_rate is None else f" at learning rate {self.learning_rate!r}"
        return self._identity_of_loss + rate

    @property
    def _identity_of_loss(self) -> str:
        if "module" in self.spec:
            return json.dumps(LossModule.in_spec(self.spec).identity)
        if "distribution" in self.spec:
            return json.dumps(self.spec, sort_keys=True)
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
    losses: Iterable[str] = (),
    hof: Iterable[str] = (),
    loss_files: Iterable[Path] = (),
    *,
    loss_modules: Sequence[LossModule] = (),
    join: Callable[[Sequence[Contender]], list[Contender]] = list,
) -> tuple[Contender, ...]:
    """The losses to compare, in the order given, under unique names.

    Args:
        losses: names in the catalogue; ``all`` for the whole of it.
        hof: ``RUN:RANK`` or ``RUN:ID``, or ``RUN`` for the first of its hall of fame.
        loss_files: what ``lossevo export`` wrote: the folder or its ``loss.json``. If the file's metadata have
            ``subjects``, as in a run's ``subjects.json``, those that were seen are not tested on.
        loss_modules: code of the user's. **It runs.**
        join: makes one contender of several.

    Raises:
        LossevoError: no loss at all, an unknown one, the same one twice, not a run folder, not a loss file.
    """
    found = [
        *(_of_catalogue(name) for given in losses for name in (names() if given == "all" else (given,))),
        *(_of_hall_of_fame(item) for item in hof),
        *(_of_file(path) for path in loss_files),
        *map(_of_module, loss_modules),
    ]
    contenders = join(found)
    if not contenders:
        raise LossevoError(
            "no loss to compare; name some of 'lossevo losses', or one of a run's hall of fame as RUN:RANK"
        )
    seen: dict[str, Contender] = {}
    for contender in contenders:
        for member in contender.members:
            try:
                from_spec(member.spec, loss_modules)
            except LossevoError as problem:
                raise LossevoError(f"{member.origin}: {problem}") from None
        twin = seen.setdefault(contender.identity, contender)
        if twin is not contender:
            raise LossevoError(f"the same loss twice: {twin.origin}, and {contender.origin}; leave one out")
    return _with_short_names(contenders)


def _of_catalogue(name: str) -> Contender:
    create(name)
    return Contender(
        name=name,
        spec=named_spec(name),
        formula=describe(name).formula,
        origin=f"'{name}' of {brought_by(name) or 'the catalogue'}",
    )


def _of_module(module: LossModule) -> Contender:
    module.make()
    return Contender(
        name=str(module),
        spec=module.spec,
        formula=f"code of {module.name}, sha256 {module.sha256[:12]}…",
        origin=f"{module}",
    )


def _of_hall_of_fame(item: str) -> Contender:
    run, which = run_and_rank(item)
    read_study(run)  # what is no run folder has no hall of fame either
    entry = hall_of_fame.find(hall_of_fame.read(run), which or FIRST, run)
    return Contender(
        name=f"{run.absolute()}:{which or FIRST}",
        spec=entry.loss,
        formula=entry.unicode,
        origin=f"{run}, rank {entry.rank}, id {entry.id}, {entry.origin}",
        evolved=entry.literature is None,
        search=SearchRecord.of_run(run, entry.id),
    )


def run_and_rank(item: str) -> tuple[Path, str]:
    """The run folder, and the rank or id, that ``RUN:RANK`` or ``RUN:ID`` names; the latter is empty for ``RUN``."""
    folder, colon, which = item.rpartition(":")
    return (Path(item), "") if not colon or Path(item).is_dir() else (Path(folder), which)


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
        evolved=literature_name(document.definition) is None,
        search=SearchRecord.of_metadata(document.metadata, file),
    )


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
