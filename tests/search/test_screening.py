from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from lossevo.expression import Expression
from lossevo.losses import expressible_names, expression_of
from lossevo.search.screening import Check, Measured, Screening
from tests.expression.strategies import expressions

DICE = "1 - foreground_mean(2 * sum(p * y) / sum(p + y))"
CROSS_ENTROPY = "-class_sum(mean(y * logp))"

# Each is turned down by the check of its name, and by no check before it.
FAILS = {
    Check.LIMITS: None,
    Check.INPUTS: "class_mean(mean(square(p)))",
    Check.SEEN: CROSS_ENTROPY,
    Check.FINITE: "class_mean(mean(y * square(square(square(square(exp(20 * p)))))))",
    Check.FLAT: "class_mean(mean(y)) + class_mean(mean(p - p))",
    Check.EQUIVALENT: f"3 * ({CROSS_ENTROPY}) + 5",
    Check.DESCENT: "class_mean(mean(p * y))",
}


@pytest.fixture(params=[2, 4, 6], ids="{} classes".format)
def screening(request) -> Screening:
    return Screening(request.param)


def screen(screening: Screening, formula: str | None) -> Check | None:
    """The check that turns a formula down; None if it passes all."""
    before = dict(screening.rejected)
    passed = screening.screen(lambda: None if formula is None else Expression.parse(formula))
    rejected = [check for check in Check if screening.rejected[check] > before[check]]
    assert (passed is None) is bool(rejected)
    assert len(rejected) <= 1
    return rejected[0] if rejected else None


class TestChecks:
    @pytest.mark.parametrize("check", Check)
    def test_each_turns_down_what_it_is_for_and_counts(self, screening, check):
        assert screen(screening, CROSS_ENTROPY) is None
        assert screen(screening, FAILS[check]) is check
        order = list(Check)
        assert screening.saw == {other: 1 + (order.index(other) <= order.index(check)) for other in Check}
        assert screening.rejected == {other: int(other is check) for other in Check}

    def test_the_example_of_finite_is_finite_where_nothing_is_extreme(self):
        """So it is the extreme logits that find it out."""
        assert Screening(2).fingerprint(Expression.parse(FAILS[Check.FINITE]))

    @pytest.mark.parametrize(
        "formula",
        [
            "class_mean(mean(square(square(square(exp(20 * p)))) / (y - y)))",  # value
            "class_mean(mean(tanh(square(square(square(square(square(exp(20 * p)))))) * y)))",  # gradient: 0 · ∞
        ],
    )
    def test_neither_value_nor_gradient_may_overflow(self, formula):
        assert screen(Screening(2), formula) is Check.FINITE

    @pytest.mark.parametrize("formula", ["1 + 2", "0.5 * 3.0", "class_mean(mean(y))", "class_mean(mean(y * d))"])
    def test_a_loss_without_prediction_or_target_is_none(self, formula):
        assert screen(Screening(2), formula) is Check.INPUTS

    def test_the_distance_map_is_a_target_too(self):
        assert screen(Screening(2), "foreground_mean(mean(p * d))") is None

    @pytest.mark.parametrize("name", expressible_names())
    def test_every_hand_crafted_loss_passes(self, screening, name):
        assert screening.screen(lambda: expression_of(name)) is not None

    @pytest.mark.parametrize("name", expressible_names())
    def test_its_opposite_does_not_descend(self, screening, name):
        assert screen(screening, f"-({expression_of(name)})") is Check.DESCENT


