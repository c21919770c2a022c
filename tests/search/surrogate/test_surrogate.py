from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lossevo.search.surrogate.points import Points, Scores
from lossevo.search.surrogate.probes import unit
from lossevo.search.surrogate.surrogate import Surrogate

STEPS = 75
_AXES = np.random.default_rng(11).standard_normal((3, 5, 64))


def features(x: float, y: float = 0.0) -> np.ndarray:
    """Directions that turn slowly with x and y: what a loss with two coefficients might have."""
    vectors = np.cos(x) * _AXES[0] + np.sin(x) * _AXES[1] + y * _AXES[2]
    return np.array([unit(row) for row in vectors], np.float32)


def score(x: float, rng: np.random.Generator, noise: float = 0.01) -> float:
    return 0.75 + 0.05 * np.sin(3 * x) + noise * rng.standard_normal()


def trained(count: int = 60, *, noise: float = 0.01, unit_: float = 1.0, seed: int = 0, **more: int) -> Surrogate:
    rng = np.random.default_rng(seed)
    surrogate = Surrogate(unit_, **more)
    for x in rng.uniform(0, 3, count):
        surrogate.tell(features(x), unit_ * score(x, rng, noise), steps=STEPS)
    return surrogate


GRID = np.linspace(0.1, 2.9, 25)
STACKED = np.array([features(x) for x in GRID])


class TestPrediction:
    def test_finds_the_score_beneath_the_noise(self):
        found = trained(200).predict(STACKED, steps=STEPS)
        truth = 0.75 + 0.05 * np.sin(3 * GRID)
        assert np.sqrt(np.mean(np.square(found.mean - truth))) < 0.005
        assert np.corrcoef(found.mean, truth)[0, 1] > 0.99

    def test_is_surer_near_what_it_knows(self):
        surrogate = trained()
        found = surrogate.predict(np.array([features(1.0), features(1.0, y=5.0)]), steps=STEPS)
        assert found.sd[1] > 3 * found.sd[0]

    def test_before_any_score_there_is_a_prior(self):
        found = Surrogate().predict(STACKED, steps=STEPS)
        assert not found.mean.any()
        assert (found.sd > 0).all()

    def test_a_single_score_is_what_is_expected_of_all(self):
        surrogate = Surrogate()
        surrogate.tell(features(1.0), 0.7, steps=STEPS)
        np.testing.assert_allclose(surrogate.predict(STACKED, steps=STEPS).mean, 0.7, atol=1e-5)

    def test_scales_with_the_objective_s_range(self):
        one, large = trained(), trained(unit_=50.0)
        np.testing.assert_allclose(
            large.predict(STACKED, steps=STEPS).mean, 50 * one.predict(STACKED, steps=STEPS).mean, rtol=1e-4
        )
        np.testing.assert_allclose(
            large.predict(STACKED, steps=STEPS).sd, 50 * one.predict(STACKED, steps=STEPS).sd, rtol=1e-3
        )

    def test_more_seeds_of_a_loss_make_it_surer(self):
        surrogate = trained()
        before = surrogate.predict(features(1.0)[None], steps=STEPS).sd[0]
        for _ in range(20):
            surrogate.tell(features(1.0), score(1.0, np.random.default_rng(1)), steps=STEPS)
        assert surrogate.predict(features(1.0)[None], steps=STEPS).sd[0] < 0.7 * before

    def test_failures_do_not_hide_the_differences_between_good_losses(self):
        rng, surrogate = np.random.default_rng(0), Surrogate()
        for number, x in enumerate(rng.uniform(0, 3, 150)):
            failed = number % 5 == 0
            surrogate.tell(features(x, y=5.0 * failed), 0.1 if failed else score(x, rng), steps=STEPS)
        found = surrogate.predict(STACKED, steps=STEPS)
        assert np.corrcoef(found.mean, np.sin(3 * GRID))[0, 1] > 0.97
        assert surrogate.predict(features(1.0, y=5.0)[None], steps=STEPS).mean[0] < found.mean.min()

    def test_shorter_trainings_are_evidence_of_longer_ones(self):
        """Hundred short ones and five long ones: the long ones score more, in the same order."""
        rng, surrogate = np.random.default_rng(2), Surrogate()
        for x in rng.uniform(0, 3, 100):
            surrogate.tell(features(x), score(x, rng), steps=75)
        for x in (0.2, 0.9, 1.6, 2.0, 2.8):
            surrogate.tell(features(x), score(x, rng) + 0.06, steps=150)
        short, long = (surrogate.predict(STACKED, steps=steps) for steps in (75, 150))
        assert np.corrcoef(long.mean, np.sin(3 * GRID))[0, 1] > 0.95
        assert np.mean(long.mean - short.mean) == pytest.approx(0.06, abs=0.015)
        assert (long.sd > short.sd).all()


