"""The rules by which weights follow from values: published numbers where they are right, else worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from lossevo.errors import LossevoError
from lossevo.losses import create
from lossevo.losses.adaptive_schemes import newest_slopes, softadapt_weights

TWO = ["dice", "cross_entropy"]
PUBLISHED_HISTORY = torch.tensor(
    [[1, 150, 1500], [2, 100, 1000], [3, 50, 500], [4, 10, 100], [5, 0.1, 1]], dtype=torch.float64
)
"""Three losses over five epochs: the example of SoftAdapt's README."""


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def feed(loss, *calls):
    """Let the loss see the values of its parts, call by call."""
    for values in calls:
        loss.weights = loss.observe(tensor(*values))
        loss.calls += 1


# --- SoftAdapt ---


def published_slopes():
    """Those of the authors' code: forward differences of fourth order, slopes at the first of the five epochs."""
    slopes = tensor(-25 / 12, 4, -3, 4 / 3, -1 / 4) @ PUBLISHED_HISTORY
    # -25/12 · 150 + 400 - 150 + 40/3 - 0.025 = -49.19 for the second.
    torch.testing.assert_close(slopes, tensor(1, -49.191667, -491.916667))
    return slopes


@pytest.mark.parametrize(
    ("variant", "expected"),
    [("original", (0.99343, 0.0065666, 3.9e-22)), ("loss_weighted", (0.87978, 0.12022, 7e-20))],
)
def test_of_the_same_slopes_the_published_weights_follow(variant, expected):
    weights = softadapt_weights(published_slopes(), PUBLISHED_HISTORY.mean(dim=0), variant, 0.1)
    assert weights.sum() == pytest.approx(3)
    assert (weights / 3).tolist() == pytest.approx(expected, rel=2e-2)
    assert (weights / 3)[:2].tolist() == pytest.approx(expected[:2], abs=5e-6)


def test_normalised_slopes_keep_their_ranking():
    # Σ|s| = 1 + 49.19 + 491.92 = 542.11: exponents 0.1 · (0.00184, -0.09074, -0.90741).
    by_hand = [math.exp(0.1 * s / 542.108333) for s in (1, -49.191667, -491.916667)]
    weights = softadapt_weights(published_slopes(), torch.ones(3), "normalized", 0.1)
    assert (weights / 3).tolist() == pytest.approx([w / sum(by_hand) for w in by_hand])
    assert (weights / 3).tolist() == pytest.approx([0.344, 0.341, 0.314], abs=5e-4)

    # The README's numbers follow from Σs = -540.11, and give the loss that falls fastest the largest weight.
    turned = [math.exp(0.1 * s / -540.108333) for s in (1, -49.191667, -491.916667)]
    assert [w / sum(turned) for w in turned] == pytest.approx([0.3221, 0.3251, 0.3528], abs=5e-5)


def test_the_slope_is_that_at_the_newest_epoch():
    # Least squares over x = -2 … 2: slope Σxy/10 at the middle, curvature c = Σ(x²-2)y/14, at the end slope + 4c.
    # Second loss: (-300 - 100 + 10 + 0.2)/10 = -38.98, c = (300 - 100 - 100 - 10 + 0.2)/14 = 6.442857.
    # Third: (-3000 - 1000 + 100 + 2)/10 = -389.8, c = (3000 - 1000 - 1000 - 100 + 2)/14 = 64.428571.
    expected = tensor(1, -38.98 + 4 * 6.442857, -389.8 + 4 * 64.428571)
    torch.testing.assert_close(newest_slopes(PUBLISHED_HISTORY), expected)
    torch.testing.assert_close(expected, tensor(1, -13.208571, -132.085714))


def test_a_loss_that_has_begun_to_rise_has_a_positive_slope():
    # The authors' forward differences of fifth order say -2.07. By hand as above, over x = -2.5 … 2.5: slope
    # -8.5/17.5 at the middle, c = 21.333/37.333, at the end slope + 5c.
    history = tensor(10, 8, 6, 5, 6, 8)[:, None]
    assert (
        newest_slopes(history).item()
        == pytest.approx(-8.5 / 17.5 + 5 * 21.333333 / 37.333333)
        == pytest.approx(2.371429)
    )


@pytest.mark.parametrize("epochs", [2, 3, 5, 20])
def test_slopes_of_lines_and_parabolas_are_exact(epochs):
    time = torch.arange(epochs, dtype=torch.float64)
    curved = 0.5 * time**2 - time if epochs > 2 else -2 * time
    found = newest_slopes(torch.stack([3 - 2 * time, curved], dim=1))
    torch.testing.assert_close(found, tensor(-2, epochs - 2 if epochs > 2 else -2))


def test_weights_of_right_slopes_are_these():
    # exp(0.1 · (s - 1)) = 1, exp(-1.4208571) = 0.241507, exp(-13.308571) = 1.66e-6.
    sizes = [1.0, math.exp(-1.4208571), math.exp(-13.3085714)]
    weights = softadapt_weights(newest_slopes(PUBLISHED_HISTORY), torch.ones(3), "original", 0.1)
    assert (weights / 3).tolist() == pytest.approx([size / sum(sizes) for size in sizes])
    assert weights[0] / 3 == pytest.approx(0.80547, abs=1e-5)


