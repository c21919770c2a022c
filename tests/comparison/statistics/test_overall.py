from __future__ import annotations

import json
import math
import time
from dataclasses import asdict

import numpy as np
import pytest

from lossevo.comparison.statistics import score_table, statistics_of


def by_seed(losses: int, subjects: int, seeds: int, *, scale: float = 1.0) -> dict[int, dict[str, dict[str, float]]]:
    rng = np.random.default_rng(0)
    hard = rng.normal(0.7, 0.1, size=subjects)
    return {
        seed: {
            f"l{loss:02d}": {
                f"s{number:02d}": scale * float(value)
                for number, value in enumerate(hard - 0.01 * loss + rng.normal(0, 0.02, size=subjects))
            }
            for loss in range(losses)
        }
        for seed in range(seeds)
    }


def test_losses_where_lower_is_better_are_told_as_their_mirror_images():
    higher = statistics_of(by_seed(4, 12, 2), reference="l01", rope=0.005, seed=0)
    lower = statistics_of(by_seed(4, 12, 2, scale=-1), reference="l01", rope=0.005, seed=0, higher_is_better=False)
    assert lower == higher


def test_without_the_turn_they_are_not():
    higher = statistics_of(by_seed(4, 12, 2), reference="l01", rope=0.005, seed=0)
    turned = statistics_of(by_seed(4, 12, 2), reference="l01", rope=0.005, seed=0, higher_is_better=False)
    assert list(turned.ranking.ranks) == list(higher.ranking.ranks)[::-1]
    assert turned.against["l00"].false_claim == pytest.approx(1 - higher.against["l00"].false_claim)


def test_twenty_losses_of_38_subjects_take_seconds():
    scores = by_seed(20, 38, 3)
    statistics_of(scores, reference="l00", rope=0.005, seed=0)  # imports
    start = time.perf_counter()
    statistics_of(scores, reference="l00", rope=0.005, seed=0)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(("losses", "subjects", "seeds"), [(1, 5, 1), (2, 1, 1), (2, 2, 1), (3, 2, 2), (1, 1, 1)])
def test_few_of_anything(losses, subjects, seeds):
    found = statistics_of(by_seed(losses, subjects, seeds), reference="l00", rope=0.005, seed=0)
    json.dumps(asdict(found), allow_nan=False)
    assert len(found.pairs) == losses * (losses - 1) // 2
    assert bool(found.verdict) == (losses > 1)


def test_equal_losses():
    scores = {"a": {"x": 0.5, "y": 0.6}, "b": {"x": 0.5, "y": 0.6}, "c": {"x": 0.5, "y": 0.6}}
    found = statistics_of({0: scores, 1: scores}, reference="a", rope=0.005, seed=0)
    json.dumps(asdict(found), allow_nan=False)
    assert found.against["b"].false_claim == 0.5
    assert found.against["b"].relevance.equivalent == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(ValueError, match="b, subject y: the score is"):
        score_table({"a": {"x": 0.1, "y": 0.1}, "b": {"x": 0.1, "y": value}})


def test_other_subjects_are_refused():
    with pytest.raises(ValueError, match="score of subject y"):
        score_table({"a": {"x": 0.1, "y": 0.1}, "b": {"x": 0.1}})
    with pytest.raises(ValueError, match="not the same losses and subjects"):
        statistics_of({0: {"a": {"x": 0.1}}, 1: {"a": {"y": 0.1}}}, reference="a", rope=0, seed=0)
    with pytest.raises(ValueError, match="no loss"):
        score_table({})
