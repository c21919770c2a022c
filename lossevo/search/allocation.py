"""Who gets the next training: a candidate that is known, for more steps or with another seed, or a new one."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from lossevo.experiment.archive import Archive
from lossevo.experiment.candidate import Candidate
from lossevo.search.plan import CONFIRMATION, PROMOTION, REPETITION, Account
from lossevo.search.space import Allocation
from lossevo.search.valuation import Worth
from lossevo.training.seeds import confirmation_seed, selection_seed


@dataclass(frozen=True, slots=True)
class Decision:
    """The next training: of whom, for how many steps, with which seed, and what for (:mod:`lossevo.search.plan`).

    ``continues`` are the steps of the training that it goes on from, if it does.
    """

    candidate: Candidate
    steps: int
    seed: int
    reason: str
    continues: int | None = None

    @property
    def cost(self) -> int:
        """Steps that are made for it."""
        return self.steps - (self.continues or 0)


@dataclass(frozen=True, slots=True)
class NewCandidate:
    """Let the strategy propose one."""


NEW: Final = NewCandidate()


class Selecting:
    """Successive halving, then further seeds for the best; what is left goes to new candidates.

    - A candidate is trained for ``lengths[k + 1]`` steps, with the seed that it has, if it is among the best
      ``1 / eta`` of those that have a score at ``lengths[k]``. The longest such training comes first. As in ASHA
      (Li et al., MLSys 2020, arXiv 1810.05934) nobody waits for a rung to fill. Where a training can be continued, the
      longer goes on from the shorter.
    - At the longest length the ``elites`` best are trained with further seeds, up to ``elite_seeds`` of them and at
      most ``elite_share`` of the steps: a good first score may be luck.

    Args:
        settings: as the space states them.
        lengths: of trainings in steps, the shortest first.
        archive: all candidates.
        worth: what a candidate is worth.
        account: what is spent.
        seed: of the search.
        continues: whether a training can be continued.
        given: losses that the search begins with; no seed is repeated before all of them have been trained.
    """

    def __init__(
        self,
        settings: Allocation,
        lengths: Sequence[int],
        archive: Archive,
        worth: Worth,
        account: Account,
        seed: int,
        *,
        continues: bool = False,
        given: int = 0,
    ) -> None:
        self._given = given
        self._continues = continues
        self._settings = settings
        self._lengths = tuple(lengths)
        self._archive = archive
        self._worth = worth
        self._account = account
        self._seed = seed

    def decide(self, pending: Iterable[Decision]) -> Decision | NewCandidate | None:
        """The next training; None if the selection's steps are spent."""
        pending = [*pending]
        left = self._account.left_for_selection
        for decision in (self._promotion(pending), self._repetition(pending)):
            if decision is not None and decision.cost <= left:
                return decision
        return NEW if self._lengths[0] <= left else None

    def _promotion(self, pending: Sequence[Decision]) -> Decision | None:
        for shorter, longer in zip(self._lengths[-2::-1], self._lengths[:0:-1], strict=True):
            trained, further = self._archive.trained(shorter), self._archive.trained(longer)
            places = int(len(trained) / self._settings.eta)
            under_way = {id(decision.candidate) for decision in pending if decision.steps == longer}
            if len(further) + len(under_way) >= places:
                continue
            promoted = under_way | {id(candidate) for candidate in further}
            best = heapq.nsmallest(places, trained, key=lambda candidate: (-candidate.mean(shorter), candidate.number))
            for candidate in best:
                if id(candidate) not in promoted:
                    seed = next(iter(candidate.scores[shorter]))
                    return Decision(candidate, longer, seed, PROMOTION, shorter if self._continues else None)
        return None

    def _repetition(self, pending: Sequence[Decision]) -> Decision | None:
        settings, longest = self._settings, self._lengths[-1]
        trained = self._archive.trained(longest)
        begun = len(self._archive.trained(self._lengths[0])) >= self._given
        if settings.elite_seeds < 2 or len(trained) < settings.elites or not begun:
            return None
        spent = self._account.spent[REPETITION]
        if spent + longest > settings.elite_share * (self._account.selection + longest):
            return None
        best = heapq.nsmallest(
            settings.elites, trained, key=lambda candidate: (-self._worth(candidate), candidate.number)
        )
        for candidate in best:
            taken = {*candidate.scores[longest]}
            taken |= {decision.seed for decision in pending if decision.candidate is candidate}
            for index in range(settings.elite_seeds):
                seed = selection_seed(self._seed, candidate.number, index)
                if seed not in taken:
                    return Decision(candidate, longest, seed, REPETITION)
        return None


class Confirming:
    """Trains finalists at the horizon with seeds that nothing was selected on.

    The finalists are chosen when it first decides, and after more selection anew. Their scores are kept back until all
    are in (:meth:`conclude`): else the first to be confirmed would lead before the others are.
    """

    def __init__(
        self, finalists: Callable[[], Sequence[Candidate]], horizon: int, seeds: int, account: Account, run_seed: int
    ) -> None:
        self._choose = finalists
        self._horizon = horizon
        self._seeds = [confirmation_seed(run_seed, number) for number in range(seeds)]
        self._account = account
        self._chosen: tuple[int, Sequence[Candidate]] = (-1, ())
        self._results: dict[tuple[str, int], float] = {}

    @property
    def finalists(self) -> Sequence[Candidate]:
        """Who is confirmed, all with the same seeds."""
        if self._chosen[0] != self._account.selection:
            self._chosen = (self._account.selection, self._choose())
        return self._chosen[1]

    def decide(self, pending: Iterable[Decision]) -> Decision | None:
        """The next training; None if each finalist has all, or they are under way."""
        asked = {(decision.candidate.id, decision.seed) for decision in pending}
        for seed in self._seeds:
            for candidate in self.finalists:
                if (candidate.id, seed) not in asked and not self._known(candidate, seed):
                    return Decision(candidate, self._horizon, seed, CONFIRMATION)
        return None

    def _known(self, candidate: Candidate, seed: int) -> bool:
        return (candidate.id, seed) in self._results or seed in candidate.confirmations.get(self._horizon, {})

    def tell(self, decision: Decision, utility: float) -> None:
        """Keep the score of a training."""
        self._results[decision.candidate.id, decision.seed] = utility

    def conclude(self, candidates: Archive) -> list[Candidate]:
        """Give the candidates their scores; returns those that got some."""
        confirmed = []
        for (id_, seed), utility in self._results.items():
            candidate = candidates.by_id(id_)
            assert candidate is not None
            candidate.record(self._horizon, seed, utility, confirms=True)
            confirmed.append(candidate)
        self._results = {}
        return confirmed
