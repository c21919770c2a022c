from __future__ import annotations

import math

import numpy as np
import pytest

from lossevo.errors import LossevoError
from lossevo.experiment.candidate import Candidate
from lossevo.experiment.origin import Evolved, HandCrafted
from lossevo.experiment.scoring import DICE, Scoring
from lossevo.expression import Expression
from lossevo.metrics import Objective
from lossevo.search.findings import FILE, Findings, Rung, read_findings

LENGTHS = (10, 20)


def candidate(number: int, origin=None) -> Candidate:
    return Candidate(Expression.parse(f"-class_mean(mean(p * y * {number}.0))"), origin or Evolved("random"), number)


def of(*candidates: Candidate, lengths=LENGTHS, scoring=DICE) -> Findings:
    return Findings.of(candidates, lengths, confirmation_seeds=3, scoring=scoring)


def test_noise_is_pooled_over_losses_with_several_seeds_at_the_horizon():
    rng = np.random.default_rng(3)
    candidates = []
    for number in range(200):
        found = candidate(number)
        for seed in range(3):
            found.record(20, seed, 0.5 + number / 1000 + 0.02 * rng.standard_normal())
            found.record(20, 100 + seed, 0.5 + 0.02 * rng.standard_normal(), confirms=True)
            found.record(10, seed, rng.uniform())
        candidates.append(found)
    found = of(*candidates)
    assert found.freedom == 200 * 4
    assert found.noise == pytest.approx(0.02, rel=0.06)
    assert found.smallest_difference == pytest.approx(2.8016 * found.noise * math.sqrt(2 / 3), rel=1e-3)


def test_a_failure_is_no_noise():
    found = candidate(1)
    found.record(20, 0, 0.7)
    found.record(20, 1, 0.0)
    assert of(found).noise is None
    assert not of(found).texts()


def test_overtuning_is_that_of_the_evolved_finalists():
    lucky, unlucky, known, short = candidate(1), candidate(2), candidate(3, HandCrafted("dice")), candidate(4)
    for found, selected, confirmed in ((lucky, 0.8, 0.7), (unlucky, 0.7, 0.72), (known, 0.9, 0.5)):
        found.record(20, 0, selected)
        found.record(20, 100, confirmed, confirms=True)
    short.record(10, 0, 0.2)
    short.record(20, 100, 0.7, confirms=True)
    found = of(lucky, unlucky, known, short)
    assert found.overtuning == pytest.approx(0.04)
    assert found.finalists == 2
    assert found.texts()[-1].endswith("scored 0.0400 worse than when they were selected (mean of 2).")


@pytest.mark.parametrize(("turned", "tau"), [(1, 1.0), (-1, -1.0)])
def test_rungs_are_compared_by_those_that_trained_at_both(turned, tau):
    candidates = [candidate(number) for number in range(12)]
    for number, found in enumerate(candidates):
        found.record(10, 0, 0.5 + number / 100)
        if number < 9:
            found.record(20, 0, 0.6 + turned * number / 100)
    candidates[8].scores[20][0] = 0.0  # it failed
    found = of(*candidates)
    (rung,) = found.rungs
    assert (rung.shorter, rung.longer, rung.candidates) == (10, 20, 8)
    assert rung.tau == pytest.approx(tau)
    (text,) = found.texts()
    assert ("raise --steps" in text) is (tau < 0)
    assert not of(*candidates[:7]).rungs, "too few"


def test_in_the_unit_of_the_objective():
    scoring = Scoring(Objective.parse("hd95"), worst=-300.0)
    found = candidate(1)
    found.record(20, 0, -4.0)
    found.record(20, 1, -6.0)
    noisy = of(found, scoring=scoring)
    assert noisy.noise == pytest.approx(math.sqrt(2))
    assert "1.4142 mm (SD, 1 degrees of freedom)" in noisy.texts()[0]


def test_written_and_read(tmp_path):
    assert read_findings(tmp_path) is None
    found = Findings(20, 3, 0.01, 7, (Rung(10, 20, 9, 0.5),), None, 0)
    found.write(tmp_path)
    assert read_findings(tmp_path) == found
    (tmp_path / FILE).write_text('{"steps": "many"}')
    with pytest.raises(LossevoError, match=r"findings.json: damaged \(.*\); delete it"):
        read_findings(tmp_path)
