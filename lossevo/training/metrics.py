"""Overlap of a predicted label volume with the true one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def dice_per_class(
    prediction: NDArray[np.uint8], label: NDArray[np.uint8], class_count: int
) -> tuple[float | None, ...]:
    r"""Dice coefficient :math:`2|P_c \cap L_c| / (|P_c| + |L_c|)` of each foreground class c = 1 … class_count - 1.

    Args:
        prediction: integer labels below ``class_count``, any shape.
        label: integer labels below ``class_count``, same shape.
        class_count: number of classes, background (0) included.

    Returns:
        One value per foreground class: 0 when only one of the two has the class, None when neither has.

    Raises:
        ValueError: shapes differ, or a label is not below ``class_count``.
    """
    if prediction.shape != label.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, label {label.shape}")
    pairs = label.astype(np.intp).ravel() * class_count + prediction.ravel()
    confusion = np.bincount(pairs, minlength=class_count**2)
    if confusion.size > class_count**2 or int(prediction.max(initial=0)) >= class_count:
        raise ValueError(f"labels reach {max(prediction.max(), label.max())}, expected less than {class_count}")
    confusion = confusion.reshape(class_count, class_count)
    overlap, total = np.diagonal(confusion), confusion.sum(axis=0) + confusion.sum(axis=1)
    return tuple(2 * int(overlap[c]) / int(total[c]) if total[c] else None for c in range(1, class_count))


def mean_dice(cases: Iterable[Iterable[float | None]]) -> float:
    """Mean over classes within each case, then over cases; classes that are None count in neither.

    Raises:
        ValueError: no case has a defined class.
    """
    defined = ([dice for dice in case if dice is not None] for case in cases)
    means = [sum(values) / len(values) for values in defined if values]
    if not means:
        raise ValueError("no case has foreground, neither predicted nor labelled: its Dice is undefined")
    return sum(means) / len(means)
