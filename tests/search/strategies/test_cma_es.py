from __future__ import annotations

import math
import random

import numpy as np
import pytest

from lossevo.experiment.candidate import Candidate
from lossevo.expression import ExpressionError
from lossevo.search.space import load_space
from lossevo.search.strategies.auto_seg_loss import metric_form
from lossevo.search.strategies.cma_es import MEAN, SAMPLE, CmaEsSearch, Form, always
from lossevo.search.strategy_settings import AutoSegLoss

FORMULA = "{0} * class_mean(mean({1} * p * y)) + {0} * class_mean(mean(square(p - {2})))"
SPACE = load_space("taylorglo")


def search(score, *, size: int = 6, accepts=always, start=(0.5, 1.0, 2.0), generations: int = 100) -> CmaEsSearch:
    settings = AutoSegLoss(kind="auto_seg_loss", sigma=0.5, generations=generations)
    form = Form(FORMULA, start)
    return CmaEsSearch(SPACE, settings, form, size, lambda candidate: score(candidate.expression), accepts)


def driven(made: CmaEsSearch, trainings: int, seed: int = 0) -> list[Candidate]:
    """Trains whatever it proposes, one after the other."""
    found = []
    for number in range(trainings):
        proposal = made.ask(random.Random(f"{seed}/{number}"))
        assert proposal is not None
        found.append(Candidate(proposal.expression, proposal.origin, number))
        made.take(found[-1])
        found[-1].record(10, number, 0.5)
        made.tell(found[-1])
    return found


def sphere(expression) -> float:
    one, two, three = Form(FORMULA, (1, 1, 1)).vector(expression)
    return -((one - 1.5) ** 2) - (two + 0.5) ** 2 - (three - 1) ** 2


class TestForm:
    def test_a_parameter_is_the_same_wherever_it_stands(self):
        form = Form(FORMULA, (0.5, 1.0, 2.0))
        assert form.expression(form.start).coefficients == (0.5, 1.0, 0.5, 2.0)
        assert form.expression(np.array([1.0, 2.0, -3.0])).coefficients == (1.0, 2.0, 1.0, -3.0)

    @pytest.mark.parametrize("by_logarithm", [False, True])
    def test_an_expression_gives_its_vector_back(self, by_logarithm):
        form = Form(FORMULA, (0.5, 1.0, 2.0), by_logarithm=by_logarithm)
        vector = np.array([0.123456, -1.5, 0.75])
        back = form.vector(form.expression(vector))
        assert back == pytest.approx(vector, rel=1e-5)
        assert form.expression(back) == form.expression(vector)

    def test_another_formula_has_none(self):
        other = metric_form(AutoSegLoss(kind="auto_seg_loss"))
        assert Form(FORMULA, (1, 1, 1)).vector(other.expression(other.start)) is None

    def test_by_logarithm_all_stay_positive(self):
        form = Form(FORMULA, (0.5, 1.0, 2.0), by_logarithm=True)
        assert min(form.expression(np.array([-5.0, -1.0, 2.0])).coefficients) > 0


class TestCmaEsSearch:
    def test_it_climbs(self):
        made = search(sphere)
        found = driven(made, 300)
        best = max(sphere(candidate.expression) for candidate in found if candidate.origin == SAMPLE)
        assert sphere(found[0].expression) < -1
        assert best > -1e-3

    def test_it_waits_for_the_end_of_a_generation(self):
        made = search(sphere, size=4)
        taken = []
        for number in range(4):
            proposal = made.ask(random.Random(number))
            taken.append(Candidate(proposal.expression, proposal.origin, number))
            made.take(taken[-1])
        for number, candidate in enumerate(taken):
            assert made.ask(random.Random(9)) is None
            candidate.record(10, number, 0.5)
            made.tell(candidate)
            made.tell(candidate)
        assert made.ask(random.Random(9)).origin == MEAN

    def test_the_mean_follows_each_generation(self):
        found = driven(search(sphere, size=4), 15)
        assert [candidate.origin == MEAN for candidate in found] == 3 * [False, False, False, False, True]
        sampled, (mean,) = found[5:9], found[9:10]
        assert mean.expression.hash not in {candidate.expression.hash for candidate in sampled}

    def test_what_is_not_accepted_is_drawn_again(self):
        found = driven(search(sphere, accepts=lambda parameters: parameters[1] > 1), 40)
        assert all(candidate.expression.coefficients[1] > 1 for candidate in found)
        assert len({candidate.expression.hash for candidate in found}) == 40

    def test_where_nothing_is_accepted_nothing_is_proposed(self):
        proposal = search(sphere, accepts=lambda parameters: False).ask(random.Random(0))
        assert proposal.expression is None

    def test_a_converged_course_begins_anew(self):
        """With nothing to choose by, CMA-ES stops after a generation."""
        made = search(lambda expression: 0.0)
        found = driven(made, 30)
        assert made.courses > 3
        starts = [np.linalg.norm(Form(FORMULA, (1, 1, 1)).vector(c.expression) - (0.5, 1.0, 2.0)) for c in found]
        assert max(starts) < 5 * 0.5 * math.sqrt(3)

    def test_a_course_ends_with_its_generations(self):
        made = search(sphere, generations=3)
        driven(made, 3 * 7 - 2)
        assert made.courses == 1
        driven(made, 2, seed=1)
        assert made.courses == 2

    def test_no_file_in_the_working_folder_is_obeyed(self, tmp_path, monkeypatch):
        """cma reads options from there: a search would take another course."""
        (tmp_path / "cma_signals.in").write_text("{'timeout': 0}", encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        made = search(sphere)
        driven(made, 30)
        assert made.courses == 1

    def test_numbers_beyond_the_limits_of_the_language_are_not_proposed(self):
        made = search(sphere, start=(1e14, 1.0, 1.0))
        assert made.ask(random.Random(0)).expression is None
        with pytest.raises(ExpressionError, match="coefficient c0 is inf"):
            Form(FORMULA, (1.0, 1.0, 1.0), by_logarithm=True).expression(np.array([800.0, 0.0, 0.0]))
