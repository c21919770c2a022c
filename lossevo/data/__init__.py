"""Cohorts: readers, the phantom, splits by subject, preprocessing, the patch bank."""

from __future__ import annotations

from lossevo.data.cohort import Case, Cohort, Grid, Volume
from lossevo.data.nnunet import read_nnunet
from lossevo.data.patches import PatchBank, build_patch_bank
from lossevo.data.phantom import phantom_cohort, phantom_volume
from lossevo.data.preprocessing import PreparedCohort, automatic_spacing_mm, prepare
from lossevo.data.splits import SubjectSplit, k_folds, split_subjects

__all__ = [
    "Case",
    "Cohort",
    "Grid",
    "Volume",
    "read_nnunet",
    "phantom_cohort",
    "phantom_volume",
    "PreparedCohort",
    "automatic_spacing_mm",
    "prepare",
    "SubjectSplit",
    "k_folds",
    "split_subjects",
    "PatchBank",
    "build_patch_bank",
]
