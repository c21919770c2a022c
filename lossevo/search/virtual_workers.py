"""The order in which outcomes enter a search: that in which virtual workers would have finished their trainings."""

from __future__ import annotations

import heapq


class VirtualWorkers:
    """So many workers on which a training takes exactly the time that is declared for it, its steps.

    The course of a search depends on their number, which is part of its configuration, and not on the real workers: who
    of those is faster decides nothing, and a long training does not hold up the outcomes of short ones. If all
    trainings are equally long, outcomes enter in the order of submission.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._now = 0.0
        self._running: list[tuple[float, int]] = []

    @property
    def free(self) -> int:
        """How many could begin a training now."""
        return self.workers - len(self._running)

    @property
    def running(self) -> int:
        """How many trainings have begun and not ended."""
        return len(self._running)

    def start(self, ticket: int, cost: float) -> None:
        """Begin a training now."""
        heapq.heappush(self._running, (self._now + cost, ticket))

    def finish(self) -> int:
        """The ticket of the training that ends first, of several the first that began; it is that time now."""
        self._now, ticket = heapq.heappop(self._running)
        return ticket
