"""A report as files for programs: CSV, and one JSON document.

Differences are in utility everywhere: above 0 the first loss is better, also in a metric of which lower is better.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any

import lossevo
from lossevo.comparison.protocol import Protocol
from lossevo.comparison.report import MetricResult, PairResult, Report
from lossevo.csv_files import csv_text
from lossevo.metrics import IMPLEMENTATION, Metric

_LOSS_COLUMNS = (
    *("metric", "loss", "mean", "sd", "ci_low", "ci_high", "subjects", "false_alarms", "without_class", "false_ml"),
    *("trainings", "failures", "leakage", "evolved", "formula", "origin"),
)
_PAIR_COLUMNS = (
    *("metric", "reference", "loss", "subjects", "difference", "ci_low", "ci_high", "se", "wins", "ties", "losses"),
    *("p", "p_holm", "p_smallest", "rank_biserial", "reference_false_alarms", "false_alarms", "leakage"),
    *("false_claim", "p_better", "p_equivalent", "p_worse", "smallest_difference", "subjects_needed", "seeds_needed"),
)
_ALL_PAIRS_COLUMNS = (
    *("metric", "better", "worse", "difference", "ci_low", "ci_high", "p", "p_holm", "p_nemenyi"),
    *("rank_biserial", "false_claim", "p_better", "p_equivalent", "p_worse"),
)
_RANK_COLUMNS = ("metric", "loss", "rank", "median", "ci_low", "ci_high", "average_rank")


def summary_csv(report: Report) -> str:
    """The text of ``summary.csv``: each metric and loss, the best mean first."""
    losses = {loss["loss"]: loss for loss in _losses(report)}
    return csv_text(
        _LOSS_COLUMNS,
        (
            {"metric": result.metric.name, **losses[found.loss], **asdict(found.score)}
            for result in report.results
            for found in result.losses
        ),
    )


def comparisons_csv(report: Report) -> str:
    """The text of ``comparisons.csv``: each metric, and the reference against each other loss."""
    return csv_text(
        _PAIR_COLUMNS,
        ({"metric": result.metric.name, **_pair(report, pair)} for result in report.results for pair in result.pairs),
    )


def pairs_csv(report: Report) -> str:
    """The text of ``pairs.csv``: each metric and every pair of losses, the better mean first."""
    return csv_text(_ALL_PAIRS_COLUMNS, (row for result in report.results for row in _all_pairs(result)))


def ranks_csv(report: Report) -> str:
    """The text of ``ranks.csv``: of each metric and loss the rank, its interval, the average rank, and the share of
    each rank.
    """
    shares = [f"share_{rank}" for rank in range(1, len(report.losses) + 1)]
    return csv_text((*_RANK_COLUMNS, *shares), (row for result in report.results for row in _ranks(result, shares)))


def to_document(report: Report) -> dict[str, Any]:
    """The whole report as plain data: ``summary.json``."""
    return {
        "title": report.title,
        "lossevo": lossevo.__version__,
        "leakage": bool(report.leakage),
        "protocol": _protocol(report.protocol),
        "implementation": IMPLEMENTATION,
        "losses": list(_losses(report)),
        "reference": report.reference,
        "metrics": [_metric(report, result) for result in report.results],
        "speed": [
            {**asdict(speed), "steps_to": {f"{share:g}": step for share, step in speed.steps_to.items()}}
            for speed in report.speeds
        ],
        "data_utilisation": asdict(report.data_use) if report.data_use else None,
        "notes": [*([report.leakage] if report.leakage else []), *report.notes],
    }


def _metric(report: Report, result: MetricResult) -> dict[str, Any]:
    """What a metric is, and all that it says."""
    return {
        **_definition(result.metric),
        "losses": [{"loss": found.loss, **asdict(found.score)} for found in result.losses],
        "comparisons": [_pair(report, pair) for pair in result.pairs],
        "findings": list(result.findings),
        "statistics": _statistics(result),
        "structures": [asdict(one) for one in report.structures if one.metric == result.metric.name],
    }


def _definition(metric: Metric) -> dict[str, Any]:
    return {
        "metric": metric.name,
        "unit": metric.unit,
        "better": metric.direction,
        "worst": metric.worst,
        "definition": metric.definition,
    }


def _losses(report: Report) -> Iterator[dict[str, Any]]:
    for loss in report.losses:
        document = asdict(loss)
        alarms = document.pop("alarms")
        yield {**document, **alarms}


def _pair(report: Report, pair: PairResult) -> dict[str, Any]:
    """A pair with the reference as flat data."""
    losses = {loss.loss: loss for loss in report.losses}
    reference, other = losses[pair.reference], losses[pair.loss]
    against, (chances, power) = pair.against, (pair.against.relevance, pair.against.power)
    return {
        "reference": pair.reference,
        "loss": pair.loss,
        **asdict(pair.difference),
        "p_holm": pair.p_holm,
        "leakage": reference.leakage or other.leakage,
        "reference_false_alarms": reference.alarms.false_alarms,
        "false_alarms": other.alarms.false_alarms,
        "false_claim": against.false_claim,
        "p_better": chances.better if chances else None,
        "p_equivalent": chances.equivalent if chances else None,
        "p_worse": chances.worse if chances else None,
        "smallest_difference": power.smallest if power else None,
        "subjects_needed": power.subjects_needed if power else None,
        "seeds_needed": power.seeds_needed if power else None,
    }


def _all_pairs(result: MetricResult) -> Iterator[dict[str, Any]]:
    nemenyi = result.statistics.friedman.nemenyi if result.statistics.friedman else {}
    for pair in result.statistics.pairs:
        document = asdict(pair)
        chances = document.pop("relevance") or dict.fromkeys(("better", "equivalent", "worse"))
        yield {
            "metric": result.metric.name,
            **document,
            **{f"p_{name}": chance for name, chance in chances.items()},
            "p_nemenyi": nemenyi[pair.better][pair.worse] if nemenyi else None,
        }


def _ranks(result: MetricResult, shares: list[str]) -> Iterator[dict[str, Any]]:
    ranking, test = result.statistics.ranking, result.statistics.friedman
    for loss, rank in ranking.ranks.items() if ranking else ():
        yield {
            "metric": result.metric.name,
            "loss": loss,
            **asdict(rank),
            "average_rank": test.average_ranks[loss] if test else None,
            **dict(zip(shares, rank.shares, strict=True)),
        }


def _protocol(protocol: Protocol) -> dict[str, Any]:
    document = {field.name: getattr(protocol, field.name) for field in fields(protocol)}
    document["metrics"] = [metric.name for metric in protocol.metrics]
    document["tuning"] = protocol.tuning.model_dump(mode="json") if protocol.tuning else None
    document["registry"] = str(protocol.registry) if protocol.registry else None
    document["earlier"] = [look.model_dump(mode="json") for look in protocol.earlier]
    return document


def _statistics(result: MetricResult) -> dict[str, Any]:
    """All of it; what stands with the pairs of the reference is not repeated, but what their power rests on is."""
    document = asdict(result.statistics)
    against = document.pop("against")
    return {**document, "power": {loss: values["power"] for loss, values in against.items()}}