@pytest.mark.parametrize("variant", ["original", "normalized", "loss_weighted"])
def test_without_slopes_or_sizes_weights_are_equal(variant):
    assert softadapt_weights(tensor(0, 0), tensor(2, 2), variant, 0.1).tolist() == [1, 1]
    assert softadapt_weights(tensor(-1, -1), tensor(0, 0), variant, 0.1).tolist() == [1, 1]


def test_a_negative_loss_has_no_negative_weight():
    assert softadapt_weights(tensor(0, 0), tensor(0.5, -3), "loss_weighted", 0.1).tolist() == [2, 0]
    assert softadapt_weights(tensor(0, 0), tensor(-1, -3), "loss_weighted", 0.1).tolist() == [1, 1]


def test_the_better_falling_loss_gains_below_zero():
    falling = tensor(-0.5, -0.1)
    assert softadapt_weights(falling, tensor(1, 1), "original", 1.0).diff() > 0
    assert softadapt_weights(falling, tensor(1, 1), "original", -1.0).diff() < 0


def test_weights_come_of_epochs_after_a_window_and_every_period():
    loss = create("softadapt", parts=TWO, window=3, period=2, beta=1.0)
    epochs = [(3, 1), (2, 1), (1.5, 1), (1.25, 1), (1, 2), (1, 4)]
    moved = []
    for first, second in epochs:
        feed(loss, (first - 0.5, second), (first + 0.5, second))
        loss.step()
        loss.step()  # an epoch without a call is none
        moved.append(loss.weights.tolist())
    # Updates at epochs 4 and 6: 2 is less than the window.
    assert moved[0] == moved[1] == moved[2] == [1, 1]
    assert moved[3] == moved[4] != moved[2]
    # The last three: 1.25, 1, 1 (slope at the end 0.125 by the parabola) and 1, 2, 4 (2.5).
    expected = softadapt_weights(tensor(0.125, 2.5), tensor(1, 1), "original", 1.0)
    torch.testing.assert_close(loss.weights, expected)


# --- CoV-Weighting ---


def test_coefficients_of_variation_by_hand():
    loss = create("cov_weighting", parts=TWO)
    feed(loss, (4, 1))
    assert loss.weights.tolist() == [1, 1]
    # Ratios 1, then 2/4 and 0.8/1: means 0.75 and 0.9, deviations 0.25 and 0.1, so c = 1/3 and 1/9.
    feed(loss, (2, 0.8))
    assert loss.weights.tolist() == pytest.approx([2 * 0.75, 2 * 0.25], rel=1e-5)


def authors_weights(calls):
    """The authors' rule with full means, one loss after the other (weights sum to 1; equal in the first two calls)."""
    variations = []
    for values in zip(*calls, strict=True):
        mean_loss = mean = total = 0.0
        for t, value in enumerate(values):
            ratio = 1.0 if t == 0 else value / mean_loss
            new = t / (t + 1) * mean + ratio / (t + 1)
            total += (ratio - mean) * (ratio - new) if t else 0.0
            mean, mean_loss = new, t / (t + 1) * mean_loss + value / (t + 1)
        variations.append(math.sqrt(total / len(values) + 1e-8) / mean)
    return [variation / sum(variations) for variation in variations]


def positive_calls(count):
    generator = torch.Generator().manual_seed(0)
    fall = torch.linspace(0, 3, count, dtype=torch.float64).neg().exp()
    noise = 1 + 0.2 * torch.rand(count, 3, generator=generator, dtype=torch.float64)
    return (noise * torch.stack([fall, 100 * fall.sqrt(), torch.ones(count)], dim=1)).tolist()


@pytest.mark.parametrize("count", [2, 3, 40])
def test_for_positive_losses_it_is_the_authors_rule(count):
    loss = create("cov_weighting", parts=["dice", "cross_entropy", "tversky"])
    calls = positive_calls(count)
    feed(loss, *calls)
    assert (loss.weights / 3).tolist() == pytest.approx(authors_weights(calls))


@pytest.mark.parametrize("decay", [1.0, 0.9])
def test_neither_scale_nor_sign_of_a_loss_matters(decay):
    calls = positive_calls(30)
    weights = []
    for scale in (1, 1000, -1000):
        loss = create("cov_weighting", parts=["dice", "cross_entropy", "tversky"], decay=decay)
        feed(loss, *([scale * a, b, c] for a, b, c in calls))
        weights.append(loss.weights)
    torch.testing.assert_close(weights[1], weights[0])
    torch.testing.assert_close(weights[2], weights[0])


