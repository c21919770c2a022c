"""Predicted structures that the border cuts off, where the label does not reach it."""

from __future__ import annotations

from collections.abc import Iterable

from lossevo.comparison.provenance import named
from lossevo.comparison.scores import CaseScore

_LOSSES_TOLD = 5


def borders_told(scores: Iterable[CaseScore]) -> list[str]:
    """A note on the cases in which a loss predicts a structure up to the border alone; none if there is none."""
    everyone: set[str] = set()
    by_loss: dict[str, set[str]] = {}
    classes: set[str] = set()
    for score in scores:
        everyone.add(score.case)
        if score.cut_off:
            by_loss.setdefault(score.loss, set()).add(score.case)
            classes.add(score.class_name)
    if not by_loss:
        return []
    most = sorted(by_loss, key=lambda loss: -len(by_loss[loss]))
    told = ", ".join(f"{loss} in {len(by_loss[loss])}" for loss in most[:_LOSSES_TOLD])
    more = f", and {len(most) - _LOSSES_TOLD} more losses" if len(most) > _LOSSES_TOLD else ""
    cases = set.union(*by_loss.values())
    return [
        f"At the border: in {len(cases)} of {len(everyone)} tested cases ({named(cases)}) a prediction of "
        f"{named(classes)} reaches the border of the image, or of the box that it was cropped to, and the label does "
        f"not ({told}{more}). What would lie beyond is cut off, so surface distances there are too short. Look at "
        "these cases before you trust them; with 'crop: body' in the task compare again with 'crop: none'."
    ]
