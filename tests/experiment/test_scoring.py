from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from lossevo.data import Volume
from lossevo.errors import LossevoError
from lossevo.experiment.candidate import Candidate
from lossevo.experiment.hall_of_fame import rank
from lossevo.experiment.origin import HandCrafted
from lossevo.experiment.scoring import DICE, Scoring
from lossevo.losses import expression_of
from lossevo.metrics import Objective, evaluate
from lossevo.training import Measurement


def volume(case: str, shape: tuple[int, int, int], *, empty: bool = False) -> Volume:
    label = np.zeros(shape, np.uint8)
    if not empty:
        label[1:3, 1:3, 1:3] = 1
    return Volume(case, case, np.zeros((1, *shape), np.float32), label, (1.0, 1.0, 3.0))


def measurement(values: dict[str, dict[str, dict[str, float | None]]]) -> Measurement:
    return Measurement(values=values, curve=[], validation_curve=[], seconds=1.0)


VOLUMES = (volume("a", (4, 4, 4)), volume("b", (8, 6, 4)), volume("empty", (20, 20, 20), empty=True))


@pytest.mark.parametrize("objective", ["dice", "nsd@2mm", "hd95", "0.5*dice+0.5*nsd@2mm", "dice+0.01*assd"])
def test_a_failed_training_scores_what_a_prediction_of_nothing_scores(objective):
    scoring = Scoring.of(objective, VOLUMES)
    found = {
        one.case_id: evaluate(np.zeros_like(one.label), one.label, one.spacing_mm, scoring.metrics)[1]
        for one in VOLUMES[:2]
    }
    nothing = {
        metric: {case: {"vertebra": values[metric]} for case, values in found.items()} for metric in scoring.metrics
    }
    assert scoring.worst == scoring.utility(None) == scoring.utility(measurement(nothing))


def test_with_many_classes_and_cases_it_is_the_same_number_to_the_last_bit():
    rng = np.random.default_rng(0)
    for _ in range(50):
        volumes = []
        for case in range(rng.integers(1, 6)):
            one = volume(str(case), tuple(rng.integers(5, 12, size=3)))
            volumes.append(replace(one, label=rng.integers(0, 6, one.label.shape).astype(np.uint8)))
        scoring = Scoring.of("hd95", volumes)
        values = {}
        for one in volumes:
            found = evaluate(np.zeros_like(one.label), one.label, one.spacing_mm, "hd95", range(1, 6))
            values[one.case_id] = {str(name): of_class["hd95"] for name, of_class in found.items()}
        assert scoring.utility(measurement({"hd95": values})) == scoring.worst


def test_of_dice_everything_is_as_ever():
    scoring = Scoring.of("dice", VOLUMES)
    assert scoring == DICE
    assert (scoring.range, scoring.metrics, scoring.told(0.25)) == (1.0, ("dice",), "dice 0.2500")


def test_a_distance_is_better_the_smaller_it_is():
    scoring = Scoring.of("hd95", VOLUMES)
    near, far = (measurement({"hd95": {"a": {"v": mm}, "b": {"v": 2.0}}}) for mm in (1.0, 3.0))
    assert scoring.utility(near) == -1.5 > scoring.utility(far) > scoring.worst
    assert scoring.told(scoring.utility(far)) == "hd95 2.5000 mm"
    assert scoring.range == -scoring.worst == pytest.approx((math.hypot(4, 4, 12) + math.hypot(8, 6, 12)) / 2)
    assert scoring.metrics == ("dice", "hd95")


def test_a_sum_is_made_class_by_class_and_a_class_that_the_label_lacks_does_not_count():
    scoring = Scoring.of("0.5*dice+0.5*nsd@2mm", VOLUMES)
    values = {
        "dice": {"a": {"v": 0.8, "w": None}, "b": {"v": 0.4, "w": 0.2}},
        "nsd@2mm": {"a": {"v": 0.6, "w": None}, "b": {"v": 0.8, "w": 1.0}},
    }
    assert scoring.utility(measurement(values)) == pytest.approx((0.7 + (0.6 + 0.6) / 2) / 2)


def test_what_is_no_number_is_the_worst():
    assert DICE.utility(measurement({"dice": {"a": {"v": math.nan}}})) == 0.0


def test_what_is_no_objective_is_refused():
    with pytest.raises(LossevoError, match="needs a tolerance in mm"):
        Scoring.of("nsd", VOLUMES)


def test_a_hall_of_fame_ranks_small_distances_first_and_shows_them_as_they_are():
    objective = Objective.parse("hd95")
    candidates = [
        Candidate(expression_of(name), HandCrafted(name), number, {75: {1: -mm, 2: -mm - 1.0}})
        for number, (name, mm) in enumerate({"dice": 9.0, "focal": 3.0, "cross_entropy": 5.0}.items())
    ]
    entries = rank(candidates, 3, objective)
    assert [entry.origin.name for entry in entries] == ["focal", "cross_entropy", "dice"]
    assert [entry.score for entry in entries] == [3.5, 5.5, 9.5]
    assert {entry.objective for entry in entries} == {"hd95"}
    assert entries[0].score_se == 0.5
