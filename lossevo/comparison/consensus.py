"""Rankings of several comparisons together: which losses are good on all cohorts, and how far the cohorts agree.

Rankings of losses hardly transfer from one task to another (Ma et al., Loss odyssey, Medical Image Analysis 2021), so
the agreement of the cohorts stands beside the consensus. The consensus is the mean rank over the cohorts, which weigh
alike, whatever the number of their subjects.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from lossevo.comparison.configuration import ComparisonConfig, read_config
from lossevo.comparison.statistics.table import TIE_DECIMALS, Array
from lossevo.comparison.tables import markdown_table
from lossevo.csv_files import csv_text
from lossevo.errors import LossevoError, shown
from lossevo.experiment.folder import write_json, write_text
from lossevo.metrics import Metric

RESAMPLES = 2000
_SCORES = "claims_reloaded.csv"
_MIDDLE = (0.025, 0.975)


@dataclass(frozen=True, slots=True)
class Compared:
    """A finished comparison: its configuration, and metric → loss → subject → value."""

    folder: Path
    config: ComparisonConfig
    values: Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True, slots=True)
class ConsensusRank:
    """A loss in one metric, over cohorts.

    Attributes:
        loss: its name.
        mean_rank: mean of its ranks; losses that tie share the mean of their places.
        ci_low: of the 95 % interval of the mean rank, when subjects are drawn anew within each cohort.
        ci_high: its upper end.
        ranks: its rank in each cohort, in their order.
        means: its mean in each cohort.
    """

    loss: str
    mean_rank: float
    ci_low: float
    ci_high: float
    ranks: tuple[float, ...]
    means: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Kendall's τ-b of the rankings of two cohorts in one metric; None if all losses tie in one of them."""

    first: str
    second: str
    tau: float | None


@dataclass(frozen=True, slots=True)
class MetricConsensus:
    """One metric over cohorts: losses by their mean rank, and the agreement of each two cohorts."""

    metric: Metric
    losses: tuple[ConsensusRank, ...]
    agreement: tuple[Agreement, ...]

    @property
    def mean_tau(self) -> float | None:
        """Mean of Kendall's τ over all two cohorts; None if it is undefined for all."""
        taus = [one.tau for one in self.agreement if one.tau is not None]
        return math.fsum(taus) / len(taus) if taus else None


@dataclass(frozen=True, slots=True)
class Consensus:
    """Comparisons of the same losses on several cohorts, the main metric first. ``left_out`` are losses that not all of
    the comparisons have.
    """

    cohorts: tuple[str, ...]
    folders: tuple[str, ...]
    metrics: tuple[MetricConsensus, ...]
    left_out: tuple[str, ...]

    @property
    def finding(self) -> str:
        """What the main metric says, in a sentence or two."""
        main = self.metrics[0]
        lowest = main.losses[0].mean_rank
        best = [rank for rank in main.losses if math.isclose(rank.mean_rank, lowest)]
        places = [place for rank in best for place in rank.ranks]
        told = (
            f"By {main.metric.label}, {' and '.join(rank.loss for rank in best)} {'has' if len(best) == 1 else 'have'} "
            f"the best mean rank, {lowest:.3g} of {len(main.losses)}"
        )
        told += ", and is first everywhere." if max(places) == 1 else f" (from {min(places):g} to {max(places):g})."
        if main.mean_tau is None:
            return told
        return f"{told} Kendall's τ between cohorts is {main.mean_tau:.2f} on average; 1 is one ranking, 0 is chance."


def read_compared(folder: Path) -> Compared:
    """A finished comparison.

    Raises:
        LossevoError: no comparison folder, not finished, or damaged.
    """
    config, path = read_config(folder), folder / _SCORES
    if not path.is_file():
        raise LossevoError(
            f"{folder}: this comparison has not ended (it has no {_SCORES}); go on with "
            f"'lossevo evaluate --resume {folder}'"
        )
    values: dict[str, dict[str, dict[str, float]]] = {name: {} for name in config.metrics}
    names = [contender.name for contender in config.contenders]
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            header, *rows = csv.reader(stream)
        if header[2:] != names:
            raise ValueError(f"its losses are {shown(header[2:])}, expected {shown(names)}")
        for metric, subject, *numbers in rows:
            for loss, text in zip(names, numbers, strict=True):
                value = float(text)
                if not math.isfinite(value):
                    raise ValueError(f"{loss}, {subject}: {text}")
                values[metric].setdefault(loss, {})[subject] = value
        if lacking := [metric for metric, by_loss in values.items() if not by_loss]:
            raise ValueError(f"it has no row of {', '.join(lacking)}")
    except (OSError, ValueError, KeyError, csv.Error) as problem:
        raise LossevoError(
            f"{path}: damaged ({problem}); 'lossevo evaluate --resume {folder}' writes it anew"
        ) from None
    return Compared(folder, config, values)


