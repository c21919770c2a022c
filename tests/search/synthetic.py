"""Searches whose trainings take microseconds: the score of a loss is computed from its gradient.

The executor stands in for workers at the seam that the search knows (``Executor``); all else is the real thing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from lossevo.cluster import Job, Outcome, Status
from lossevo.experiment.events import Event
from lossevo.experiment.hall_of_fame import Entry
from lossevo.experiment.ledger import Ledger
from lossevo.experiment.states import States
from lossevo.experiment.trainings import OrderedTrainings
from lossevo.expression import Expression
from lossevo.losses.symbolic import ExpressionLoss
from lossevo.search.engine import Search
from lossevo.search.problem import Problem
from lossevo.search.space import SearchSpace, load_space
from lossevo.search.strategies.program import Program
from lossevo.search.surrogate import Features
from lossevo.search.surrogate.probes import unit
from lossevo.training import Split
from lossevo.training.trial import KEEPS, STATE

TARGET = Expression.parse(
    "1 - foreground_mean(sum(p * y) / (sum(p * y) + 0.2 * sum(p * (1 - y)) + 0.8 * sum((1 - p) * y)))"
    " - 0.4 * class_sum(mean((1 - p) ^ 2.0 * y * logp))"
)
"""The best loss of this little world; no seed is equal to it."""

SEEDS = ("cross_entropy", "dice", "tversky", "focal", "boundary", "baikal")
NOISE = 0.01


def small_space(
    base: str = "segmentation",
    *,
    strategy: Mapping[str, Any] | None = None,
    allocation: Mapping[str, Any] | None = None,
    **budget: Any,
) -> SearchSpace:
    """A shipped space with small trees, few seeds and a small budget."""
    space = load_space(base)
    limits = space.limits.model_copy(update={"nodes": 32})
    update: dict[str, Any] = {
        "limits": limits,
        "budget": space.budget.model_copy(update={"trainings": 48, "window": 4, **budget}),
        "strategy": space.strategy.model_copy(update={"population": 8, **(strategy or {})}),
        "allocation": space.allocation.model_copy(update={"elites": 2, **(allocation or {})}),
    }
    if space.root == "scalar":
        update["seeds"] = SEEDS
    return space.model_copy(update=update)


def score(payload: Mapping[str, Any]) -> float:
    """A Dice for the loss of a training request: how well its gradient points along the target's, and seeded noise."""
    expression = Expression.from_json(payload["loss"]["expression"])
    alike = float(torch.nn.functional.cosine_similarity(_gradient(expression), _gradient(TARGET), dim=0))
    noise = np.random.default_rng([payload["seed"], int(expression.hash[:8], 16)]).normal(0, NOISE)
    return float(np.clip(0.4 + 0.4 * alike + noise, 0.01, 1.0))


@cache
def _gradient(expression: Expression) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(2, 2, 4, 4, 4, generator=generator, dtype=torch.float64).requires_grad_()
    labels = (torch.rand(2, 1, 4, 4, 4, generator=generator) < 0.3).long()
    value = ExpressionLoss(expression, spacing_mm=(4, 4, 4))(logits, labels)
    if not value.requires_grad:  # without screening a loss may lack the prediction
        return torch.zeros(logits.numel(), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(value, logits)
    return gradient.flatten().nan_to_num()


def features(expression: Expression) -> Features | None:
    """What the surrogate knows of a loss: the unit gradient that its score follows from."""
    return unit(_gradient(expression).numpy())[None].astype(np.float32)


Fate = Callable[[Mapping[str, Any]], Status]
"""How the training of a payload ends."""


def always_done(payload: Mapping[str, Any]) -> Status:
    return Status.DONE


class Killed(BaseException):
    """What ends the process in real life; no ``except Exception`` stops it."""


@dataclass
class SyntheticExecutor:
    """Delivers outcomes in an order of its own: ``workers`` jobs run at once and any of them may end first.

    ``kill_after`` raises :class:`Killed` instead of delivering one outcome more than that.
    """

    workers: int = 1
    order: random.Random = field(default_factory=lambda: random.Random(0))
    fate: Fate = always_done
    kill_after: int | None = None
    submitted: list[Mapping[str, Any]] = field(default_factory=list)
    delivered: list[int] = field(default_factory=list)
    closed: bool = False
    _waiting: list[int] = field(default_factory=list)

    def submit(self, job: Job) -> int:
        assert not self.closed
        self.submitted.append(job.payload)
        self._waiting.append(len(self.submitted) - 1)
        return self._waiting[-1]

    def completed(self) -> Iterator[tuple[int, Outcome]]:
        while self._waiting:
            if len(self.delivered) == self.kill_after:
                raise Killed
            ticket = self._waiting.pop(self.order.randrange(min(self.workers, len(self._waiting))))
            self.delivered.append(ticket)
            yield ticket, outcome_of(self.submitted[ticket], self.fate(self.submitted[ticket]))

    def busy_share(self) -> float:
        return 1.0

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def outcome_of(payload: Mapping[str, Any], status: Status) -> Outcome:
    """What a worker says of a training that ends like this."""
    if status is not Status.DONE:
        return Outcome(status, None, f"it {status}", 0.001, "synthetic:1", attempts=1)
    value: dict[str, Any] = {
        "values": {"dice": {"b": {"vertebra": score(payload)}}},
        "curve": [[1, 0.9], [2, 0.5]],
        "validation_curve": [[payload["steps"], 0.5]],
        "seconds": 0.001,
    }
    if payload.get(KEEPS):
        value[STATE] = f"{payload['seed']} after {payload['steps']} steps".encode()
    return Outcome(Status.DONE, value, "", 0.001, "synthetic:1")


@dataclass
class Searched:
    """A search that has ended, and what was seen of it."""

    search: Search
    entries: list[Entry]
    executor: SyntheticExecutor
    events: list[Event]
    written: list[list[Entry]]


def run_search(
    ledger: Path,
    space: SearchSpace,
    *,
    seed: int = 0,
    executor: SyntheticExecutor | None = None,
    classes: int = 2,
    lengths: tuple[int, ...] = (10,),
    surrogate: bool = False,
    states: States | None = None,
    program: Program | None = None,
) -> Searched:
    """Search to the end, or to where the executor stops it; goes on with the ledger if there is one."""
    executor = executor or SyntheticExecutor()
    events: list[Event] = []
    written: list[list[Entry]] = []
    with Ledger(ledger, create=not ledger.exists()) as opened:
        search = Search(
            space=space,
            problem=Problem(Split(("a",), ("b",)), classes, lengths, continues=states is not None),
            seed=seed,
            ledger=opened,
            trainings=OrderedTrainings(opened, lambda: executor, states=states),
            listener=events.append,
            changed=written.append,
            features=features if surrogate else None,
            program=program,
        )
        entries = search.run()
    return Searched(search, entries, executor, events, written)
