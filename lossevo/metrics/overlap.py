"""Overlap of a predicted label volume with the reference.

Whether a class of a case has a Dice is decided by the reference alone, so it is the same for every loss: a class that
the reference lacks has none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def dice_per_class(
    prediction: NDArray[np.uint8], label: NDArray[np.uint8], class_count: int
) -> tuple[float | None, ...]:
    r"""Dice coefficient :math:`2|P_c \cap L_c| / (|P_c| + |L_c|)` of each foreground class c = 1 … class_count - 1.

    Args:
        prediction: integer labels below ``class_count``, any shape.
        label: integer labels below ``class_count``, same shape: the reference.
        class_count: number of classes, background (0) included.

    Returns:
        One value per foreground class: None where ``label`` lacks the class, whatever is predicted.

    Raises:
        ValueError: shapes differ, or a label is below 0 or not below ``class_count``.
    """
    confusion = _confusion(prediction, label, class_count)
    overlap, labelled, predicted = np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return tuple(
        2 * int(overlap[c]) / int(labelled[c] + predicted[c]) if labelled[c] else None for c in range(1, class_count)
    )


def _confusion(prediction: NDArray[np.uint8], label: NDArray[np.uint8], class_count: int) -> NDArray[np.int64]:
    """How many voxels of each class of the label (rows) are predicted as each class (columns)."""
    if prediction.shape != label.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, label {label.shape}")
    if min(prediction.min(initial=0), label.min(initial=0)) < 0:
        raise ValueError(f"labels reach down to {min(prediction.min(), label.min())}, expected 0 or more")
    pairs = label.astype(np.intp).ravel() * class_count + prediction.ravel()
    counts = np.bincount(pairs, minlength=class_count**2)
    if counts.size > class_count**2 or int(prediction.max(initial=0)) >= class_count:
        raise ValueError(f"labels reach {max(prediction.max(), label.max())}, expected less than {class_count}")
    return counts.reshape(class_count, class_count)