class TestEquivalence:
    """What trains alike is trained once."""

    @pytest.mark.parametrize("rewrite", ["3 * ({}) + 5", "({}) / 0.125", "0.001 * ({})", "({}) * 2.5 - 7"])
    @pytest.mark.parametrize("name", expressible_names())
    def test_a_positive_factor_and_a_constant_change_nothing(self, name, rewrite):
        screening = Screening(4)
        assert screen(screening, str(expression_of(name))) is None
        assert screen(screening, rewrite.format(expression_of(name))) is Check.EQUIVALENT

    @pytest.mark.parametrize(
        ("one", "same"),
        [
            (DICE, "-foreground_mean(sum(p * y) / (sum(p) + sum(y)))"),
            (DICE, "foreground_mean(1 - 2 * sum(y * p) / (sum(y) + sum(p)))"),
            (CROSS_ENTROPY, "-class_sum(sum(logp * y)) / class_sum(sum(y))"),
            (CROSS_ENTROPY, "class_mean(-mean(logp * (y + y)))"),
            ("class_mean(mean(square(p - y)))", "class_mean(mean(square(p) - 2 * p * y + square(y)))"),
        ],
    )
    def test_algebra_changes_nothing(self, one, same):
        screening = Screening(2)
        assert screen(screening, one) is None
        assert screen(screening, same) is Check.EQUIVALENT

    @pytest.mark.parametrize("same", ["-class_sum(mean(logp * y))", "-class_sum(mean(1 * y * logp)) / 1"])
    def test_what_is_only_written_in_another_way_is_seen_without_computing(self, same):
        screening = Screening(2)
        assert screen(screening, CROSS_ENTROPY) is None
        assert screen(screening, same) is Check.SEEN

    def test_a_different_loss_is_not_equivalent(self):
        screening = Screening(2)
        fingerprints = {screening.fingerprint(expression_of(name)) for name in expressible_names()}
        assert len(fingerprints) == len(expressible_names())

    def test_what_was_turned_down_is_not_measured_again(self):
        screening = Screening(2)
        assert screen(screening, FAILS[Check.DESCENT]) is Check.DESCENT
        assert screen(screening, FAILS[Check.DESCENT]) is Check.SEEN
        assert screen(screening, f"2 * {FAILS[Check.DESCENT]}") is Check.EQUIVALENT

    def test_seeds_are_let_in_and_keep_their_equivalents_out(self):
        screening = Screening(2)
        seed = Expression.parse(FAILS[Check.DESCENT])
        assert screening.admit(seed) is seed
        assert screen(screening, FAILS[Check.DESCENT]) is Check.SEEN
        assert screen(screening, f"2 * {FAILS[Check.DESCENT]}") is Check.EQUIVALENT
        assert sum(screening.saw.values()) == 3 + 6


class TestMeasuring:
    def test_it_depends_on_the_expression_alone(self):
        for formula in filter(None, FAILS.values()):
            expression = Expression.parse(formula)
            torch.manual_seed(1)
            before = torch.get_rng_state()
            measured = [Screening(2).measure(expression) for _ in range(2)]
            assert measured[0] == measured[1]
            assert torch.equal(torch.get_rng_state(), before)

    def test_its_result_may_be_looked_up_instead(self):
        asked = []

        def look_up(expression: Expression) -> Measured:
            asked.append(expression)
            return Measured(Check.DESCENT, "known")

        screening, expression = Screening(2), Expression.parse(DICE)
        assert screening.screen(lambda: expression, look_up) is None
        assert screening.rejected[Check.DESCENT] == 1
        assert asked == [expression]

    def test_the_number_of_threads_changes_nothing(self):
        """An in-process worker sets it to one, a driver of Ray workers does not."""
        threads = torch.get_num_threads()
        try:
            found = []
            for count in (1, 2):
                torch.set_num_threads(count)
                found.append([Screening(6).measure(expression_of(name)) for name in ("dice_ce", "boundary")])
        finally:
            torch.set_num_threads(threads)
        assert found[0] == found[1]

    @given(expressions(max_depth=5))
    @settings(max_examples=300, deadline=None)
    def test_any_expression_is_told_apart_without_an_error(self, expression):
        screening = Screening(2)
        passed = screening.screen(lambda: expression)
        assert (passed is None) is (sum(screening.rejected.values()) == 1)
