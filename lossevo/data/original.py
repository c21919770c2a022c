"""The label of a case on its image's own grid, held compressed: what a comparison measures a prediction against."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lossevo.data.body import Box
from lossevo.data.cohort import Volume
from lossevo.data.resampling import Spacing
from lossevo.errors import ResumableError


@dataclass(frozen=True, slots=True)
class OriginalLabel:
    """A label before it was cropped and resampled, axes running to the patient's right, anterior and superior (RAS).

    Labels shrink by zlib 50- to 100-fold, so those of a whole cohort are held in memory and travel to workers.

    Attributes:
        case_id: whose it is.
        shape: voxels of the image's own grid.
        spacing_mm: their size.
        box: what the crop kept of the grid; None: all of it.
        packed: the label's bytes in C order, by zlib.
    """

    case_id: str
    shape: tuple[int, int, int]
    spacing_mm: Spacing
    box: Box | None
    packed: bytes = field(repr=False)

    @classmethod
    def of(cls, volume: Volume, box: Box | None) -> Self:
        """The label of a volume that is neither cropped nor resampled."""
        x, y, z = volume.label.shape
        packed = zlib.compress(np.ascontiguousarray(volume.label, dtype=np.uint8).data, level=1)
        return cls(volume.case_id, (x, y, z), volume.spacing_mm, box, packed)

    @property
    def kept(self) -> Box:
        """The part of the grid that was resampled: the crop's box, or all."""
        x, y, z = self.shape
        return self.box or (slice(0, x), slice(0, y), slice(0, z))

    @property
    def label(self) -> NDArray[np.uint8]:
        """(X, Y, Z), unpacked anew each time.

        Raises:
            LossevoError: its bytes are damaged.
        """
        voxels, unpacking = math.prod(self.shape), zlib.decompressobj()
        try:
            found = unpacking.decompress(self.packed, voxels + 1)
        except zlib.error as problem:
            raise self._damaged(str(problem)) from None
        if len(found) != voxels or not unpacking.eof:
            raise self._damaged(f"not {'×'.join(map(str, self.shape))} voxels")
        return np.frombuffer(found, np.uint8).reshape(self.shape)

    def _damaged(self, what: str) -> ResumableError:
        return ResumableError(
            f"case {self.case_id}: the copy in the cache of its label on the image's own grid is damaged ({what}); "
            "clear the cache with 'lossevo data cache --clear'"
        )
