"""Whether the border of the image, or of the part of it that was predicted, cuts a predicted structure off."""

from __future__ import annotations

from lossevo.metrics.structure import Box


def is_cut_off(prediction: Box | None, reference: Box | None, field: Box) -> bool:
    """Whether a class reaches a face of ``field`` in the prediction, and not in the reference.

    Where the reference reaches the face, too, the image itself ends within the structure, for every loss alike. A class
    that one of both lacks is not looked at: no distance is measured there.

    Args:
        prediction: the box around the class in the prediction; None where it is not.
        reference: the same in the reference.
        field: what could be predicted; beyond it all is background.
    """
    if prediction is None or reference is None:
        return False
    return any(
        ours.start <= side.start < theirs.start or theirs.stop < side.stop <= ours.stop
        for ours, theirs, side in zip(prediction, reference, field, strict=True)
    )
