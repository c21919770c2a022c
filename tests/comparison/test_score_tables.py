from __future__ import annotations

import csv
import io

import pytest

from lossevo.cluster import Status
from lossevo.comparison.score_tables import challenger_csv, claims_reloaded_csv
from lossevo.comparison.scores import CaseScore
from lossevo.metrics import parse_metrics

METRICS = parse_metrics("dice,hd95")


def scores(losses=("dice", "focal")) -> list[CaseScore]:
    """Two subjects, one with two cases; two seeds; the second subject's label lacks the cyst."""
    cells = [
        ("a", "a1", "lesion"),
        ("a", "a2", "lesion"),
        ("a", "a1", "cyst"),
        ("a", "a2", "cyst"),
        ("b", "b1", "lesion"),
    ]
    found = [
        CaseScore(
            loss,
            1,
            seed,
            0,
            subject,
            case,
            name,
            dict.fromkeys(("dice", "hd95"), 0.5 + 0.1 * seed + 0.2 * (case == "a2") + 0.01 * place),
            Status.DONE,
            False,
        )
        for place, loss in enumerate(losses)
        for seed in (0, 1)
        for subject, case, name in cells
    ]
    empty = [
        CaseScore(loss, 1, seed, 0, "b", "b1", "cyst", {"dice": None, "hd95": None}, Status.DONE, False, 3)
        for loss in losses
        for seed in (0, 1)
    ]
    return found + empty


def test_challenger_has_a_row_per_task_case_and_algorithm():
    rows = list(csv.DictReader(io.StringIO(challenger_csv(scores(), "livers", METRICS))))
    assert list(rows[0]) == ["task", "case", "algorithm", "metric_value"]
    keys = [(row["task"], row["case"], row["algorithm"]) for row in rows]
    assert len(set(keys)) == len(keys) == 12  # lesion of a and b, cyst of a, for two losses and two metrics
    values = dict(zip(keys, (float(row["metric_value"]) for row in rows), strict=True))
    assert values["livers: lesion: dice", "a", "dice"] == pytest.approx(0.65)  # over two cases and two seeds
    assert values["livers: cyst: hd95", "a", "focal"] == pytest.approx(0.66)
    assert ("livers: cyst: dice", "b", "dice") not in values


def test_claims_reloaded_has_a_row_per_metric_and_subject_and_a_column_per_loss():
    rows = list(csv.DictReader(io.StringIO(claims_reloaded_csv(scores(), METRICS))))
    assert [list(row) for row in rows] == [["metric", "case", "dice", "focal"]] * 4
    assert [(row["metric"], row["case"]) for row in rows] == [(m, s) for m in ("dice", "hd95") for s in ("a", "b")]
    assert [float(row["dice"]) for row in rows] == pytest.approx([0.65, 0.55] * 2)


def test_a_loss_that_is_called_case_keeps_its_column():
    (row, _) = csv.DictReader(io.StringIO(claims_reloaded_csv(scores(("case", "case_")), METRICS[:1])))
    assert list(row) == ["metric", "case__", "case", "case_"]
