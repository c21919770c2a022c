"""lossevo: find the loss function that trains the best 3D U-Net for a segmentation task."""

from __future__ import annotations

__version__ = "0.1.0"
