"""All files that a finished comparison writes beside its record."""

from __future__ import annotations

from pathlib import Path

from lossevo.comparison import result_files
from lossevo.comparison.collected import Collected
from lossevo.comparison.data_use import fractions_csv
from lossevo.comparison.report import Report
from lossevo.comparison.score_tables import challenger_csv, claims_reloaded_csv
from lossevo.comparison.speed import curves_csv, speed_csv
from lossevo.comparison.structures import structures_csv
from lossevo.comparison.tables import markdown
from lossevo.comparison.trajectories import trajectories_csv
from lossevo.experiment.folder import write_json, write_text


def write_outputs(folder: Path, found: Collected, report: Report) -> None:
    """Write them into the comparison's folder, in place of earlier ones.

    Raises:
        LossevoError: a file cannot be written.
    """
    metrics, scores = report.protocol.metrics, found.scores
    found.write(folder)
    write_text(folder / "summary.csv", result_files.summary_csv(report))
    write_text(folder / "comparisons.csv", result_files.comparisons_csv(report))
    write_text(folder / "pairs.csv", result_files.pairs_csv(report))
    write_text(folder / "ranks.csv", result_files.ranks_csv(report))
    write_text(folder / "challenger.csv", challenger_csv(scores, report.protocol.cohort, metrics))
    write_text(folder / "claims_reloaded.csv", claims_reloaded_csv(scores, metrics))
    write_text(folder / "table.md", markdown(report))
    write_json(folder / "summary.json", result_files.to_document(report))
    if report.structures:
        write_text(folder / "structures.csv", structures_csv(report.structures))
    if report.speeds:
        write_text(folder / "speed.csv", speed_csv(report.speeds))
        write_text(folder / "curves.csv", curves_csv(found.curves))
    if report.data_use:
        write_text(folder / "fractions.csv", fractions_csv(report.data_use))
        found.write(folder, min(found.fractions))
    if report.trajectories:
        write_text(folder / "trajectories.csv", trajectories_csv(report.trajectories))
