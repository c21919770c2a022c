from __future__ import annotations

import csv
import io

import pytest

from lossevo.cluster import Status
from lossevo.comparison.scores import CaseScore
from lossevo.comparison.structures import structure_scores, structures_csv
from lossevo.metrics import parse_metrics

METRICS = parse_metrics("dice,hd95")


def score(loss: str, subject: str, class_name: str, dice: float | None, *, seed: int = 0) -> CaseScore:
    return CaseScore(
        loss=loss, fold=1, seed=seed, training_seed=0, subject=subject, case=subject, class_name=class_name,
        values={"dice": dice, "hd95": None if dice is None else 10 * dice}, status=Status.DONE, leakage=False,
        false_voxels=3 if dice is None else None, false_ml=0.1 if dice is None else None,
    )  # fmt: skip


SCORES = [
    *(
        score("a", "s1", "L1", 0.8),
        score("a", "s1", "L2", 0.6),
        score("a", "s2", "L1", 0.4),
        score("a", "s2", "L2", None),
    ),
    *(score("a", "s1", "L1", 0.6, seed=1), score("a", "s1", "L2", 0.8, seed=1)),
    *(score("a", "s2", "L1", 0.6, seed=1), score("a", "s2", "L2", None, seed=1)),
]


def test_of_each_class_over_the_subjects_whose_labels_have_it():
    found = {(one.metric, one.class_name): one for one in structure_scores(SCORES, METRICS)}
    assert list(found) == [("dice", "L1"), ("dice", "L2"), ("hd95", "L1"), ("hd95", "L2")]
    first = found["dice", "L1"]  # subjects 0.7 and 0.5
    assert (first.mean, first.subjects) == (pytest.approx(0.6), 2)
    assert first.sd == pytest.approx(0.2 / 2**0.5)
    second = found["hd95", "L2"]
    assert (second.mean, second.sd, second.subjects) == (pytest.approx(7.0), None, 1)


def test_one_class_alone_has_no_table():
    assert structure_scores([one for one in SCORES if one.class_name == "L1"], METRICS) == ()


def test_file():
    rows = list(csv.DictReader(io.StringIO(structures_csv(structure_scores(SCORES, METRICS)))))
    assert [(row["metric"], row["class"], row["loss"], row["subjects"]) for row in rows][:2] == [
        ("dice", "L1", "a", "2"), ("dice", "L2", "a", "1"),
    ]  # fmt: skip
