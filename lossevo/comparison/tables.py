"""A report as tables: rows of text for a terminal, Markdown, CSV, and one JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import lossevo
from lossevo.comparison.report import Report
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
)
_LEAKAGE_MARK = " (leakage)"


def summary_rows(report: Report) -> list[Row]:
    """One row per loss, for people."""
    return [
        {
            "loss": result.loss + _LEAKAGE_MARK * result.leakage,
            "Dice mean ± SD": _plus_minus(result.dice.mean, result.dice.sd),
            "95 % CI": _interval(result.dice.ci_low, result.dice.ci_high, ".3f"),
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


def markdown(report: Report) -> str:
    """The text of ``table.md``."""
    parts = [f"# {_escaped(report.title)}", _markdown_table(summary_rows(report))]
    if report.pairs:
        parts += [
            f"## {_escaped(report.reference)} against the others, paired by subject",
            _markdown_table(comparison_rows(report)),
        ]
    formulas = "\n".join(f"- **{_escaped(r.loss)}**: `{r.formula}` ({_escaped(r.origin)})" for r in report.losses)
    notes = "\n".join(f"- {_escaped(note)}" for note in (*([report.leakage] if report.leakage else []), *report.notes))
    return "\n\n".join([*parts, "## Losses", formulas, "## Notes", notes]) + "\n"


def summary_csv(report: Report) -> str:
    """The text of ``summary.csv``."""
    return csv_text(_LOSS_COLUMNS, (_flat(asdict(result), "dice", "alarms") for result in report.losses))


def comparisons_csv(report: Report) -> str:
    """The text of ``comparisons.csv``."""
    return csv_text(_PAIR_COLUMNS, (_flat(asdict(pair), "difference") for pair in report.pairs))


def to_document(report: Report) -> dict[str, Any]:
    """The whole report as plain data: ``summary.json``."""
    return {
        "title": report.title,
        "lossevo": lossevo.__version__,
        "leakage": bool(report.leakage),
        "protocol": asdict(report.protocol),
        "losses": [_flat(asdict(result), "dice", "alarms") for result in report.losses],
        "reference": report.reference,
        "comparisons": [_flat(asdict(pair), "difference") for pair in report.pairs],
        "notes": [*([report.leakage] if report.leakage else []), *report.notes],
    }


def p_text(p: float) -> str:
    """Two significant digits, and none below 0.001."""
    return "<0.001" if p < 0.001 else f"{p:.2g}"


def _flat(document: dict[str, Any], *keys: str) -> dict[str, Any]:
    for key in keys:
        document |= document.pop(key)
    return document


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
