from __future__ import annotations

import numpy as np
import pytest
import torch

from lossevo.data.cohort import Volume
from lossevo.errors import LossevoError
from lossevo.expression import Expression
from lossevo.losses import expressible_names, expression_of
from lossevo.losses.symbolic import ExpressionLoss
from lossevo.search.probe_states import STATES
from lossevo.search.screening import logit_gradient
from lossevo.search.surrogate.gaussian_process import squared_distances
from lossevo.search.surrogate.probes import Probes, unit

DICE = "1 - foreground_mean(2 * sum(p * y) / sum(p + y))"
CROSS_ENTROPY = "-class_sum(mean(y * logp))"
SPACING_MM = (4.0, 4.0, 4.0)


def volume(number: int, *, classes: int = 2, shape=(20, 40, 36), spacing_mm=SPACING_MM, empty: bool = False) -> Volume:
    """Slabs of the foreground classes in a background."""
    label = np.zeros(shape, np.uint8)
    if not empty:
        for value in range(1, classes):
            first = 5 + (value - 1) * (shape[1] - 8) // (classes - 1)
            label[4 + number : 14, first : first + max(1, 20 // classes), 8:26] = value
    return Volume(f"case_{number}", f"subject_{number}", np.zeros((1, *shape), np.float32), label, spacing_mm)


def probes(*volumes: Volume, classes: int = 2, seed: int = 0, **more: int) -> Probes:
    return Probes.of(volumes or (volume(0, classes=classes), volume(1, classes=classes)), classes, seed=seed, **more)


def features(made: Probes, formula: str) -> np.ndarray:
    found = made.features(Expression.parse(formula))
    assert found is not None
    return found


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one.astype(np.float64) * other).sum(axis=1)


class TestStates:
    def test_go_from_an_untrained_network_to_a_nearly_finished_one(self):
        dice = []
        for sample in probes().samples:
            p, y = sample.logits.softmax(1)[:, 1], sample.labels[:, 0]
            dice.append(float(2 * (p * y).sum() / (p + y).sum()))
        assert dice[1] < dice[0] < 0.5 < dice[2] < dice[3] < dice[4]
        assert 0.9 < dice[4] < 1
        background_everywhere = probes().samples[1].logits.argmax(1)
        assert background_everywhere.float().mean() < 0.01

    @pytest.mark.parametrize("classes", [2, 3, 7, 20])
    def test_any_number_of_classes(self, classes):
        made = probes(classes=classes)
        assert {tuple(sample.logits.shape) for sample in made.samples} == {(2, classes, 16, 32, 32)}
        assert len(made.samples[0].labels.unique()) >= min(classes, 5)
        for name in ("dice_ce", "boundary", "lovasz_softmax") if classes == 2 else ("dice_ce", "boundary"):
            if name in expressible_names():
                found = made.features(expression_of(name))
                assert found is not None
                assert found.shape == (len(STATES), 4096)
                np.testing.assert_allclose(np.square(found).sum(axis=1), 1, atol=2e-3)

    @pytest.mark.parametrize(
        ("shape", "expected"),
        [
            ((20, 40, 36), (16, 32, 32)),
            ((64, 50, 48), (32, 32, 16)),
            ((5, 9, 40), (5, 9, 32)),
            ((3, 4, 6), (3, 4, 6)),
        ],
    )
    def test_the_crop_is_smaller_where_volumes_are_smaller(self, shape, expected):
        label = np.zeros(shape, np.uint8)
        label[1:3, 1:3, 2:4] = 1
        one = Volume("a", "a", np.zeros((1, *shape), np.float32), label, SPACING_MM)
        made = probes(one)
        assert made.samples[0].labels.shape[2:] == expected
        assert made.components == min(4096, 4 * np.prod(expected))
        assert made.features(expression_of("dice_ce")) is not None

    def test_smoothing_is_alike_in_millimetres(self):
        """Across thick slices a finished network's edge is sharper, in voxels."""
        shape = (12, 24, 24)
        label = np.zeros(shape, np.uint8)
        label[3:9, 6:18, 6:18] = 1
        image = np.zeros((1, *shape), np.float32)
        thick = probes(Volume("a", "a", image, label, (8.0, 1.0, 1.0)))
        cubic = probes(Volume("a", "a", image, label, (1.0, 1.0, 1.0)))

        def slope_across(made: Probes) -> float:
            """Of the margin, along the thick axis, in the state with the least noise for its gain."""
            logits = made.samples[4].logits
            return float((logits[:, 1] - logits[:, 0]).diff(dim=1).abs().max())

        assert slope_across(thick) > 1.2 * slope_across(cubic)
        assert thick.samples[0].distance_map.abs().max() > cubic.samples[0].distance_map.abs().max()

    def test_volumes_without_a_label_are_passed_over(self):
        made = probes(volume(0, empty=True), volume(1), volume(2, empty=True))
        assert made.samples[0].labels[0].any()
        assert made.samples[0].labels[1].any()

    def test_no_label_at_all_is_told(self):
        with pytest.raises(LossevoError, match="labelled voxel"):
            probes(volume(0, empty=True))

    @pytest.mark.parametrize("name", expressible_names())
    def test_a_class_that_no_crop_holds_is_no_trouble(self, name):
        assert probes(volume(0, classes=2), volume(1, classes=2), classes=4).features(expression_of(name)) is not None

    def test_depend_on_seed_and_volumes_alone_not_on_their_order(self):
        one, same, other = probes(), probes(volume(1), volume(0)), probes(seed=1)
        for a, b, c in zip(one.samples, same.samples, other.samples, strict=True):
            assert torch.equal(a.logits, b.logits)
            assert torch.equal(a.labels, b.labels)
            assert not torch.equal(a.logits, c.logits)
        assert np.array_equal(features(one, DICE), features(same, DICE))


class TestFeatures:
    @pytest.mark.parametrize("name", expressible_names())
    def test_a_positive_factor_and_a_constant_change_nothing(self, name):
        made, formula = probes(), str(expression_of(name))
        one = features(made, formula)
        for rewrite in ("0.125 * ({}) - 7", "1000 * ({})"):
            np.testing.assert_allclose(features(made, rewrite.format(formula)), one, atol=2**-10)

    @pytest.mark.parametrize(
        ("one", "same"),
        [
            (DICE, "-foreground_mean(sum(p * y) / (sum(p) + sum(y)))"),
            (CROSS_ENTROPY, "-class_sum(sum(logp * y)) / class_sum(sum(y))"),
            ("class_mean(mean(square(p - y)))", "class_mean(mean(square(p) - 2 * p * y + square(y)))"),
        ],
    )
    def test_are_the_same_for_the_same_loss_written_otherwise(self, one, same):
        made = probes()
        np.testing.assert_allclose(features(made, one), features(made, same), atol=2**-10)
        assert squared_distances(features(made, one)[None], features(made, same)[None]) < 1e-3

    def test_the_opposite_loss_is_as_far_away_as_possible(self):
        made = probes()
        a, b = features(made, DICE), features(made, f"-({DICE})")
        assert squared_distances(a[None], b[None]) == pytest.approx(4, abs=0.01)

    def test_distances_are_those_between_whole_gradients(self):
        """The sketch keeps them to a few hundredths, and the losses' order by distance from one of them."""
        made = probes()
        names = ["dice", "dice_ce", "cross_entropy", "focal", "tversky", "generalized_dice", "boundary", "baikal"]
        whole, sketched = [], []
        for name in names:
            expression = expression_of(name)
            rows = [
                logit_gradient(ExpressionLoss(expression), sample, progress=state.progress)
                for sample, state in zip(made.samples, STATES, strict=True)
            ]
            whole.append([row.flatten().double() / row.flatten().double().norm() for row in rows])
            sketched.append(made.features(expression))
        found = squared_distances(np.array(sketched), np.array(sketched))
        for i, j in np.ndindex(len(names), len(names)):
            exact = np.mean([float((a - b).square().sum()) for a, b in zip(whole[i], whole[j], strict=True)])
            assert found[i, j] == pytest.approx(exact, abs=0.05)

    def test_few_components_are_all_kept(self):
        one = volume(0, shape=(6, 6, 6))
        one.label[2:4, 2:4, 2:4] = 1
        made = probes(one)
        assert made.components == 2 * 2 * 6**3
        loss = expression_of("cross_entropy")
        gradient = logit_gradient(ExpressionLoss(loss), made.samples[0], progress=0.0).flatten().numpy()
        found = made.features(loss)
        assert found is not None
        np.testing.assert_allclose(
            np.sort(np.abs(found[0])), np.sort(np.abs(unit(gradient.astype(np.float64)))), atol=2**-11
        )

    def test_a_loss_that_changes_is_measured_at_the_moment_of_each_state(self):
        made = probes()
        changes = features(made, f"(1 - t) * ({DICE}) + t * ({CROSS_ENTROPY})")
        np.testing.assert_allclose(changes[0], features(made, DICE)[0], atol=2**-10)
        np.testing.assert_allclose(changes[-1], features(made, CROSS_ENTROPY)[-1], atol=2**-10)
        between = [cosines(changes, features(made, formula))[2] for formula in (DICE, CROSS_ENTROPY)]
        assert max(between) < 0.999

    def test_what_is_not_finite_has_none(self):
        assert probes().features(Expression.parse("class_mean(mean(y * square(square(square(exp(20 * p))))))")) is None

    def test_what_does_not_depend_on_the_prediction_has_rows_of_zeros(self):
        assert not features(probes(), "class_mean(mean(y))").any()

    def test_the_number_of_threads_changes_nothing(self):
        made, threads = probes(classes=7), torch.get_num_threads()
        found = []
        try:
            for count in (1, 2):
                torch.set_num_threads(count)
                found.append(features(made, f"{DICE} + {CROSS_ENTROPY}"))
                assert torch.get_num_threads() == count
        finally:
            torch.set_num_threads(threads)
        assert np.array_equal(*found)

    def test_are_on_a_grid_whose_products_are_exact(self):
        found = features(probes(), DICE)
        assert np.array_equal(found * 2**11, np.round(found * 2**11))


def test_a_tiny_vector_has_a_direction_too():
    np.testing.assert_allclose(unit(np.array([3e-200, 4e-200])), [0.6, 0.8], atol=2**-11)
    assert not unit(np.zeros(3)).any()