def consensus(compared: Sequence[Compared], *, seed: int = 0) -> Consensus:
    """Rank the losses that all comparisons have, over cohorts. ``seed`` draws the resamples.

    Raises:
        LossevoError: fewer than two comparisons, the same twice, or other metrics, grid or labels; fewer than two
            losses that all of them have.
    """
    _require_comparable(compared)
    losses, left_out = _common_losses(compared)
    metrics = tuple(
        _metric_consensus(metric, losses, compared, _names(compared), seed) for metric in compared[0].config.measured
    )
    return Consensus(_names(compared), tuple(str(one.folder) for one in compared), metrics, left_out)


def _require_comparable(compared: Sequence[Compared]) -> None:
    if len(compared) < 2:
        raise LossevoError("a consensus needs at least two comparisons; give --combine for each")
    places = [one.folder.resolve() for one in compared]
    if len({*places}) < len(places):
        raise LossevoError("a comparison is given twice; name each folder once")
    first = compared[0]
    for other in compared[1:]:
        for what, option in (("metrics", "--metrics"), ("grid", "--grid"), ("labels", "--labels or --levels")):
            one, another = getattr(first.config, what), getattr(other.config, what)
            if one != another:
                raise LossevoError(
                    f"{other.folder} has other {what} than {first.folder} ({_told(another)}, and {_told(one)}); "
                    f"compare the losses again with the same {option}"
                )


def _told(setting: object) -> str:
    return ", ".join(setting) if isinstance(setting, tuple) else str(setting)


def _common_losses(compared: Sequence[Compared]) -> tuple[list[str], tuple[str, ...]]:
    """The losses of one name and one definition in all comparisons, and all others."""
    identities = [{one.name: one.identity for one in comparison.config.contenders} for comparison in compared]
    everyone = list(dict.fromkeys(name for known in identities for name in known))
    common = [name for name in everyone if len({known.get(name) for known in identities}) == 1]
    if len(common) < 2:
        told = "; ".join(f"{one.folder}: {', '.join(known)}" for one, known in zip(compared, identities, strict=True))
        raise LossevoError(f"the comparisons share {len(common)} loss(es), a consensus needs 2 ({told})")
    return common, tuple(name for name in everyone if name not in common)


def _names(compared: Sequence[Compared]) -> tuple[str, ...]:
    """The name of each cohort, or of the folder where two cohorts have one name."""
    cohorts = [one.config.cohort_title for one in compared]
    unique = len({*cohorts}) == len(cohorts)
    return tuple(cohorts) if unique else tuple(str(one.folder) for one in compared)


def _metric_consensus(
    metric: Metric, losses: Sequence[str], compared: Sequence[Compared], names: Sequence[str], seed: int
) -> MetricConsensus:
    tables = [_table(one.values[metric.name], losses) for one in compared]
    sign = 1.0 if metric.higher_is_better else -1.0
    means = np.array([table.mean(axis=1) for table in tables])  # (cohorts, losses)
    ranks = np.array([_ranks(sign * of_cohort) for of_cohort in means])
    drawn = np.mean(
        [_resampled_ranks(sign * table, np.random.default_rng([seed, n])) for n, table in enumerate(tables)], axis=0
    )
    low, high = np.quantile(drawn, _MIDDLE, axis=0)
    found = [
        ConsensusRank(
            loss=loss,
            mean_rank=float(ranks[:, place].mean()),
            ci_low=float(low[place]),
            ci_high=float(high[place]),
            ranks=tuple(map(float, ranks[:, place])),
            means=tuple(map(float, means[:, place])),
        )
        for place, loss in enumerate(losses)
    ]
    agreement = tuple(
        Agreement(names[one], names[other], _tau(ranks[one], ranks[other]))
        for one, other in combinations(range(len(compared)), 2)
    )
    return MetricConsensus(metric, tuple(sorted(found, key=lambda rank: rank.mean_rank)), agreement)


def _table(values: Mapping[str, Mapping[str, float]], losses: Sequence[str]) -> Array:
    """(losses, subjects)."""
    return np.array([[values[loss][subject] for subject in values[losses[0]]] for loss in losses])


