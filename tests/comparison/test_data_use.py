from __future__ import annotations

import csv
import io

import pytest

from lossevo.cluster import Status
from lossevo.comparison.data_use import data_use, fractions_csv
from lossevo.comparison.scores import CaseScore
from lossevo.metrics import parse_metrics

METRICS = parse_metrics("dice,hd95")
SIZES = {1.0: (4, 4), 0.5: (2, 2), 0.25: (1, 2)}


def scores(dice: dict[str, list[float]], failed: tuple[str, ...] = ()) -> list[CaseScore]:
    """A value per loss and subject; HD95 is 10 mm less 10 mm a point of Dice."""
    return [
        CaseScore(
            *(loss, 1, 0, 0, f"s{number}", f"s{number}", "ball", {"dice": value, "hd95": 10 - 10 * value}),
            Status.DIVERGED if loss in failed else Status.DONE,
            False,
        )
        for loss, values in dice.items()
        for number, value in enumerate(values)
    ]


WHOLE = scores({"a": [0.9, 0.7], "b": [0.6, 0.6], "c": [0.5, 0.3]})
HALF = scores({"a": [0.5, 0.5], "b": [0.6, 0.4], "c": [0.2, 0.2]})
QUARTER = scores({"a": [0.2, 0.2], "b": [0.3, 0.3], "c": [0.0, 0.0]}, failed=("c",))


def test_by_hand():
    found = data_use({1.0: WHOLE, 0.5: HALF, 0.25: QUARTER}, METRICS, SIZES)
    assert found.fractions == (0.25, 0.5, 1.0)
    dice = found.of("dice")
    assert list(dice) == ["a", "b", "c"]
    assert [score.mean for score in dice["a"].values()] == pytest.approx([0.2, 0.5, 0.8])
    assert [score.share_of_whole for score in dice["a"].values()] == pytest.approx([0.25, 0.625, 1])
    # of 0.9 and 0.7: SD 0.2/√2, SE that by √2
    assert (dice["a"][1.0].sd, dice["a"][1.0].se) == (pytest.approx(0.2 / 2**0.5), pytest.approx(0.1))
    assert [score.rank for score in dice["a"].values()] == [2, 1, 1]
    assert [score.rank for score in dice["b"].values()] == [1, 1, 2]  # a and b tie with a half
    assert [(score.trainings, score.failures) for score in dice["c"].values()] == [(1, 1), (1, 0), (1, 0)]
    assert (dice["a"][0.25].fewest_training_subjects, dice["a"][0.25].most_training_subjects) == (1, 2)
    taus = {(one.first, one.second): one.tau for one in found.agreement if one.metric == "dice"}
    # of three pairs one is turned; with a tie τ-b is 2/√(2·3)
    assert taus == {
        (0.25, 1.0): pytest.approx(1 / 3),
        (0.25, 0.5): pytest.approx(2 / 6**0.5),
        (0.5, 1.0): pytest.approx(2 / 6**0.5),
    }


def test_where_lower_is_better():
    found = data_use({1.0: WHOLE, 0.5: HALF, 0.25: QUARTER}, METRICS, SIZES)
    hd95 = found.of("hd95")
    assert [score.rank for score in hd95["a"].values()] == [2, 1, 1]
    assert {score.share_of_whole for scores in hd95.values() for score in scores.values()} == {None}
    assert [one.tau for one in found.agreement if one.metric == "hd95"] == pytest.approx(
        [one.tau for one in found.agreement if one.metric == "dice"]
    )
    told = data_use({1.0: WHOLE, 0.5: HALF}, METRICS[1:], SIZES).finding
    assert told.startswith("With 0.5 of the training subjects (2 subjects) the mean HD95 of the losses is 6 mm, with ")


def test_what_it_says():
    told = data_use({1.0: WHOLE, 0.5: HALF, 0.25: QUARTER}, METRICS, SIZES, 0.9).finding
    assert told == (
        "With 0.25 of the training subjects (1 to 2 subjects) losses reach 0% (c) to 50% (b) of the Dice with all. "
        "Kendall's τ of the ranking with that of all training subjects: 0.33 with 0.25, 0.82 with 0.5. "
        "Resamples of the tested subjects alone have 0.90."
    )
    half = scores({"a": [0.5, 0.5], "b": [0.4, 0.4], "c": [0.45, 0.35]})
    assert "losses reach 62% (a) to 100% (c)" in data_use({1.0: WHOLE, 0.5: half}, METRICS, SIZES).finding
    same = scores({"a": [0.5, 0.5], "b": [0.4, 0.4], "c": [0.3, 0.3]})
    assert data_use({1.0: WHOLE, 0.5: same}, METRICS, SIZES).finding.endswith(
        "The ranking of the losses is the same with every fraction."
    )
    more = data_use({1.0: HALF, 0.5: WHOLE}, METRICS, SIZES).finding
    assert "Above 100% trainings are too short to use all subjects, or it is noise" in more


def test_one_loss_one_subject_and_losses_that_tie():
    one = data_use({1.0: scores({"a": [0.8]}), 0.5: scores({"a": [0.4]})}, METRICS, SIZES)
    assert (one.agreement, one.of("dice")["a"][0.5].se) == ((), None)
    assert one.finding == "With 0.5 of the training subjects (2 subjects) a reaches 50% of the Dice with all."
    tie = data_use({1.0: scores({"a": [0.0], "b": [0.0]}), 0.5: scores({"a": [0.1], "b": [0.2]})}, METRICS, SIZES)
    assert {score.share_of_whole for score in tie.scores} == {None}
    assert "not defined with 0.5" in tie.finding


def test_nothing_without_fractions():
    assert data_use({1.0: WHOLE}, METRICS, SIZES) is None


def test_file():
    rows = list(csv.DictReader(io.StringIO(fractions_csv(data_use({1.0: WHOLE, 0.5: HALF}, METRICS, SIZES)))))
    assert len(rows) == 2 * 3 * 2
    assert {**rows[0], "sd": "", "se": ""} == {
        **{"metric": "dice", "loss": "a", "fraction": "0.5", "fewest_training_subjects": "2"},
        **{"most_training_subjects": "2", "mean": "0.5", "sd": "", "se": "", "subjects": "2", "rank": "1"},
        **{"share_of_whole": rows[0]["share_of_whole"], "trainings": "1", "failures": "0"},
    }
