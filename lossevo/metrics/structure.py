"""One class of one case, predicted and in the reference: the boxes around it, its volumes, overlap and distances."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lossevo.metrics.field_of_view import FieldOfView
from lossevo.metrics.metric import DETECTION_IOU, Metric
from lossevo.metrics.surface import SurfaceDistances, surface_distances

Box = tuple[slice, ...]


class Structure:
    """A class in a prediction and in its reference.

    Args:
        prediction, reference: integer labels of one shape.
        label: the class.
        boxes: where the class lies in the prediction and in the reference; None where it does not.
        view: shape and voxel size of the image.
    """

    def __init__(
        self,
        prediction: NDArray[np.integer],
        reference: NDArray[np.integer],
        label: int,
        boxes: tuple[Box | None, Box | None],
        view: FieldOfView,
    ) -> None:
        box = _around([box for box in boxes if box is not None])
        self._predicted, self._actual = prediction[box] == label, reference[box] == label
        self.predicted_voxels = int(np.count_nonzero(self._predicted))
        self.reference_voxels = int(np.count_nonzero(self._actual))
        self.view = view

    @property
    def predicted_ml(self) -> float:
        """Volume of the class in the prediction."""
        return self.predicted_voxels * self.view.voxel_ml

    @property
    def reference_ml(self) -> float:
        """Volume of the class in the reference."""
        return self.reference_voxels * self.view.voxel_ml

    @cached_property
    def common_voxels(self) -> int:
        """Voxels of the class in both."""
        return int(np.count_nonzero(self._predicted & self._actual))

    @cached_property
    def distances(self) -> SurfaceDistances:
        """Between both surfaces: computed once, for every metric that needs them."""
        return surface_distances(self._predicted, self._actual, self.view.spacing_mm)

    def value(self, metric: Metric) -> float:
        """A metric by its formula, of a class that both have."""
        together = self.predicted_voxels + self.reference_voxels
        match metric.kind, metric.tolerance_mm:
            case "dice", None:
                return 2 * self.common_voxels / together
            case "nsd", float(tolerance_mm):
                return self.distances.nsd(tolerance_mm)
            case "hd95", None:
                return self.distances.hd95()
            case "hd", None:
                return self.distances.hd()
            case "assd", None:
                return self.distances.assd()
            case "volume_error", None:
                return abs(self.predicted_ml - self.reference_ml)
            case "volume_error_percent", None:
                return 100 * abs(self.predicted_voxels - self.reference_voxels) / self.reference_voxels
            case "detection", None:
                return float(self.common_voxels >= DETECTION_IOU * (together - self.common_voxels))
        raise ValueError(f"no formula for metric {metric.name}")


def _around(boxes: list[Box]) -> Box:
    """The smallest box around others; of none, an empty one."""
    if not boxes:
        return (slice(0, 0),)
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides)) for sides in zip(*boxes, strict=True)
    )