def _ranks(utilities: Array) -> Array:
    ranks: Array = stats.rankdata(-np.round(utilities, TIE_DECIMALS), axis=-1)
    return ranks


def _resampled_ranks(utilities: Array, generator: np.random.Generator) -> Array:
    """(resamples, losses): ranks of the means over subjects that are drawn with replacement."""
    subjects = utilities.shape[1]
    draws = generator.multinomial(subjects, np.full(subjects, 1 / subjects), size=RESAMPLES)
    return _ranks(draws @ utilities.T / subjects)


def _tau(one: Array, other: Array) -> float | None:
    tau = float(stats.kendalltau(one, other).statistic)
    return tau if math.isfinite(tau) else None


def consensus_csv(found: Consensus) -> str:
    """The text of ``consensus.csv``: a row per metric and loss, with its rank and mean in each cohort."""
    columns = ("metric", "loss", "mean_rank", "ci_low", "ci_high")
    of_cohorts = [f"{what} {cohort}" for cohort in found.cohorts for what in ("rank", "mean")]
    return csv_text(
        (*columns, *of_cohorts),
        (
            {
                "metric": result.metric.name,
                **{name: getattr(rank, name) for name in columns[1:]},
                **dict(
                    zip(
                        of_cohorts,
                        (value for pair in zip(rank.ranks, rank.means, strict=True) for value in pair),
                        strict=True,
                    )
                ),
            }
            for result in found.metrics
            for rank in result.losses
        ),
    )


def agreement_csv(found: Consensus) -> str:
    """The text of ``agreement.csv``: a row per metric and two cohorts."""
    return csv_text(
        ("metric", "first", "second", "tau"),
        ({"metric": result.metric.name, **asdict(one)} for result in found.metrics for one in result.agreement),
    )


def consensus_document(found: Consensus) -> dict[str, Any]:
    """All of it as plain data: ``consensus.json``."""
    return {
        "cohorts": list(found.cohorts),
        "comparisons": list(found.folders),
        "finding": found.finding,
        "left_out": list(found.left_out),
        "metrics": [
            {
                "metric": result.metric.name,
                "mean_tau": result.mean_tau,
                "losses": [asdict(rank) for rank in result.losses],
                "agreement": [asdict(one) for one in result.agreement],
            }
            for result in found.metrics
        ],
    }


def consensus_rows(found: Consensus, result: MetricConsensus) -> list[dict[str, str]]:
    """One row per loss, for people."""
    return [
        {
            "loss": rank.loss,
            "mean rank": f"{rank.mean_rank:.3g}",
            "95 % CI": f"[{rank.ci_low:.3g}, {rank.ci_high:.3g}]",
            **{
                cohort: f"{place:g} ({mean:.3f})"
                for cohort, place, mean in zip(found.cohorts, rank.ranks, rank.means, strict=True)
            },
        }
        for rank in result.losses
    ]


def consensus_markdown(found: Consensus) -> str:
    """The text of ``consensus.md``."""
    parts = [f"# Consensus of {len(found.cohorts)} comparisons: {', '.join(found.cohorts)}", found.finding]
    for result in found.metrics:
        parts += [f"## {result.metric.heading}", markdown_table(consensus_rows(found, result))]
        parts.append(
            "\n".join(
                f"- Kendall's τ of {one.first} and {one.second}: "
                f"{'not defined' if one.tau is None else f'{one.tau:.2f}'}"
                for one in result.agreement
            )
        )
    notes = [
        "In each cohort's column: rank (mean). The mean rank weighs cohorts alike. Its interval is a bootstrap over "
        "the subjects within each cohort; it says nothing of cohorts that are not here.",
        *([f"Not in all comparisons, or not the same loss: {', '.join(found.left_out)}."] if found.left_out else []),
    ]
    return "\n\n".join([*parts, "## Notes", "\n".join(f"- {note}" for note in notes)]) + "\n"


def write_consensus(found: Consensus, folder: Path) -> None:
    """Write ``consensus.md``, ``.csv``, ``.json`` and ``agreement.csv`` into a new folder.

    Raises:
        LossevoError: the folder exists, or a file cannot be written.
    """
    if folder.exists():
        raise LossevoError(f"{folder}: exists already; nothing is overwritten, so name a new folder")
    folder.mkdir(parents=True)
    write_text(folder / "consensus.csv", consensus_csv(found))
    write_text(folder / "agreement.csv", agreement_csv(found))
    write_text(folder / "consensus.md", consensus_markdown(found))
    write_json(folder / "consensus.json", consensus_document(found))
