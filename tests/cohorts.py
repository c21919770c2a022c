"""Cohorts small enough for trainings of a fraction of a second."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

SPACING_MM = (4.0, 4.0, 4.0)


def ball(number: int, *, bright: float = 3.0) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Image and label (16, 24, 24): a bright ball in unit noise."""
    rng = np.random.default_rng([5, number])
    shape = (16, 24, 24)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    inside = np.linalg.norm(grid - rng.uniform(0.4, 0.6, size=3) * shape, axis=-1) < 5.5
    image = rng.normal(10, 1, size=shape) + bright * inside
    return image.astype(np.float32), inside.astype(np.uint8)


def balls(count: int, first: int = 0) -> dict[str, tuple[NDArray[np.float32], NDArray[np.uint8]]]:
    """So many cases, for the fixture ``write_nnunet_cohort``: the same names whatever the ``first`` ball."""
    return {f"ball_{number:02d}": ball(first + number) for number in range(count)}


def write_balls(folder: Path, count: int = 9, *, first: int = 0) -> Path:
    """A cohort of balls as an nnU-Net v2 raw data set, for fixtures that outlive a test."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    affine = np.diag([*SPACING_MM, 1.0])
    for case, (image, label) in balls(count, first).items():
        nib.save(nib.Nifti1Image(image, affine), folder / "imagesTr" / f"{case}_0000.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), folder / "labelsTr" / f"{case}.nii.gz")
    description = {
        "channel_names": {"0": "T2"},
        "labels": {"background": 0, "vertebra": 1},
        "numTraining": count,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder
