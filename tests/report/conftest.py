from __future__ import annotations

import pytest

from lossevo import report
from lossevo.analysis import EVOLVED, AnalysedLoss, Analysis, analyze
from lossevo.expression import Expression, unicode


@pytest.fixture(scope="session")
def analysis() -> Analysis:
    """Three families, and two evolved losses: one with a long name and signs that HTML knows, one that is constant."""
    losses = [AnalysedLoss.of_catalogue(name) for name in ("cross_entropy", "focal", "dice", "boundary")]
    for name, formula in (
        ("a/folder/<b>with & a very long name</b>:1", "-class_sum(mean(y * logp))"),
        ("constant", "foreground_mean(mean(y))"),
    ):
        expression = Expression.parse(formula)
        losses.append(AnalysedLoss(name, EVOLVED, unicode(expression), "a test", {"expression": expression.to_json()}))
    return analyze(losses)


@pytest.fixture(scope="session")
def folder(analysis, tmp_path_factory):
    """The analysis, written."""
    folder = tmp_path_factory.mktemp("report") / "analysis"
    report.prepare_folder(folder)
    report.write(analysis, folder)
    return folder
