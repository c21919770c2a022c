"""The hall of fame: the best candidates and the hand-crafted losses in one ranking, written after every change."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from lossevo.csv_files import csv_text
from lossevo.documents import parse_json, read_text
from lossevo.errors import LossevoError, shown
from lossevo.experiment.candidate import Candidate, standard_error, standing
from lossevo.experiment.folder import write_text
from lossevo.experiment.kinds import RUN_FILE, refuse_other_version, resume_command
from lossevo.experiment.origin import Origin
from lossevo.experiment.scoring import DICE
from lossevo.expression import Expression, structure_text
from lossevo.losses.definitions import Definition, definition_in, formula_of
from lossevo.losses.literature import literature_name
from lossevo.losses.neural import LossNetwork
from lossevo.metrics import Objective

EVOLVED = 20
"""Evolved losses kept; hand-crafted ones are always all there."""

_COLUMNS = (
    "rank",
    "id",
    "formula",
    "objective",
    "score",
    "score_se",
    "seeds",
    "steps",
    "complexity",
    "origin",
    "confirmed",
    "selection_score",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A row: ``score`` is the mean over ``seeds`` trainings of ``steps`` steps, and ``score_se`` its standard error.

    Both, and ``selection_score``, are values of the ``objective`` in its unit: of ``hd95`` lower ones are better.

    ``confirmed`` entries were trained again with new seeds after the search had chosen them, and ``score`` is over
    those alone; their ``selection_score``, on which they were chosen, is biased upwards. Entries not confirmed rank
    behind, those with longer trainings first, by their selection score there.

    ``loss`` is what :func:`lossevo.losses.from_spec` takes: ``{"expression": …}`` or, for a meta-learned loss,
    ``{"learned": …}``; ``formula`` and ``unicode`` then say what the network takes, and ``complexity`` is how many
    weights it has.
    """

    rank: int
    id: str
    formula: str
    unicode: str
    objective: str
    score: float
    score_se: float | None
    seeds: int
    steps: int
    complexity: float
    origin: Origin
    confirmed: bool
    selection_score: float
    loss: dict[str, Any]

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    @property
    def definition(self) -> Definition:
        """The loss itself: an expression or a loss network.

        Raises:
            LossevoError: neither.
        """
        return definition_in(self.loss)

    @property
    def literature(self) -> str | None:
        """The name of the hand-crafted loss that this is, however it came here; None if it was found.

        Raises:
            LossevoError: no loss.
        """
        return literature_name(self.definition)

    @property
    def expression(self) -> Expression:
        """The loss itself, if it is one that can be written as a formula.

        Raises:
            LossevoError: it is a loss network, or no loss.
        """
        found = self.definition
        if isinstance(found, Expression):
            return found
        raise LossevoError(
            f"{self.id} is a loss network and has no formula; a 'distilled' loss of the same run is its readable form"
        )


_ENTRIES = TypeAdapter(list[Entry])


def rank(
    candidates: Iterable[Candidate], confirmation_seeds: int, objective: Objective = DICE.objective
) -> list[Entry]:
    """The ranking: confirmed candidates by their mean utility over new seeds, then the others by their mean so far, the
    longer trained first.

    ``objective`` is what their scores are utilities of.
    """
    return Ranking(confirmation_seeds, objective).update(candidates)


class Ranking:
    """A ranking that is kept up to date while scores come in; see :func:`rank`."""

    def __init__(self, confirmation_seeds: int, objective: Objective = DICE.objective) -> None:
        self.entries: list[Entry] = []
        self._confirmation_seeds = confirmation_seeds
        self._objective = objective
        self._shown: set[str] = set()
        self._last: _Standing | None = None
        self._texts: dict[str, tuple[str, str]] = {}

    def concerns(self, candidate: Candidate) -> bool:
        """Whether the ranking may be another one now that a candidate got a score.

        Not if that is an evolved loss that was not shown and stands behind all that are.
        """
        if self._last is None or candidate.hand_crafted or candidate.id in self._shown:
            return True
        return _Standing.of(candidate, self._confirmation_seeds).order < self._last.order

    def update(self, candidates: Iterable[Candidate]) -> list[Entry]:
        """Rank all candidates anew; returns the entries."""
        scored = [_Standing.of(candidate, self._confirmation_seeds) for candidate in candidates if candidate.scores]
        scored.sort(key=lambda standing: standing.order)
        evolved = [found for found in scored if not found.candidate.hand_crafted][:EVOLVED]
        self._last = evolved[-1] if len(evolved) == EVOLVED else None
        literature = [found for found in scored if found.candidate.hand_crafted]
        shown = sorted([*evolved, *literature], key=lambda standing: standing.order)
        self._shown = {standing.candidate.id for standing in shown}
        self.entries = [
            _entry(place, standing, self._objective, self._texts) for place, standing in enumerate(shown, start=1)
        ]
        return self.entries


