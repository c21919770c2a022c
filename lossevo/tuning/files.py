"""Results of tunings as files: YAML for ``lossevo evaluate --specs``, CSV for programs, Markdown for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import yaml

from lossevo.csv_files import csv_text
from lossevo.experiment.folder import write_json, write_text
from lossevo.markdown import escaped, table
from lossevo.tuning.course import Confirmed
from lossevo.tuning.result import TuningResult

Row = Mapping[str, str]

TUNED_IN: Final = "tuned_in"
"""Key of a tuned loss in a file of specifications: the folder of its tuning, as seen from the file."""
_TRIAL_COLUMNS = ("loss", "fold", "number", "confirms", "values", "seed", "step", "utility", "state")
_SENSITIVITY_COLUMNS = (
    *("loss", "fold", "parameter", "low", "high", "untuned", "tuned", "importance"),
    *("best_quarter_low", "best_quarter_high"),
)
_CONFIRMED_COLUMNS = ("loss", "fold", "number", "values", "seeds", "utility", "standard_error")


def write_files(folder: Path, results: Sequence[TuningResult]) -> None:
    """Write ``table.md``, ``summary.json``, ``confirmed.csv``, ``sensitivity.csv`` and ``trials.csv``.

    Raises:
        LossevoError: a file cannot be written.
    """
    write_text(folder / "trials.csv", trials_csv(results))
    write_text(folder / "confirmed.csv", confirmed_csv(results))
    write_text(folder / "sensitivity.csv", sensitivity_csv(results))
    write_text(folder / "table.md", markdown(results))
    write_json(folder / "summary.json", to_document(results))


def specs_yaml(result: TuningResult) -> str:
    """The tuned loss as a file for ``lossevo evaluate --specs``, to lie in the folder of its tuning."""
    document: dict[str, Any] = {"name": result.spec["name"]}
    if parameters := result.spec.get("parameters"):
        document["parameters"] = dict(parameters)
    if result.learning_rate is not None:
        document["learning_rate"] = result.learning_rate
    document[TUNED_IN] = "."
    text = yaml.safe_dump({f"{result.name}_tuned": document}, sort_keys=False, default_flow_style=None)
    return (
        "# Written by 'lossevo tune', for 'lossevo evaluate --specs'. Its folder says whom the loss was tuned on.\n"
        f"{text}"
    )


def trials_csv(results: Sequence[TuningResult]) -> str:
    """The text of ``trials.csv``: each training, with its utility at each rung that it reached; one row without any if
    it was lost before the first.
    """
    return csv_text(
        _TRIAL_COLUMNS,
        (
            {
                "loss": result.name,
                "fold": result.fold,
                "number": attempt.number,
                "confirms": attempt.confirms,
                "values": str(attempt),
                "seed": attempt.seed,
                "step": step,
                "utility": utility,
                "state": attempt.state if step == max(attempt.utilities, default=None) else "open",
            }
            for result in results
            for attempt in result.attempts
            for step, utility in attempt.utilities.items() or [(None, None)]
        ),
    )


def sensitivity_csv(results: Sequence[TuningResult]) -> str:
    """The text of ``sensitivity.csv``: each value that was tuned."""
    return csv_text(
        _SENSITIVITY_COLUMNS,
        (
            {
                "loss": result.name,
                "fold": result.fold,
                "parameter": found.name,
                "low": found.low,
                "high": found.high,
                "untuned": found.untuned,
                "tuned": found.tuned,
                "importance": found.importance,
                "best_quarter_low": found.best[0] if found.best else None,
                "best_quarter_high": found.best[1] if found.best else None,
            }
            for result in results
            for found in result.sensitivities
        ),
    )


def confirmed_csv(results: Sequence[TuningResult]) -> str:
    """The text of ``confirmed.csv``: the values that were trained again with fresh seeds, best first."""
    return csv_text(
        _CONFIRMED_COLUMNS,
        (
            {
                "loss": result.name,
                "fold": result.fold,
                "number": entry.number,
                "values": str(entry),
                "seeds": len(entry.utilities),
                "utility": entry.mean,
                "standard_error": entry.standard_error,
            }
            for result in results
            for entry in result.confirmed
        ),
    )


def to_document(results: Sequence[TuningResult]) -> dict[str, Any]:
    """All results as JSON."""
    return {
        "losses": [
            {
                "loss": result.name,
                "fold": result.fold,
                "objective": result.scoring.objective.name,
                "spec": dict(result.spec),
                "learning_rate": result.learning_rate,
                "kept": _document(result.kept),
                "untuned": _document(result.untuned) if result.untuned else None,
                "gain": dict(zip(("mean", "standard_error"), map(_number, result.gain), strict=True))
                if result.gain
                else None,
                "rungs": [{"step": step, "kendall_tau": _number(tau)} for step, tau in result.rungs.items()],
                "sensitivities": [asdict(found) for found in result.sensitivities],
            }
            for result in results
        ]
    }


def result_rows(results: Sequence[TuningResult]) -> list[Row]:
    """One row for each tuned loss: what it scores untuned and tuned, by fresh seeds."""
    return [
        {
            "loss": result.label,
            f"{result.scoring.objective.title} untuned ± SE": _plus_minus(result, result.untuned),
            "tuned ± SE": _plus_minus(result, result.kept),
            "gain ± SE": _gain(result),
            "values kept": str(result.kept) + (" (untuned)" if result.kept is result.untuned else ""),
        }
        for result in results
    ]


def sensitivity_rows(results: Sequence[TuningResult]) -> list[Row]:
    """One row for each value that was tuned."""
    return [
        {
            "loss": result.label,
            "parameter": found.name,
            "searched": f"{found.low:g} to {found.high:g}",
            "untuned": f"{found.untuned:g}",
            "tuned": f"{found.tuned:g}",
            "best quarter": f"{found.best[0]:g} to {found.best[1]:g}" if found.best else "–",
            "importance": "–" if found.importance is None else f"{found.importance:.0%}",
        }
        for result in results
        for found in result.sensitivities
    ]


def notes(results: Sequence[TuningResult]) -> list[str]:
    """What a reader has to know of the numbers."""
    seeds = max(len(result.kept.utilities) for result in results)
    found = [
        f"Untuned and tuned are means over {seeds} trainings with fresh seeds on the validation subjects. The values "
        "were chosen among those so confirmed, on the same subjects: a comparison on other subjects tells what they "
        "are worth.",
        "Importance: PED-ANOVA, the share of a value in how the best quarter of those tried differs from all.",
    ]
    taus = {
        result.label: ", ".join(f"{tau:.2f} at step {step}" for step, tau in result.rungs.items())
        for result in results
        if result.rungs and not any(map(math.isnan, result.rungs.values()))
    }
    if taus:
        told_taus = "; ".join(f"{label} {text}" for label, text in taus.items())
        found.append(
            f"Kendall's τ between scores at a rung and at the end, over the trainings of the first wave: {told_taus}. "
            "Where it is low, trainings were ended early for little reason."
        )
    return found


def markdown(results: Sequence[TuningResult]) -> str:
    """The text of ``table.md``."""
    told = "\n".join(f"- {escaped(note)}" for note in notes(results))
    return "\n\n".join([table(result_rows(results)), table(sensitivity_rows(results)), told]) + "\n"


def _plus_minus(result: TuningResult, entry: Confirmed | None) -> str:
    if entry is None:
        return "–"
    return f"{result.scoring.objective.displayed(entry.mean):.4f} ± {_error(entry.standard_error)}"


def _gain(result: TuningResult) -> str:
    if result.gain is None:
        return "–"
    mean, error = result.gain
    return f"{mean:+.4f} ± {_error(error)}"


def _error(standard_error: float) -> str:
    return "–" if math.isnan(standard_error) else f"{standard_error:.4f}"


def _document(entry: Confirmed) -> dict[str, Any]:
    return {
        "values": dict(entry.values),
        "utilities": list(entry.utilities),
        "mean": entry.mean,
        "standard_error": _number(entry.standard_error),
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
