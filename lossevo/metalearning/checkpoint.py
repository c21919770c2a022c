"""Where a meta-training stands, on disk: written as a whole, read with ``weights_only``."""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Self

import torch

from lossevo.csv_files import csv_text
from lossevo.errors import LossevoError
from lossevo.losses.neural import LossNetwork
from lossevo.metalearning.learner import Learner
from lossevo.metalearning.tasks import MetaOutcome
from lossevo.writing import write_bytes

_COLUMNS = ("outer_step", "outer_loss_before", "outer_loss_after", "failed_tasks")


@dataclass(frozen=True, slots=True)
class Record:
    """An outer step: the mean outer loss of its tasks before and after their inner steps, nan if all failed."""

    step: int
    before: float
    after: float
    failed: int

    @classmethod
    def of(cls, step: int, outcomes: Sequence[MetaOutcome | None]) -> Self:
        """What came of a step."""
        done = [outcome for outcome in outcomes if outcome is not None]
        if not done:
            return cls(step, math.nan, math.nan, len(outcomes))
        before, after = (statistics.fmean(values) for values in zip(*((o.before, o.after) for o in done), strict=True))
        return cls(step, before, after, len(outcomes) - len(done))

    @staticmethod
    def csv(records: Sequence[Record]) -> str:
        """A table of them."""
        return csv_text(_COLUMNS, (dict(zip(_COLUMNS, astuple(record), strict=True)) for record in records))


Evaluated = list[tuple[int, LossNetwork]]
"""What was evaluated by whole trainings: after how many outer steps, and the loss network as it was then."""


def write_checkpoint(path: Path, learner: Learner, records: Sequence[Record], evaluated: Evaluated) -> None:
    """Replace the checkpoint.

    Raises:
        LossevoError: it cannot be written; the one before is still there.
    """
    document = {
        "learner": learner.checkpoint(),
        "records": [astuple(record) for record in records],
        "evaluated": [(step, network.to_json()) for step, network in evaluated],
    }
    content = io.BytesIO()
    torch.save(document, content)
    write_bytes(path, content.getvalue(), advice="free space or rights, then resume")


def read_checkpoint(path: Path, learner: Learner) -> tuple[list[Record], Evaluated]:
    """Put the learner where the checkpoint left it; where there is none it stays at the beginning.

    Raises:
        LossevoError: damaged.
    """
    if not path.is_file():
        return [], []
    try:
        document = torch.load(path, weights_only=True, map_location="cpu")
        learner.restore(document["learner"])
        evaluated = [(step, LossNetwork.from_json(network)) for step, network in document["evaluated"]]
        return [Record(*record) for record in document["records"]], evaluated
    except Exception as problem:
        raise LossevoError(
            f"{path}: damaged ({type(problem).__name__}); remove it to learn again from the beginning, with the same "
            "result and without repeating the whole trainings on record"
        ) from None
