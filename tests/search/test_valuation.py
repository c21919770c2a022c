from __future__ import annotations

import math

import pytest

from lossevo.experiment.archive import Archive
from lossevo.experiment.candidate import Candidate
from lossevo.experiment.origin import Evolved
from lossevo.experiment.scoring import DICE
from lossevo.expression import Expression
from lossevo.search.valuation import Valuation


def archive(*scores: dict[int, list[float]]) -> tuple[Archive, list[Candidate]]:
    made = Archive(DICE)
    candidates = []
    for number, by_steps in enumerate(scores):
        candidates.append(Candidate(Expression.parse(f"{number} - class_mean(mean(p * y))"), Evolved("random"), number))
        made.add(candidates[-1])
        for steps, values in by_steps.items():
            for seed, value in enumerate(values):
                made.record(candidates[-1], steps, seed, value)
    return made, candidates


def test_with_one_length_it_is_the_mean_less_its_standard_error():
    made, (once, often) = archive({10: [0.81]}, {10: [0.78, 0.80, 0.82, 0.80]})
    worth = Valuation(made, (10,)).worth
    noise = math.sqrt(2 * 0.02**2 / 3)
    assert made.noise(10) == pytest.approx(noise)
    assert worth(once) == pytest.approx(0.81 - noise)
    assert worth(often) == pytest.approx(0.80 - noise / 2)


def test_a_score_of_a_shorter_training_gains_what_others_gained():
    made, (short, one, two) = archive({10: [0.5]}, {10: [0.6], 20: [0.7]}, {10: [0.4], 20: [0.7], 40: [0.8]})
    worth = Valuation(made, (10, 20, 40)).worth
    noise = 0.01
    assert worth(short) == pytest.approx(0.5 + 0.2 + 0.1 - noise)
    assert worth(one) == pytest.approx(0.7 + 0.1 - noise)
    assert worth(two) == pytest.approx(0.8 - noise)


def test_it_changes_with_every_score():
    made, (one, two) = archive({10: [0.5]}, {10: [0.6]})
    worth = Valuation(made, (10, 20)).worth
    before = worth(one)
    made.record(two, 20, 0, 0.9)
    assert worth(one) == pytest.approx(before + 0.3)


def test_before_the_first_score_it_is_the_least():
    made, (nobody,) = archive({})
    assert Valuation(made, (10,)).worth(nobody) == -math.inf


def test_noise_leaves_out_who_failed_and_is_kept_up_to_date():
    made, (one, two, _) = archive({10: [0.5, 0.6]}, {10: [0.0, 0.7]}, {20: [0.5]})
    assert made.noise(10) == pytest.approx(math.sqrt(0.005))
    assert made.noise(20) == made.noise(10), "of the nearest length below that is known"
    made.record(one, 10, 2, 0.55)
    assert made.noise(10) == pytest.approx(0.05)
    made.record(two, 20, 0, 0.5)
    made.record(two, 20, 1, 0.7)
    assert made.noise(20) == pytest.approx(math.sqrt(0.02))
    assert archive({10: [0.5]})[0].noise(10) == 0.01