@dataclass(frozen=True, slots=True)
class _Standing:
    """Where a candidate stands."""

    candidate: Candidate
    confirmed: bool
    steps: int
    values: tuple[float, ...]

    @classmethod
    def of(cls, candidate: Candidate, confirmation_seeds: int) -> Self:
        confirmed, steps, values = standing(candidate, confirmation_seeds)
        return cls(candidate, confirmed, steps, tuple(values.values()))

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)

    @property
    def order(self) -> tuple[bool, int, float, int]:
        return not self.confirmed, -self.steps, -self.mean, self.candidate.number


def _entry(place: int, standing: _Standing, objective: Objective, texts: dict[str, tuple[str, str]]) -> Entry:
    candidate, error = standing.candidate, standard_error([*standing.values])
    definition = candidate.definition
    if candidate.id not in texts:
        texts[candidate.id] = str(definition), formula_of(definition)
    formula, unicode = texts[candidate.id]
    return Entry(
        rank=place,
        id=candidate.id,
        formula=formula,
        unicode=unicode,
        objective=objective.name,
        score=objective.displayed(standing.mean),
        score_se=None if math.isnan(error) else error,
        seeds=len(standing.values),
        steps=standing.steps,
        complexity=float(definition.weight_count) if isinstance(definition, LossNetwork) else definition.complexity,
        origin=candidate.origin,
        confirmed=standing.confirmed,
        selection_score=objective.displayed(candidate.score),
        loss=candidate.spec,
    )


def write(entries: list[Entry], folder: Path) -> None:
    """Write ``hall_of_fame.json`` and ``hall_of_fame.csv``."""
    documents = [asdict(entry) for entry in entries]
    write_text(folder / "hall_of_fame.json", json.dumps(documents, indent=1, ensure_ascii=False) + "\n")
    rows = (
        {**document, "confirmed": str(entry.confirmed), "origin": str(entry.origin)}
        for entry, document in zip(entries, documents, strict=True)
    )
    write_text(folder / "hall_of_fame.csv", csv_text(_COLUMNS, rows))


def read(folder: Path) -> list[Entry]:
    """The hall of fame of a run folder.

    Raises:
        LossevoError: not a run folder, or a damaged file.
    """
    path = folder / "hall_of_fame.json"
    if not path.is_file():
        if (folder / RUN_FILE).is_file():
            raise LossevoError(f"{folder}: no training has ended yet; go on with '{resume_command(folder)}'")
        raise LossevoError(f"{folder}: no {path.name} there; give the folder of a run that lossevo made")
    refuse_other_version(folder)
    way_out = f"; '{resume_command(folder)}' writes it anew"
    try:
        text = read_text(path, kind="JSON")
        parse_json(text, source=str(path))
        entries = _ENTRIES.validate_json(text)
        for number, entry in enumerate(entries, start=1):
            _check_definition(entry, number)
    except ValidationError as error:
        raise LossevoError(f"{path}: damaged ({_first_problem(error)}){way_out}") from None
    except LossevoError as problem:
        message = str(problem).removeprefix(f"{path}: ")
        message = message if message.startswith("damaged (") else f"damaged ({message})"
        raise LossevoError(f"{path}: {message}{way_out}") from None
    return entries


def _check_definition(entry: Entry, number: int) -> None:
    try:
        _ = entry.definition
    except LossevoError as problem:
        raise LossevoError(f"damaged (entry {number}, loss: {problem})") from None


def _first_problem(error: ValidationError) -> str:
    """What is wrong first: the number of the entry, its field, and what was found there."""
    problem = error.errors(include_url=False)[0]
    number, *field = problem["loc"] or ("",)
    where = f"entry {int(number) + 1}: " if number != "" else ""
    what = f"{'.'.join(map(str, field))}: " if field else ""
    return f"{where}{what}{problem['msg']}, found {shown(problem['input'])}"


def find(entries: list[Entry], rank_or_id: str, folder: Path) -> Entry:
    """The entry with a rank (``"1"``) or an id (``"3fa9c1d2"``, or its beginning).

    Raises:
        LossevoError: no or several such entries.
    """
    if rank_or_id.isascii() and rank_or_id.isdigit() and len(rank_or_id) < 4:
        matches = [entry for entry in entries if entry.rank == int(rank_or_id)]
    else:
        matches = [entry for entry in entries if entry.id.startswith(rank_or_id)]
    if len(matches) != 1:
        found = "several losses" if matches else "no loss"
        raise LossevoError(
            f"{folder}: {found} '{rank_or_id}' in the hall of fame; give a rank from 1 to {len(entries)} or an id"
        )
    return matches[0]


def structure(candidate: Candidate) -> str:
    """What a candidate has in common with those that differ in coefficients only."""
    return structure_text(candidate.expression.root)