class TestSamples:
    def test_have_the_posterior_s_mean_and_covariance(self):
        found = trained(20).predict(STACKED[::6], steps=STEPS)
        rng = np.random.default_rng(0)
        drawn = np.array([found.sample(rng) for _ in range(4000)])
        np.testing.assert_allclose(drawn.mean(axis=0), found.mean, atol=0.1 * found.sd.max())
        np.testing.assert_allclose(np.cov(drawn.T), found.covariance, atol=0.08 * found.covariance.max())

    def test_twins_get_the_same_draw(self):
        """Else a batch would be filled with copies of one lucky loss."""
        twins = np.array([features(0.4, 2.0), features(0.4, 2.0), features(2.0, 2.0)])
        drawn = trained(20).predict(twins, steps=STEPS).sample(np.random.default_rng(0))
        assert drawn[0] == pytest.approx(drawn[1], abs=1e-3)
        assert abs(drawn[0] - drawn[2]) > 1e-3


class TestCalibration:
    def test_is_one_where_predictions_hold(self):
        surrogates = [trained(120, seed=seed) for seed in range(4)]
        assert np.mean([surrogate.calibration() for surrogate in surrogates]) < 1.3
        for surrogate in surrogates:
            errors = surrogate.standardised_errors()
            assert len(errors) == 100
            assert 0.8 < errors.std() < 1.25

    def test_widens_where_scores_are_not_where_they_were_expected(self):
        surrogate = trained(60)
        before = surrogate.predict(STACKED, steps=STEPS)
        rng = np.random.default_rng(5)
        for x in rng.uniform(0, 3, 40):  # what no gradient explains
            surrogate.tell(features(x), score(x, rng) + 0.04 * rng.choice([-1, 1]), steps=STEPS)
        factor = surrogate.calibration()
        assert factor > 1.5
        after = surrogate.predict(STACKED, steps=STEPS)
        raw = surrogate._posterior(
            surrogate._points.distances_to(STACKED), np.zeros((25, 25)), np.full(25, float(STEPS))
        )
        np.testing.assert_allclose(after.sd, factor * np.sqrt(np.diagonal(raw.covariance)), rtol=1e-2)
        assert (after.sd > before.sd).all()

    def test_one_failure_widens_little(self):
        surrogate = trained(150)
        surrogate.tell(features(1.0), 0.0, steps=STEPS)
        assert surrogate.calibration() < 1.5


class TestThreadsAndOrder:
    def test_decisions_do_not_depend_on_the_number_of_threads(self):
        """Also of those that NumPy's and SciPy's own linear algebra takes: in processes of their own."""
        program = (
            "import sys, numpy as np, torch; sys.path.insert(0, sys.argv[1]); torch.set_num_threads(int(sys.argv[2]))\n"
            "import importlib.util as u; s = u.spec_from_file_location('t', sys.argv[3]); t = u.module_from_spec(s)\n"
            "sys.modules['t'] = t; s.loader.exec_module(t); m = t.trained(60)\n"
            "f = m.predict(t.STACKED, steps=75); print(m.hyperparameters, m.calibration())\n"
            "print([x.hex() for a in (f.mean, f.sd, f.covariance.ravel(), f.sample(np.random.default_rng(0)), "
            "*m.leave_one_out()) for x in a.tolist()])"
        )
        found = []
        for threads in ("1", "2"):
            environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
            arguments = [sys.executable, "-c", program, str(Path.cwd()), threads, __file__]
            found.append(subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True).stdout)
        assert found[0] == found[1]
        assert len(found[0]) > 1000

    def test_the_caller_s_threads_stay(self):
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            trained(15).predict(STACKED, steps=STEPS)
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)

    def test_asking_changes_nothing(self):
        one, asked = trained(40), Surrogate()
        rng = np.random.default_rng(0)
        for x in rng.uniform(0, 3, 40):
            asked.predict(STACKED, steps=STEPS)
            asked.tell(features(x), score(x, rng), steps=STEPS)
        assert np.array_equal(one.predict(STACKED, steps=STEPS).mean, asked.predict(STACKED, steps=STEPS).mean)


