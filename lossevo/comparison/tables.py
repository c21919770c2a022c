"""A report as tables: rows of text for a terminal, Markdown, CSV, and one JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import lossevo
from lossevo.comparison.findings import p_text
from lossevo.comparison.report import PairResult, Report
from lossevo.comparison.scores import FalseAlarms
from lossevo.csv_files import csv_text

Row = Mapping[str, str]

_LOSS_COLUMNS = (
    *("loss", "mean", "sd", "ci_low", "ci_high", "subjects", "false_alarms", "without_class", "false_ml"),
    *("trainings", "failures", "leakage", "evolved", "formula", "origin"),
)
_PAIR_COLUMNS = (
    *("reference", "loss", "subjects", "difference", "ci_low", "ci_high", "se", "wins", "ties", "losses"),
    *("p", "p_holm", "p_smallest", "rank_biserial", "reference_false_alarms", "false_alarms", "leakage"),
    *("false_claim", "p_better", "p_equivalent", "p_worse", "smallest_difference", "subjects_needed", "seeds_needed"),
)
_ALL_PAIRS_COLUMNS = (
    *("better", "worse", "difference", "ci_low", "ci_high", "p", "p_holm", "p_nemenyi", "false_claim"),
    *("p_better", "p_equivalent", "p_worse"),
)
_RANK_COLUMNS = ("loss", "rank", "median", "ci_low", "ci_high", "average_rank")
_LEAKAGE_MARK = " (leakage)"


def summary_rows(report: Report) -> list[Row]:
    """One row per loss, for people."""
    return [
        {
            "loss": result.loss + _LEAKAGE_MARK * result.leakage,
            "Dice mean ± SD": _plus_minus(result.dice.mean, result.dice.sd),
            "95 % CI": _interval(result.dice.ci_low, result.dice.ci_high, ".3f"),
            "rank": _rank(report, result.loss),
            "subjects": str(result.dice.subjects),
            "false alarms": _alarms(result.alarms),
            "failed": f"{result.failures}/{result.trainings}",
        }
        for result in report.losses
    ]


def comparison_rows(report: Report) -> list[Row]:
    """One row per pair, for people."""
    some_lack_a_class = any(result.alarms.without_class for result in report.losses)
    shown = {result.loss: result.loss + _LEAKAGE_MARK * result.leakage for result in report.losses}
    return [
        {
            f"{shown[report.reference]} minus": shown[pair.loss],
            "Δ Dice": f"{pair.difference.difference:+.4f}",
            "95 % CI": _interval(pair.difference.ci_low, pair.difference.ci_high, "+.4f"),
            "SE": "–" if pair.difference.se is None else f"{pair.difference.se:.4f}",
            "win/tie/loss": f"{pair.difference.wins}/{pair.difference.ties}/{pair.difference.losses}",
            "p": p_text(pair.difference.p),
            "p (Holm)": p_text(pair.p_holm),
            "r": f"{pair.difference.rank_biserial:+.2f}",
            "false alarms": f"{pair.reference_false_alarms} : {pair.false_alarms}" if some_lack_a_class else "–",
        }
        for pair in report.pairs
    ]


def claim_rows(report: Report) -> list[Row]:
    """One row per pair, for people: what the claim risks that the reference is better."""
    shown = {result.loss: result.loss + _LEAKAGE_MARK * result.leakage for result in report.losses}
    return [
        {
            f"{shown[report.reference]} against": shown[pair.loss],
            "false claim": _percent(pair.against.false_claim),
            f"better / same / worse by {report.statistics.rope:g}": _relevance(pair),
            "smallest difference": "–" if pair.against.power is None else f"{pair.against.power.smallest:.3f}",
        }
        for pair in report.pairs
    ]


def markdown(report: Report) -> str:
    """The text of ``table.md``."""
    parts = [f"# {_escaped(report.title)}", _markdown_table(summary_rows(report))]
    if report.findings:
        parts.append("\n\n".join(map(_escaped, report.findings)))
    if report.pairs:
        parts += [
            f"## {_escaped(report.reference)} against the others, paired by subject",
            _markdown_table(comparison_rows(report)),
            _markdown_table(claim_rows(report)),
        ]
    formulas = "\n".join(f"- **{_escaped(r.loss)}**: `{r.formula}` ({_escaped(r.origin)})" for r in report.losses)
    notes = "\n".join(f"- {_escaped(note)}" for note in (*([report.leakage] if report.leakage else []), *report.notes))
    return "\n\n".join([*parts, "## Losses", formulas, "## Notes", notes]) + "\n"


def summary_csv(report: Report) -> str:
    """The text of ``summary.csv``."""
    return csv_text(_LOSS_COLUMNS, (_flat(asdict(result), "dice", "alarms") for result in report.losses))


def comparisons_csv(report: Report) -> str:
    """The text of ``comparisons.csv``."""
    return csv_text(_PAIR_COLUMNS, map(_pair, report.pairs))


def pairs_csv(report: Report) -> str:
    """The text of ``pairs.csv``: every pair of losses, the better mean first."""
    nemenyi = report.statistics.friedman.nemenyi if report.statistics.friedman else {}
    return csv_text(
        _ALL_PAIRS_COLUMNS,
        (
            {
                **_flat(asdict(pair), "relevance", prefix="p_"),
                "p_nemenyi": nemenyi[pair.better][pair.worse] if nemenyi else None,
            }
            for pair in report.statistics.pairs
        ),
    )


def ranks_csv(report: Report) -> str:
    """The text of ``ranks.csv``: each loss's rank, its interval, its average rank, and the share of each rank."""
    ranking, test = report.statistics.ranking, report.statistics.friedman
    ranks = ranking.ranks if ranking else {}
    columns = [f"share_{rank}" for rank in range(1, len(ranks) + 1)]
    return csv_text(
        (*_RANK_COLUMNS, *columns),
        (
            {
                "loss": loss,
                **asdict(rank),
                "average_rank": test.average_ranks[loss] if test else None,
                **dict(zip(columns, rank.shares, strict=True)),
            }
            for loss, rank in ranks.items()
        ),
    )


