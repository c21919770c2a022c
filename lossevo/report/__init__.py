"""Figures and pages: what :mod:`lossevo.analysis` has computed, drawn."""

from __future__ import annotations

from lossevo.report.folder import draw, prepare_folder, to_json, write
from lossevo.report.page import terminal_rows

__all__ = ["draw", "prepare_folder", "write", "to_json", "terminal_rows"]
