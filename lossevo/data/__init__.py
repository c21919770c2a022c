"""Cohorts: readers, the phantom, splits by subject, preprocessing, the patch bank."""

from __future__ import annotations

from lossevo.data.cache import Cache, CacheWarning, default_cache
from lossevo.data.cohort import AnyVolume, Case, Cohort, Grid, Volume
from lossevo.data.labels import MERGED, SEPARATE, LabelScheme, label_scheme, relabel
from lossevo.data.original import OriginalLabel
from lossevo.data.patches import PatchBank, build_patch_bank
from lossevo.data.phantom import phantom_cohort, phantom_volume
from lossevo.data.preprocessing import PreparedCohort, PreprocessingSettings, automatic_spacing_mm, prepare
from lossevo.data.readers import FORMATS, read_cohort, read_nnunet
from lossevo.data.scan import CaseFiles, LabelFile, Problem, Scan, Severity
from lossevo.data.splits import (
    CaseFold,
    Fold,
    SubjectSplit,
    k_folds,
    nested_parts,
    read_splits,
    split_inside_fold,
    split_subjects,
    splits_json,
    stated_folds,
    subjects_of_folds,
)
from lossevo.data.subjects import CohortWarning

__all__ = [
    "Case",
    "Cohort",
    "CohortWarning",
    "Grid",
    "Volume",
    "AnyVolume",
    "CaseFiles",
    "LabelFile",
    "Problem",
    "Scan",
    "Severity",
    "FORMATS",
    "read_cohort",
    "read_nnunet",
    "MERGED",
    "SEPARATE",
    "LabelScheme",
    "label_scheme",
    "relabel",
    "phantom_cohort",
    "phantom_volume",
    "Cache",
    "CacheWarning",
    "default_cache",
    "PreprocessingSettings",
    "OriginalLabel",
    "PreparedCohort",
    "automatic_spacing_mm",
    "prepare",
    "SubjectSplit",
    "k_folds",
    "nested_parts",
    "split_inside_fold",
    "split_subjects",
    "CaseFold",
    "Fold",
    "read_splits",
    "splits_json",
    "stated_folds",
    "subjects_of_folds",
    "PatchBank",
    "build_patch_bank",
]
