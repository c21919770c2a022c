"""The analysis of several losses: every subject of this package, as tidy tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lossevo.analysis.cost import cost
from lossevo.analysis.distances import gradient_by_distance
from lossevo.analysis.foreground import foreground_shares
from lossevo.analysis.losses import AnalysedLoss
from lossevo.analysis.profiles import profile
from lossevo.analysis.responses import responses
from lossevo.cluster.job import describe
from lossevo.errors import LossevoError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """What the losses do, one row per number.

    Attributes:
        losses: in the order in which they are shown.
        profiles: columns of :class:`~lossevo.analysis.profiles.ProfilePoint`.
        distances: columns of :class:`~lossevo.analysis.distances.DistancePoint`.
        shares: columns of :class:`~lossevo.analysis.foreground.ForegroundShare`.
        responses: columns of :class:`~lossevo.analysis.responses.Response`.
        costs: columns of :class:`~lossevo.analysis.cost.Cost`, the only table that differs from run to run.
    """

    losses: tuple[AnalysedLoss, ...]
    profiles: pd.DataFrame
    distances: pd.DataFrame
    shares: pd.DataFrame
    responses: pd.DataFrame
    costs: pd.DataFrame

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name."""
        return {
            "profiles": self.profiles,
            "distances": self.distances,
            "shares": self.shares,
            "responses": self.responses,
            "costs": self.costs,
        }


def analyze(
    losses: Sequence[AnalysedLoss], *, progress: Callable[[int, int, str], None] = lambda done, total, name: None
) -> Analysis:
    """Analyse losses with distinct names; ``progress`` is told how many are done and which one is next.

    Raises:
        LossevoError: a loss that is not lossevo's fails.
    """
    import pandas as pd

    rows: dict[str, list[Any]] = {table: [] for table in ("profiles", "distances", "shares", "responses", "costs")}
    for done, loss in enumerate(losses):
        progress(done, len(losses), loss.name)
        try:
            rows["profiles"] += profile(loss)
            rows["distances"] += gradient_by_distance(loss)
            rows["shares"] += foreground_shares(loss)
            rows["responses"] += responses(loss)
            rows["costs"].append(cost(loss))
        except Exception as error:
            if isinstance(error, LossevoError) or not loss.is_foreign:
                raise
            raise LossevoError(f"{loss.source}: fails on the scenes of an analysis: {describe(error)}") from error
    return Analysis(
        tuple(losses), **{name: pd.DataFrame([asdict(row) for row in table]) for name, table in rows.items()}
    )