def to_document(report: Report) -> dict[str, Any]:
    """The whole report as plain data: ``summary.json``."""
    return {
        "title": report.title,
        "lossevo": lossevo.__version__,
        "leakage": bool(report.leakage),
        "protocol": _protocol(report),
        "losses": [_flat(asdict(result), "dice", "alarms") for result in report.losses],
        "reference": report.reference,
        "comparisons": [_pair(pair) for pair in report.pairs],
        "findings": list(report.findings),
        "statistics": _statistics(report),
        "notes": [*([report.leakage] if report.leakage else []), *report.notes],
    }


def _flat(document: dict[str, Any], *keys: str, prefix: str = "") -> dict[str, Any]:
    for key in keys:
        document |= {f"{prefix}{name}": value for name, value in (document.pop(key) or {}).items()}
    return document


def _pair(pair: PairResult) -> dict[str, Any]:
    """A pair with the reference as flat data."""
    against, (chances, power) = pair.against, (pair.against.relevance, pair.against.power)
    document = asdict(pair)
    del document["against"]
    return {
        **_flat(document, "difference"),
        "false_claim": against.false_claim,
        "p_better": chances.better if chances else None,
        "p_equivalent": chances.equivalent if chances else None,
        "p_worse": chances.worse if chances else None,
        "smallest_difference": power.smallest if power else None,
        "subjects_needed": power.subjects_needed if power else None,
        "seeds_needed": power.seeds_needed if power else None,
    }


def _protocol(report: Report) -> dict[str, Any]:
    protocol = report.protocol
    document = {field.name: getattr(protocol, field.name) for field in fields(protocol)}
    document["registry"] = str(protocol.registry) if protocol.registry else None
    document["earlier"] = [look.model_dump(mode="json") for look in protocol.earlier]
    return document


def _statistics(report: Report) -> dict[str, Any]:
    """All of it; what stands with the pairs of the reference is not repeated, but what their power rests on is."""
    document = asdict(report.statistics)
    against = document.pop("against")
    return {**document, "power": {loss: values["power"] for loss, values in against.items()}}


def _rank(report: Report, loss: str) -> str:
    """``2 [1, 4]``; a dash where there is no ranking."""
    ranking = report.statistics.ranking
    if ranking is None:
        return "–"
    rank = ranking.ranks[loss]
    return f"{rank.rank} [{rank.ci_low:g}, {rank.ci_high:g}]"


def _percent(share: float | None) -> str:
    """Whole percents, and none of less or more than 0.1 or 99.9."""
    if share is None:
        return "–"
    if share < 0.001:
        return "<0.1 %"
    if share > 0.999:
        return ">99.9 %"
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _relevance(pair: PairResult) -> str:
    chances = pair.against.relevance
    if chances is None:
        return "–"
    return " / ".join(f"{100 * share:.0f}" for share in (chances.better, chances.equivalent, chances.worse)) + " %"


def _alarms(alarms: FalseAlarms) -> str:
    """``3/16 (0.42 ml)``; a dash where every label has every class."""
    if alarms.false_ml is None:
        return "–"
    volume = f"{alarms.false_ml:.2g}" if alarms.false_ml < 10 else f"{alarms.false_ml:.0f}"
    return f"{alarms.false_alarms}/{alarms.without_class} ({volume} ml)"


def _plus_minus(mean: float, sd: float | None) -> str:
    return f"{mean:.3f}" if sd is None else f"{mean:.3f} ± {sd:.3f}"


def _interval(low: float | None, high: float | None, form: str) -> str:
    return "–" if low is None or high is None else f"[{low:{form}}, {high:{form}}]"


def _markdown_table(rows: Sequence[Row]) -> str:
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    header, *body = [f"| {' | '.join(map(_escaped, cells))} |" for cells in lines]
    rule = "| --- |" + " --: |" * (len(rows[0]) - 1)
    return "\n".join([header, rule, *body])


def _escaped(text: str) -> str:
    for sign in "\\|*_<>":
        text = text.replace(sign, f"\\{sign}")
    return text
