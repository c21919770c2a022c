"""Comparison of losses: contenders, folds without leakage or an external test, a resumable folder, tables."""

from __future__ import annotations

from lossevo.comparison.ablation import with_ablations
from lossevo.comparison.compared import read_compared
from lossevo.comparison.configuration import DEFAULT_METRICS, ComparisonConfig, configure, read_config
from lossevo.comparison.consensus import Consensus, consensus
from lossevo.comparison.consensus_files import consensus_document, consensus_rows, write_consensus
from lossevo.comparison.contenders import Contender, contenders_from, run_and_rank
from lossevo.comparison.crossvalidation import Comparison
from lossevo.comparison.data_use import DataUse, FractionScore
from lossevo.comparison.external import parse_test_on
from lossevo.comparison.leakage import FoldPlan, plan_folds
from lossevo.comparison.protocol import Protocol
from lossevo.comparison.provenance import SearchRecord
from lossevo.comparison.report import LossResult, LossScore, MetricResult, PairResult, Report
from lossevo.comparison.result_files import to_document
from lossevo.comparison.run_settings import cohort_of_runs
from lossevo.comparison.specs import contenders_with_specs, read_specs
from lossevo.comparison.speed import Speed
from lossevo.comparison.tables import (
    claim_rows,
    comparison_rows,
    fraction_rows,
    fraction_title,
    markdown,
    speed_rows,
    summary_rows,
    verdicts,
)
from lossevo.comparison.trajectories import LossTrajectory

__all__ = [
    "Speed",
    "DataUse",
    "FractionScore",
    "Consensus",
    "Contender",
    "SearchRecord",
    "contenders_from",
    "run_and_rank",
    "cohort_of_runs",
    "contenders_with_specs",
    "read_specs",
    "Comparison",
    "ComparisonConfig",
    "DEFAULT_METRICS",
    "configure",
    "consensus",
    "consensus_document",
    "consensus_rows",
    "read_compared",
    "write_consensus",
    "read_config",
    "FoldPlan",
    "parse_test_on",
    "plan_folds",
    "LossResult",
    "LossScore",
    "MetricResult",
    "PairResult",
    "Protocol",
    "Report",
    "LossTrajectory",
    "claim_rows",
    "fraction_rows",
    "fraction_title",
    "comparison_rows",
    "markdown",
    "speed_rows",
    "summary_rows",
    "verdicts",
    "to_document",
    "with_ablations",
]
