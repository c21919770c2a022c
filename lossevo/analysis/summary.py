"""The analysis in one row per loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lossevo.analysis.analysis import Analysis

if TYPE_CHECKING:
    import pandas as pd


def summary(analysis: Analysis) -> pd.DataFrame:
    """One row per loss, in order.

    Columns: ``loss``, ``family``, ``formula``, ``source``; the foreground's share of the gradient as
    ``untrained_1`` … ``trained_20`` (stage and percentage of foreground); responses as ``shift``, ``missing`` and
    ``false``; ``milliseconds`` and ``saved_per_input_byte``; and ``best_p``, the probability at which the value for a
    foreground voxel is lowest.
    """
    import pandas as pd

    rows = pd.DataFrame(
        [
            {"loss": loss.name, "family": loss.family, "formula": loss.formula, "source": loss.source}
            for loss in analysis.losses
        ]
    ).set_index("loss")
    shares = analysis.shares.assign(
        column=[
            f"{stage}_{round(100 * foreground)}"
            for stage, foreground in zip(analysis.shares["stage"], analysis.shares["foreground"], strict=True)
        ]
    )
    foreground = analysis.profiles[analysis.profiles["target"] == 1]
    # Of several lowest values the one at the largest p: a loss that is content at p = 0.3 does not avoid certainty.
    ranked = foreground.dropna(subset="value").assign(value=foreground["value"].round(9))
    lowest = ranked.sort_values(["value", "p"], ascending=[True, False]).drop_duplicates("loss")
    parts: list[pd.DataFrame | pd.Series[float]] = [
        _wide(shares, "column", "share"),
        _wide(analysis.responses, "change", "response"),
        analysis.costs.set_index("loss")[["milliseconds", "saved_per_input_byte"]],
        lowest.set_index("loss")[["p"]].rename(columns={"p": "best_p"}),
    ]
    return rows.join(parts).reset_index()


def _wide(table: pd.DataFrame, columns: str, values: str) -> pd.DataFrame:
    """One row per loss, and one column for each of ``columns``, in the order of the table."""
    return table.pivot(index="loss", columns=columns, values=values)[list(dict.fromkeys(table[columns]))]
