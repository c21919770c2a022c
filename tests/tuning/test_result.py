from __future__ import annotations

import csv
import math
import statistics
import subprocess
import sys

import pytest
import yaml

from lossevo.errors import LossevoError
from lossevo.losses import from_spec
from lossevo.tuning import files
from lossevo.tuning.result import TuningResult
from tests.tuning.conftest import bowl, course_of, drive


def only_the_rate_matters(values, step, seed):
    return 0.8 - 0.1 * math.log10(values["learning_rate"] / 0.05) ** 2 - 1 / (step + 10)


def test_what_is_kept_and_what_it_gains():
    course = drive(course_of(trials=20, seeds=3), bowl)
    result = TuningResult.of(course)
    by_seed = {
        number: {a.seed: a.utility for a in course.attempts if a.confirms == number}
        for number in (0, result.kept.number)
    }
    gains = [by_seed[result.kept.number][seed] - by_seed[0][seed] for seed in by_seed[0]]
    mean, error = result.gain
    assert mean == pytest.approx(statistics.fmean(gains))
    assert error == pytest.approx(statistics.stdev(gains) / math.sqrt(3))
    assert result.learning_rate == result.kept.values["learning_rate"]
    from_spec(result.spec)


def test_the_importance_is_that_of_the_value_that_matters():
    result = TuningResult.of(drive(course_of(trials=60, window=8), only_the_rate_matters))
    rate, weight = result.sensitivities
    assert rate.importance > 0.8
    assert rate.importance + weight.importance == pytest.approx(1)
    assert rate.low < rate.best[0] < rate.tuned < rate.high
    assert rate.best[1] - rate.best[0] < 0.5 * (rate.high - rate.low)


def test_too_few_values_have_no_importance():
    result = TuningResult.of(drive(course_of(trials=4), bowl))
    assert [found.importance for found in result.sensitivities] == [None, None]


def test_rungs_are_compared_over_the_first_wave_alone():
    """Where half the way ranks as the end does and a quarter the other way round, τ is 1 and −1."""

    def turning(values, step, seed):
        return -values["w_fp"] if step == 10 else values["w_fp"]

    result = TuningResult.of(drive(course_of(trials=16), turning))
    assert dict(result.rungs) == {10: pytest.approx(-1), 20: pytest.approx(1)}


def test_untuned_values_that_stay_gain_nothing():
    result = TuningResult.of(drive(course_of(trials=8), lambda values, step, seed: -abs(values["w_fp"] - 0.3)))
    assert result.kept is result.untuned
    assert result.gain is None
    assert result.spec == {"name": "tversky"}
    (row,) = files.result_rows([result])
    assert row["values kept"].endswith("(untuned)")


def test_a_loss_of_which_everything_was_lost_is_told():
    course = course_of(trials=2)
    while (attempt := course.ask()) is not None:
        course.lose(attempt)
    with pytest.raises(LossevoError, match="tversky: all trainings that should confirm its values were lost"):
        TuningResult.of(course)


def test_a_lost_training_has_a_row():
    course = course_of(trials=4, finalists=1, seeds=1)
    while (attempt := course.ask()) is not None:
        if attempt.number == 2:
            course.tell(attempt, course.rungs[0], 0.5)
        if attempt.number in (1, 2):
            course.lose(attempt)
        while rungs := course.rungs_left(attempt):
            course.tell(attempt, rungs[0], bowl(attempt.values, rungs[0], attempt.seed))
    rows = list(csv.DictReader(files.trials_csv([TuningResult.of(course)]).splitlines()))
    lost = [(row["number"], row["step"], row["utility"]) for row in rows if row["state"] == "lost"]
    assert lost == [("1", "", ""), ("2", "10", "0.5")]


def test_optuna_s_own_log_is_left_alone():
    """In a process of its own: what is imported first decides."""
    program = (
        "import optuna; before = optuna.logging.get_verbosity();"
        "from lossevo.tuning.course import quiet_study; quiet_study('maximize');"
        "assert optuna.logging.get_verbosity() == before"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


def test_its_file_is_a_loss_for_a_comparison():
    result = TuningResult.of(drive(course_of(trials=20), bowl))
    document = yaml.safe_load(files.specs_yaml(result))
    assert document == {
        "tversky_tuned": {
            "name": "tversky",
            "parameters": result.spec["parameters"],
            "learning_rate": result.learning_rate,
            "tuned_in": ".",
        }
    }


def test_tables_have_every_training_and_value():
    results = [TuningResult.of(drive(course_of(loss, trials=12), bowl)) for loss in ("tversky", "dice")]
    trials = files.trials_csv(results).splitlines()
    assert len(trials) == 1 + sum(len(a.utilities) for result in results for a in result.attempts)
    assert [row["parameter"] for row in files.sensitivity_rows(results)] == ["learning_rate", "w_fp", "learning_rate"]
    text = files.markdown(results)
    assert all(part in text for part in ("PED-ANOVA", "| tversky |", "| dice |", "| learning\\_rate |"))
    document = files.to_document(results)
    assert [entry["loss"] for entry in document["losses"]] == ["tversky", "dice"]


def test_a_gain_is_that_of_the_same_seeds():
    course = course_of(trials=12, seeds=3)
    while (attempt := course.ask()) is not None:
        repetition = sum(other.confirms == attempt.confirms for other in course.attempts)
        if attempt.confirms is not None and repetition == (1 if attempt.confirms == 0 else 2):
            course.lose(attempt)
        for rung in course.rungs_left(attempt):
            if not course.tell(attempt, rung, bowl(attempt.values, rung, attempt.seed)):
                break
    result = TuningResult.of(course)
    assert len(result.kept.utilities) == len(result.untuned.utilities) == 2
    assert result.kept.seeds != result.untuned.seeds
    assert result.gain is None


def test_where_all_of_the_search_was_lost_the_untuned_values_stay(tmp_path):
    course = course_of(trials=1, seeds=1)
    course.lose(course.ask())
    confirming = course.ask()
    course.tell(confirming, course.rungs[-1], 0.5)
    result = TuningResult.of(course)
    assert result.kept is result.untuned
    assert [row["best quarter"] for row in files.sensitivity_rows([result])] == ["–", "–"]
    files.write_files(tmp_path, [result])
