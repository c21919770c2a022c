"""What the texts in a ledger's columns stand for. One that was damaged is told with its ledger, table and row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lossevo.cluster import Status
from lossevo.documents import parse_json
from lossevo.errors import LossevoError, shown
from lossevo.experiment.origin import Origin, origin_in
from lossevo.expression import Expression
from lossevo.losses.definitions import Definition, definition_in
from lossevo.training.trial import MeasuredOn

_Curve = list[Annotated[list[float], Field(min_length=2, max_length=2)]]


class _Strict(BaseModel):
    """What is looked at of a document; entries that are not there have their defaults, others are no matter."""

    model_config = ConfigDict(strict=True)


class _Split(_Strict):
    train: list[str] = Field(min_length=1)
    validate_on: list[str] = Field(min_length=1, alias="validate")


class _Trial(_Strict):
    loss: dict[str, Any]
    split: str
    steps: int = Field(ge=1)
    seed: int
    study: str
    metrics: list[str]
    grid: MeasuredOn
    learning_rate: float | None = None
    length: int | None = None


class _Measurement(_Strict):
    values: dict[str, dict[str, dict[str, float | None]]]
    curve: _Curve
    validation_curve: _Curve
    trajectory: list[dict[str, float]] = []
    false_voxels: dict[str, dict[str, int]] = {}
    cut_off: dict[str, list[str]] = {}
    seconds: float


class _Candidate(_Strict):
    model_config = ConfigDict(strict=False)

    origin: Origin
    loss: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """A row of a ledger's table, by its key: the ticket of a trial, the id of a candidate, a hash."""

    ledger: Path
    table: str
    key: int | str

    def trial(self, text: str) -> dict[str, Any]:
        """What was asked for; whom it is trained and validated on is named by an id.

        Raises:
            LossevoError: no JSON, or not a trial.
        """
        return self._checked(_Trial, text, "trial")

    def split(self, text: str | None) -> dict[str, Any]:
        """Whom trials are trained and validated on.

        Raises:
            LossevoError: not there, no JSON, or nobody on one side.
        """
        if text is None:
            raise self._damaged("document", "no such row, though a trial names it")
        return self._checked(_Split, text, "document")

    def measurement(self, text: str) -> dict[str, Any]:
        """What a training came to.

        Raises:
            LossevoError: no JSON, or not a measurement.
        """
        return self._checked(_Measurement, text, "measurement")

    def status(self, text: str, measurement: str | None) -> Status:
        """How a training ended.

        Raises:
            LossevoError: no such status, or one that needs a value without one.
        """
        known = [status.value for status in Status]
        if text not in known:
            raise self._damaged("status", f"{shown(text)}, expected one of {', '.join(known)}")
        if text == Status.DONE.value and measurement is None:
            raise self._damaged("measurement", f"nothing, but the training is {text}")
        return Status(text)

    def document(self, text: str, column: str = "document") -> dict[str, Any]:
        """A JSON object.

        Raises:
            LossevoError: it is none.
        """
        document = self._parsed(text, column)
        if not isinstance(document, dict):
            raise self._damaged(column, f"found {shown(document)}, expected an object of keys and values")
        return document

    def note(self, text: str) -> dict[str, Any]:
        """What was noted of a trial.

        Raises:
            LossevoError: no JSON object.
        """
        return self.document(text, "note")

    def lineage(self, document: Mapping[str, Any]) -> tuple[Origin, Definition]:
        """Where a candidate comes from, and its loss.

        Raises:
            LossevoError: not the document of a candidate.
        """
        self._check(_Candidate, document, "document")
        return origin_in(document["origin"]), self._definition(document["loss"])

    def expression(self, document: Mapping[str, Any]) -> Expression:
        """An expression.

        Raises:
            LossevoError: not an expression's document.
        """
        found = self._definition({"expression": document})
        assert isinstance(found, Expression)
        return found

    def _definition(self, spec: Mapping[str, Any]) -> Definition:
        try:
            return definition_in(spec)
        except LossevoError as problem:
            raise self._damaged("document", str(problem)) from None

    def one_of(self, text: str, column: str, known: Sequence[str]) -> str:
        """The text, if it is one of those that are known.

        Raises:
            LossevoError: it is not.
        """
        if text not in known:
            raise self._damaged(column, f"{shown(text)}, expected one of {', '.join(map(shown, known))}")
        return text

    def _parsed(self, text: str, column: str) -> Any:
        # A diverging training's curve may hold NaN.
        return parse_json(text, source=self._named(column), any_number=True)

    def _checked(self, model: type[BaseModel], text: str, column: str) -> dict[str, Any]:
        found: dict[str, Any] = self._parsed(text, column)
        self._check(model, found, column)
        return found

    def _check(self, model: type[BaseModel], document: object, column: str) -> None:
        try:
            model.model_validate(document)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = "".join(f"{part}: " for part in [".".join(map(str, problem["loc"]))] if part)
            raise self._damaged(column, f"{where}{problem['msg']}, found {shown(problem['input'])}") from None

    def _named(self, column: str) -> str:
        kind = "ticket" if self.table == "trials" else "row"
        return f"{self.ledger}: table {self.table}, {kind} {shown(self.key)}, column {column}"

    def _damaged(self, column: str, what: str) -> LossevoError:
        return LossevoError(f"{self._named(column)}: damaged ({what}); restore the ledger, or start a new run")
