"""A consensus as tables, plain data and files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lossevo.comparison.consensus import Consensus, MetricConsensus
from lossevo.csv_files import csv_text
from lossevo.errors import LossevoError
from lossevo.experiment.folder import write_json, write_text
from lossevo.markdown import table


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
        parts += [f"## {result.metric.heading}", table(consensus_rows(found, result))]
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