def test_a_loss_that_crosses_zero_or_vanishes_breaks_nothing():
    loss = create("cov_weighting", parts=["dice", "cross_entropy", "boundary"])
    for call in range(400):
        # Boundary runs from 2 to -2, cross-entropy is 0 at first, and dice at last.
        feed(loss, (max(0.0, 1 - call / 100), 0.0 if call < 50 else 1.0, 2 - call / 100))
        assert loss.weights.isfinite().all()
        assert (loss.weights >= 0).all()
        assert loss.weights.sum() == pytest.approx(3)
    assert (loss.weights > 0.1).all()


def test_one_tiny_value_at_first_is_forgotten():
    # By the authors' ratio the second call counts 5·10⁸, and this loss has all the weight ever after.
    loss = create("cov_weighting", parts=TWO)
    feed(loss, (1e-9, 1.0), *([0.5 + 0.1 * (-1) ** k, 1 + 0.2 * (-1) ** k] for k in range(2000)))
    assert loss.weights[0] < 1.2


def test_means_that_forget_know_the_last_calls_only():
    early = [(5.0, 1.0), (0.5, 1.0)] * 20
    late = [(1 + 0.1 * (-1) ** k, 1 + 0.2 * (-1) ** k) for k in range(200)]
    weights = {}
    for decay in (1.0, 0.9):
        loss = create("cov_weighting", parts=TWO, decay=decay)
        feed(loss, *early, *late)
        weights[decay] = loss.weights
    # Of the last calls alone the variations are 0.1 and 0.2.
    torch.testing.assert_close(weights[0.9], tensor(2 / 3, 4 / 3), rtol=0.1, atol=0)
    assert weights[1.0][0] > weights[1.0][1]


def test_a_loss_that_is_always_zero_takes_no_weight_from_the_others():
    for decay in (1.0, 0.5):
        loss = create("cov_weighting", parts=TWO, decay=decay)
        feed(loss, *[(0.0, 1 + 0.2 * (-1) ** k) for k in range(300)])
        assert loss.weights[1] > 1.8


# --- uncertainty weighting ---


def test_log_variances_are_where_the_papers_objective_is_least():
    loss = create("uncertainty_weighting", parts=TWO, decay=1.0)
    feed(loss, (4, 0.5), (2, 0.3))
    # s = log 3 and log 0.4.
    s = torch.log(tensor(3, 0.4)).requires_grad_()
    objective = ((-s).exp() * tensor(3, 0.4) + s).sum()
    assert torch.autograd.grad(objective, s)[0].abs().max() < 1e-12
    torch.testing.assert_close(loss.weights, (-s.detach()).exp())
    torch.testing.assert_close(loss.regulariser(), s.detach().sum())


def test_means_over_the_last_calls():
    loss = create("uncertainty_weighting", parts=TWO, decay=0.5)
    # Plain means while they are quicker, then halves: 4, (4 + 2)/2 = 3, (3 + 1)/2 = 2.
    feed(loss, (4, 1), (2, 1), (1, 1))
    assert loss.weights.tolist() == pytest.approx([1 / 2, 1])


def test_of_a_negative_loss_the_size_counts_and_of_none_little_is_left():
    loss = create("uncertainty_weighting", parts=["dice", "boundary"])
    feed(loss, (0.0, -4.0))
    assert loss.weights.tolist() == pytest.approx([1e4, 0.25])


def test_no_scale_of_a_part_changes_the_direction():
    parts = [{"name": "dice_ce", "parameters": {"w_dice": w, "w_ce": w}} for w in (1.0, 50.0)]
    calls = [(0.7, 0.2), (0.5, 0.3), (0.6, 0.1)]
    loss = create("uncertainty_weighting", parts=parts)
    feed(loss, *((a, 50 * b) for a, b in calls))
    other = create("uncertainty_weighting", parts=[parts[0], "dice"])
    feed(other, *calls)
    torch.testing.assert_close(loss.weights * tensor(1, 50), other.weights)


@pytest.mark.parametrize(
    ("name", "chosen", "message"),
    [
        ("softadapt", {"variant": "weighted"}, "variant is 'weighted', expected 'original' or 'normalized' or"),
        ("softadapt", {"beta": float("nan")}, "beta is nan"),
        ("softadapt", {"beta": "steep"}, "beta is 'steep', expected a number$"),
        ("softadapt", {"beta": "1e9"}, r"beta is '1e9', expected a number; this is text: .* as in 1\.0e\+9$"),
        ("softadapt", {"window": 1}, "window is 1, expected a whole number from 2 to 1000"),
        ("softadapt", {"window": 10**11}, "window is 100000000000, expected a whole number from 2 to 1000"),
        ("softadapt", {"period": 0}, "period is 0, expected a whole number from 1 to 1000"),
        ("cov_weighting", {"decay": 1.5}, "decay is 1.5, expected a number from 0 to 1"),
        ("uncertainty_weighting", {"decay": -0.1}, "decay is -0.1"),
    ],
)
def test_a_value_that_a_parameter_cannot_have_is_refused(name, chosen, message):
    with pytest.raises(LossevoError, match=message):
        create(name, **chosen)
