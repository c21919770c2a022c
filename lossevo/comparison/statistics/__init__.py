"""What a comparison may claim: means with their uncertainty, and paired differences, with subjects as the unit of
analysis.

Classes, cases and seeds are averaged per subject first, since a second case or seed of a person is no second person.
Folds are not analysed as if they were repetitions: their trainings share most of their subjects. What remains
dependent, that the subjects of a fold were segmented by the same trained network, no test here corrects for; more
seeds make it smaller.
"""

from __future__ import annotations

from lossevo.comparison.statistics.bootstrap import bootstrap_interval, bootstrap_intervals
from lossevo.comparison.statistics.claims import Relevance, false_claim_probability, relevance
from lossevo.comparison.statistics.friedman import Friedman, critical_difference, friedman
from lossevo.comparison.statistics.groups import ALPHA, Pair, all_pairs, not_told_apart, verdict
from lossevo.comparison.statistics.overall import Against, Statistics, statistics_of
from lossevo.comparison.statistics.pairs import (
    Mean,
    PairedDifference,
    describe,
    holm,
    paired_difference,
    signed_rank,
)
from lossevo.comparison.statistics.power import PairPower, SignalToNoise, pair_power, signal_to_noise
from lossevo.comparison.statistics.ranks import Rank, Ranking, kendall_tau, rank_distribution
from lossevo.comparison.statistics.table import Scores, ScoreTable, score_table

__all__ = [
    "Scores",
    "ScoreTable",
    "score_table",
    "bootstrap_interval",
    "bootstrap_intervals",
    "Mean",
    "describe",
    "PairedDifference",
    "paired_difference",
    "signed_rank",
    "holm",
    "ALPHA",
    "Pair",
    "all_pairs",
    "not_told_apart",
    "verdict",
    "Friedman",
    "friedman",
    "critical_difference",
    "Rank",
    "Ranking",
    "rank_distribution",
    "kendall_tau",
    "Relevance",
    "relevance",
    "false_claim_probability",
    "PairPower",
    "pair_power",
    "SignalToNoise",
    "signal_to_noise",
    "Against",
    "Statistics",
    "statistics_of",
]
