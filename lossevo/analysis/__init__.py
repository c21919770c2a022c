"""What a loss does: its profile, where its gradient lies, how it answers to errors, what it costs. Numbers only."""

from __future__ import annotations

from lossevo.analysis.analysis import Analysis, analyze
from lossevo.analysis.document import DEFINITIONS, to_document
from lossevo.analysis.losses import EVOLVED, METALEARNED, AnalysedLoss
from lossevo.analysis.summary import summary

__all__ = ["Analysis", "analyze", "summary", "AnalysedLoss", "EVOLVED", "METALEARNED", "DEFINITIONS", "to_document"]
