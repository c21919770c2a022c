"""A report as tables for people: rows of text for a terminal, and Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from lossevo.comparison.data_use import size_told
from lossevo.comparison.findings import p_text
from lossevo.comparison.fractions import WHOLE
from lossevo.comparison.notes import with_unit
from lossevo.comparison.report import MetricResult, PairResult, Report
from lossevo.comparison.scores import FalseAlarms
from lossevo.comparison.statistics import Mean, PairedDifference
from lossevo.markdown import escaped, table
from lossevo.metrics import Metric

Row = Mapping[str, str]

_LEAKAGE_MARK = " (leakage)"
_SPEED_NOTE = (
    "Steps to a share of the best hand-crafted loss's final Dice, of the mean over folds and seeds at the working "
    "spacing. With the one-cycle schedule all losses rise late, as its learning rate falls."
)


def summary_rows(report: Report) -> list[Row]:
    """One row per loss: all metrics, the main one with its interval and rank."""
    main = report.main
    return [
        {
            "loss": result.loss + _LEAKAGE_MARK * result.leakage,
            f"{main.metric.heading} mean ± SD": _plus_minus(main.score(result.loss), main.metric),
            "95 % CI": _interval(main.score(result.loss), _decimals(main.metric)),
            "rank": _rank(main, result.loss),
            **{
                found.metric.heading: _plus_minus(found.score(result.loss), found.metric)
                for found in report.results[1:]
            },
            "subjects": str(main.score(result.loss).subjects),
            "false alarms": _alarms(result.alarms),
            "failed": f"{result.failures}/{result.trainings}",
        }
        for result in report.losses
    ]


def comparison_rows(report: Report, result: MetricResult) -> list[Row]:
    """One row per pair in one metric."""
    alarms = {loss.loss: loss.alarms for loss in report.losses}
    some_lack_a_class = any(found.without_class for found in alarms.values())
    shown = _shown(report)
    decimals = _decimals(result.metric) + 1
    return [
        {
            f"{shown[report.reference]} better than": shown[pair.loss],
            f"Δ {result.metric.heading}": f"{pair.difference.difference:+.{decimals}f}",
            "95 % CI": _interval(pair.difference, decimals, "+"),
            "SE": "–" if pair.difference.se is None else f"{pair.difference.se:.{decimals}f}",
            "win/tie/loss": f"{pair.difference.wins}/{pair.difference.ties}/{pair.difference.losses}",
            "p": p_text(pair.difference.p),
            "p (Holm)": p_text(pair.p_holm),
            "r": f"{pair.difference.rank_biserial:+.2f}",
            "false alarms": f"{alarms[pair.reference].false_alarms} : {alarms[pair.loss].false_alarms}"
            if some_lack_a_class
            else "–",
        }
        for pair in result.pairs
    ]


def claim_rows(report: Report, result: MetricResult) -> list[Row]:
    """One row per pair in one metric: what the claim risks that the reference is better."""
    shown, metric = _shown(report), result.metric
    return [
        {
            f"{shown[report.reference]} against": shown[pair.loss],
            "false claim": _percent(pair.against.false_claim),
            f"better / same / worse by {with_unit(result.statistics.rope, metric)}": _relevance(pair),
            "smallest difference": "–"
            if pair.against.power is None
            else f"{pair.against.power.smallest:.{_decimals(metric)}f} {metric.unit}".rstrip(),
        }
        for pair in result.pairs
    ]


def structure_rows(report: Report, result: MetricResult) -> list[Row]:
    """One row per loss: its mean in one metric on each class alone; nothing if there is one class."""
    found = {(one.class_name, one.loss): one for one in report.structures if one.metric == result.metric.name}
    classes = list(dict.fromkeys(name for name, _ in found))
    if not classes:
        return []
    return [
        {
            "loss": _shown(report)[score.loss],
            **{name: f"{found[name, score.loss].mean:.{_decimals(result.metric)}f}" for name in classes},
        }
        for score in result.losses
    ]


def speed_rows(report: Report) -> list[Row]:
    """One row per loss: how fast it trains; nothing if trainings were validated at their end alone."""
    return [
        {
            "loss": _shown(report)[speed.loss],
            "mean Dice over the steps": f"{speed.area:.3f}",
            **{
                f"steps to {100 * share:g} %": "–" if step is None else str(step)
                for share, step in speed.steps_to.items()
            },
            "Dice at the end": f"{speed.curve[-1][1]:.3f}",
        }
        for speed in report.speeds
    ]


def fraction_rows(report: Report, metric: Metric) -> list[Row]:
    """One row per loss: its mean in a metric with each fraction of the training subjects; nothing if there is none."""
    if report.data_use is None:
        return []
    found = report.data_use.of(metric.name)
    rows: list[Row] = []
    for result in report.losses:
        scores = found[result.loss]
        row = {"loss": _shown(report)[result.loss]}
        for fraction, score in scores.items():
            se = "" if score.se is None else f" ± {score.se:.{_decimals(metric)}f}"
            share = "" if score.share_of_whole is None or fraction == WHOLE else f" ({score.share_of_whole:.0%})"
            row[f"{fraction:g}: {size_told(score)}"] = f"{score.mean:.{_decimals(metric)}f}{se}{share}"
        row["rank"] = " → ".join(str(score.rank) for score in scores.values())
        row["failed"] = (
            f"{sum(one.failures for one in scores.values())}/{sum(one.trainings for one in scores.values())}"
        )
        rows.append(row)
    return rows


def fraction_title(metric: Metric) -> str:
    """Of the table by :func:`fraction_rows`."""
    share = " (of that with all)" if metric.higher_is_better else ""
    return f"{metric.heading} by the share of the training subjects, mean ± SE{share}; rank from the smallest share on"


def verdicts(report: Report) -> list[str]:
    """What each metric but the main one says, in a sentence."""
    return [f"By {result.metric.label}: {result.findings[0]}" for result in report.results[1:] if result.findings]


def markdown(report: Report) -> str:
    """The text of ``table.md``."""
    parts = [f"# {escaped(report.title)}", table(summary_rows(report))]
    for result in report.results:
        if not result.findings and not result.pairs:
            continue
        main = ", the main metric" if result is report.main and len(report.results) > 1 else ""
        parts.append(f"## {escaped(result.metric.heading)}{main}")
        parts.append("\n\n".join(map(escaped, result.findings)))
        if result.pairs:
            parts += [
                f"{escaped(report.reference)} against the others, paired by subject:",
                table(comparison_rows(report, result)),
                table(claim_rows(report, result)),
            ]
    for result in report.results:
        if rows := structure_rows(report, result):
            parts += [f"## {escaped(result.metric.heading)} of each structure", table(rows)]
    if report.speeds:
        parts += ["## Training speed", _SPEED_NOTE, table(speed_rows(report))]
    if report.data_use:
        parts += ["## Data utilisation", escaped(report.data_use.finding)]
        for result in report.results:
            parts += [escaped(fraction_title(result.metric)), table(fraction_rows(report, result.metric))]
    formulas = "\n".join(f"- **{escaped(r.loss)}**: `{r.formula}` ({escaped(r.origin)})" for r in report.losses)
    notes = "\n".join(f"- {escaped(note)}" for note in (*([report.leakage] if report.leakage else []), *report.notes))
    return "\n\n".join([*parts, "## Losses", formulas, "## Notes", notes]) + "\n"


def _shown(report: Report) -> dict[str, str]:
    return {result.loss: result.loss + _LEAKAGE_MARK * result.leakage for result in report.losses}


def _decimals(metric: Metric) -> int:
    """Of a value: a thousandth of a share, a hundredth of anything that has a unit."""
    return 2 if metric.unit else 3


def _rank(result: MetricResult, loss: str) -> str:
    """``2 [1, 4]``; a dash where there is no ranking."""
    ranking = result.statistics.ranking
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
    if share < 0.1:
        return f"{100 * share:.2g} %"
    return f"{100 * share:.3g} %" if share > 0.99 else f"{100 * share:.0f} %"


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


def _plus_minus(score: Mean, metric: Metric) -> str:
    decimals = _decimals(metric)
    sd = "" if score.sd is None else f" ± {score.sd:.{decimals}f}"
    return f"{score.mean:.{decimals}f}{sd}"


def _interval(found: Mean | PairedDifference, decimals: int, sign: str = "") -> str:
    low, high = found.ci_low, found.ci_high
    return "–" if low is None or high is None else f"[{low:{sign}.{decimals}f}, {high:{sign}.{decimals}f}]"
