"""What a search found out about its own measurements: noise, what it could tell apart, rungs, overtuning."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from lossevo.errors import LossevoError
from lossevo.experiment.candidate import Candidate
from lossevo.experiment.folder import read_json, write_json
from lossevo.experiment.scoring import Scoring

FILE = "findings.json"
LEAST_AGREEMENT = 0.3
"""Kendall's τ between two lengths below which the shorter is said to tell little of the longer."""
_FEWEST_RANKED = 8
_DETECTED = 1.960 + 0.842
"""Standard errors of a difference that is found with 80 % power at a two-sided level of 5 %."""


@dataclass(frozen=True, slots=True)
class Rung:
    """How far trainings of two lengths rank the same candidates alike: Kendall's τ."""

    shorter: int
    longer: int
    candidates: int
    tau: float


@dataclass(frozen=True, slots=True)
class Findings:
    """All in the unit of the objective.

    Attributes:
        steps: the length at which losses are ranked.
        seeds: of each loss that was confirmed.
        noise: standard deviation between seeds at this length, pooled over losses with several of which none failed;
            None if there is none. ``freedom`` are its degrees of freedom.
        rungs: of each two neighbouring lengths with enough candidates.
        overtuning: mean over the evolved finalists of the score on which they were selected minus the confirmed one,
            both at this length; None if there is none. A training that failed counts with the worst score, unlike in
            the noise. ``finalists`` says of how many.
        unit: of the objective; empty for Dice.
    """

    steps: int
    seeds: int
    noise: float | None
    freedom: int
    rungs: tuple[Rung, ...]
    overtuning: float | None
    finalists: int
    unit: str = ""

    @classmethod
    def of(
        cls, candidates: Iterable[Candidate], lengths: Sequence[int], *, confirmation_seeds: int, scoring: Scoring
    ) -> Findings:
        """Of a search whose candidates were trained for these ``lengths``, the shortest first."""
        candidates = [*candidates]
        horizon, worst = lengths[-1], scoring.worst
        squares, freedom = 0.0, 0
        for candidate in candidates:
            for scores in (candidate.scores, candidate.confirmations):
                values = [*scores.get(horizon, {}).values()]
                if len(values) > 1 and min(values) > worst:
                    squares += (len(values) - 1) * statistics.variance(values)
                    freedom += len(values) - 1
        optimism = [
            candidate.mean(horizon) - statistics.fmean(candidate.confirmations[horizon].values())
            for candidate in candidates
            if horizon in candidate.confirmations and horizon in candidate.scores and not candidate.hand_crafted
        ]
        rungs = (_rung(candidates, *pair, worst) for pair in pairwise(lengths))
        return cls(
            steps=horizon,
            seeds=confirmation_seeds,
            noise=math.sqrt(squares / freedom) if freedom else None,
            freedom=freedom,
            rungs=tuple(rung for rung in rungs if rung is not None),
            overtuning=statistics.fmean(optimism) if optimism else None,
            finalists=len(optimism),
            unit=scoring.objective.unit,
        )

    @property
    def smallest_difference(self) -> float | None:
        """Between two confirmed losses, found with 80 % power at 5 %: 2.8 · noise · √(2 / seeds)."""
        return None if self.noise is None else _DETECTED * self.noise * math.sqrt(2 / self.seeds)

    def texts(self) -> list[str]:
        """The findings in sentences."""
        unit = f" {self.unit}" if self.unit else ""
        told = []
        if self.noise is not None and self.smallest_difference is not None:
            told.append(
                f"Noise: scores of one loss after {self.steps} steps differ between seeds by {self.noise:.4f}{unit} "
                f"(SD, {self.freedom} degrees of freedom). With {self.seeds} seeds each, two confirmed losses can be "
                f"told apart from a difference of {self.smallest_difference:.4f}{unit} on (80 % power, 5 %)."
            )
        if self.overtuning is not None:
            told.append(
                f"Overtuning: with new seeds the evolved finalists scored {abs(self.overtuning):.4f}{unit} "
                f"{'worse' if self.overtuning > 0 else 'better'} than when they were selected (mean of "
                f"{self.finalists})."
            )
        for rung in self.rungs:
            advice = "; the shorter trainings tell little of the longer, so raise --steps"
            told.append(
                f"Lengths: trainings of {rung.shorter} and {rung.longer} steps rank the {rung.candidates} candidates "
                f"that have both with Kendall's τ {rung.tau:.2f}{advice if rung.tau < LEAST_AGREEMENT else ''}."
            )
        return told

    def write(self, folder: Path) -> None:
        """Into a run folder."""
        write_json(folder / FILE, asdict(self))


def read_findings(folder: Path) -> Findings | None:
    """Those of a run folder; None if its search has not ended, or is none.

    Raises:
        LossevoError: the file is damaged.
    """
    if not (folder / FILE).is_file():
        return None
    try:
        return TypeAdapter(Findings).validate_python(read_json(folder / FILE))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise LossevoError(f"{folder / FILE}: damaged ({where}: {problem['msg']}); delete it") from None


def _rung(candidates: Iterable[Candidate], shorter: int, longer: int, worst: float) -> Rung | None:
    """How far two lengths agree on those that trained at both."""
    from scipy.stats import kendalltau

    both = [(c.mean(shorter), c.mean(longer)) for c in candidates if {shorter, longer} <= c.scores.keys()]
    both = [pair for pair in both if min(pair) > worst]
    if len(both) < _FEWEST_RANKED:
        return None
    tau = float(kendalltau(*zip(*both, strict=True)).statistic)
    return Rung(shorter, longer, len(both), tau) if math.isfinite(tau) else None
