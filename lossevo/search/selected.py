"""What a search's candidates scored at selection, as its ledger has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lossevo.experiment.ledger import Ledger
from lossevo.experiment.ledger_values import Place
from lossevo.experiment.origin import Origin
from lossevo.experiment.scoring import Scoring
from lossevo.expression import Expression
from lossevo.search.plan import CONFIRMATION
from lossevo.training import Measurement


@dataclass(frozen=True, slots=True)
class Scored:
    """A finished training that the search went by: of which candidate, its utility, after how many steps."""

    candidate: str
    expression: Expression
    origin: Origin
    score: float
    steps: int


def selection_trainings(run: Path, scoring: Scoring) -> Iterator[Scored]:
    """In the order of the ledger; those that failed score the worst.

    Raises:
        LossevoError: there is no ledger, or it is damaged.
    """
    with Ledger(run / "ledger.sqlite", read_only=True) as ledger:
        for record in ledger.records():
            document = ledger.candidate(record.candidate)
            if record.phase == CONFIRMATION or record.outcome is None or document is None:
                continue
            origin, definition = Place(ledger.path, "candidates", record.candidate).lineage(document)
            assert isinstance(definition, Expression)
            value = record.outcome.value
            score = scoring.utility(None if value is None else Measurement.from_payload(value))
            yield Scored(record.candidate, definition, origin, score, record.trial["steps"])