class TestLimit:
    def test_no_more_points_are_kept_than_allowed_and_none_of_the_best_are_dropped(self):
        rng, surrogate = np.random.default_rng(0), Surrogate(most_points=40)
        told = []
        for x in rng.uniform(0, 3, 150):
            told.append((score(x, rng), x))
            surrogate.tell(features(x), told[-1][0], steps=STEPS)
            assert len(surrogate) <= 40
        kept = {round(value, 12) for value in surrogate._points.scores.values}
        assert {round(value, 12) for value, _ in sorted(told)[-5:]} <= kept
        assert np.corrcoef(surrogate.predict(STACKED, steps=STEPS).mean, np.sin(3 * GRID))[0, 1] > 0.95

    def test_seeds_become_one_point_before_anything_is_dropped(self):
        surrogate, rng = Surrogate(most_points=20), np.random.default_rng(0)
        for number in range(21):
            x = 0.2 * (number % 7)
            surrogate.tell(features(x), score(x, rng), steps=STEPS)
        assert len(surrogate) == 7
        assert surrogate._points.scores.seeds.tolist() == [3] * 7


class TestPoints:
    def points(self, values, xs, steps=None) -> Points:
        points = Points()
        for i, (value, x) in enumerate(zip(values, xs, strict=True)):
            new = features(x)
            points.add(new, points.distances_to(new[None])[:, 0], value, steps[i] if steps else STEPS)
        return points

    def test_know_the_distances_among_them(self):
        points = self.points([0.7] * 40, np.linspace(0, 3, 40))
        wide = points.features.astype(np.float64)
        exact = np.square(wide[:, None] - wide[None]).sum(axis=3).mean(axis=2)
        np.testing.assert_array_equal(points.distances, exact)
        chosen = points.of(np.array([3, 30, 7]))
        np.testing.assert_array_equal(chosen.distances, exact[np.ix_([3, 30, 7], [3, 30, 7])])
        np.testing.assert_array_equal(chosen.distances_to(points.features[:2]), exact[[3, 30, 7], :2])

    def test_merged_are_the_seeds_of_a_loss_with_as_many_steps(self):
        points = self.points([0.7, 0.8, 0.6, 0.9], [1, 2, 1, 1], steps=[75, 75, 75, 150])
        merged = points.merged()
        np.testing.assert_allclose(merged.scores.values, [0.65, 0.8, 0.9])
        assert merged.scores.seeds.tolist() == [2, 1, 1]
        assert merged.scores.steps.tolist() == [75, 75, 150]

    def test_the_oldest_are_dropped_but_none_of_the_best(self):
        points = self.points([0.9, 0.1, 0.2, 0.3, 0.8, 0.4], [0, 0.5, 1, 1.5, 2, 2.5])
        assert points.fewer(4, 0.5).scores.values.tolist() == [0.9, 0.3, 0.8, 0.4]
        assert points.fewer(6, 0.5) is points


class TestBending:
    def bent(self, values, steps=STEPS):
        values = np.asarray(values, float)
        return Scores(values, np.broadcast_to(np.asarray(steps, float), values.shape), np.ones(len(values))).bent()

    def test_only_what_is_far_below_the_quantile_is_drawn_up_in_order(self):
        values = np.array([0.80, 0.79, 0.80, 0.80, 0.71, 0.60, 0.30, 0.0])
        bent = self.bent(values)
        threshold = np.quantile(values, 0.8) - 0.08
        above = values >= threshold
        np.testing.assert_array_equal(bent[above], values[above])
        assert (bent[~above] > values[~above]).all()
        assert (np.diff(bent[4:]) < 0).all()
        assert bent[-1] > threshold - 0.08

    def test_longer_trainings_have_a_threshold_of_their_own_not_below_that_of_shorter_ones(self):
        short, long = [0.7] * 6, [0.8, 0.8, 0.8, 0.8, 0.8, 0.69]
        bent = self.bent([*short, *long, 0.1], [75] * 6 + [150] * 6 + [400])
        assert bent[11] > 0.69
        np.testing.assert_array_equal(bent[:11], [*short, *long[:5]])
        assert 0.6 < bent[12] < 0.69  # the only one of its length

    def test_few_scores_stay_as_they_are(self):
        assert self.bent([0.8, 0.1]).tolist() == [0.8, 0.1]


def test_leave_one_out_leaves_out_a_loss_with_all_its_seeds():
    surrogate = trained(40)
    for value in (0.9, 0.9, 0.9):
        surrogate.tell(features(1.0, y=5.0), value, steps=STEPS)
    actual, predicted = surrogate.leave_one_out()
    assert len(actual) == 41
    assert actual[-1] == pytest.approx(0.9)
    assert predicted[-1] < 0.85
    assert np.corrcoef(actual[:-1], predicted[:-1])[0, 1] > 0.9
