"""The seam between a search and whoever proposes losses to it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Protocol

from lossevo.experiment.candidate import Candidate
from lossevo.experiment.origin import Origin
from lossevo.expression import Expression


@dataclass(frozen=True, slots=True)
class Proposal:
    """A loss that a strategy proposes.

    Attributes:
        expression: None if what was drawn exceeds the limits of the space or of the language.
        origin: how it came about.
        given: it is trained whatever the screening says of it, and as it is written.
    """

    expression: Expression | None
    origin: Origin
    given: bool = False


class Strategy(Protocol):
    """Proposes losses, and learns which of them are trained and what they scored.

    It speaks of losses and of nothing else: who trains them, for how long, and with how many seeds, others decide. A
    search that is resumed makes a new strategy and tells it what is on record, :meth:`take` and :meth:`tell` in the
    order in which it happened, then :meth:`restore`. It must then go on as the one did that was there before. So what
    a strategy knows follows from what it was told, and from :meth:`state`.

    A proposal may be turned down. It has then changed nothing but the generator.
    """

    def ask(self, generator: random.Random) -> Proposal | None:
        """A loss drawn from ``generator``, and from no other; None if nothing can be proposed before more is told."""
        ...

    def take(self, candidate: Candidate) -> None:
        """One of what was asked for became this candidate, perhaps a little simpler, and will be trained."""
        ...

    def tell(self, candidate: Candidate) -> None:
        """Another training of a candidate has ended; its scores hold it."""
        ...

    def state(self) -> dict[str, Any]:
        """What neither the candidates nor their scores tell, as JSON; mostly nothing."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        ...
