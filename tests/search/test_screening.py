from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings

from lossevo.expression import Expression, ExpressionError
from lossevo.expression.dangers import is_safe
from lossevo.losses import create, expressible_names, expression_of, names
from lossevo.search.genetic import Variation
from lossevo.search.screening import Adam, Check, Screening
from lossevo.search.space import available, load_space
from tests.expression.strategies import expressions

DICE = "1 - foreground_mean(2 * sum(p * y) / sum(p + y))"
CROSS_ENTROPY = "-class_sum(mean(y * logp))"

OVERFLOWS = "class_mean(mean(y * square(square(square(square(exp(20 * p)))))))"

EVOLVED = [
    "foreground_mean(batch_sum(p * (p / d))) + 1.78 * (1 - foreground_mean(2 * sum(p * y) / mean(square(p) + y)))",
    "1 - class_sum(2 * sum(p * y) / sum(square(p) + y)) - class_mean(mean(y * logp))",
    "1 - foreground_mean(2 * sum(p * y) / sum(p + y)) - class_mean(mean((1 - p) ^ 1.27738 * p))",
    "1 - foreground_mean(2 * sum(p * y) / sum(p + y)) - class_sum(mean((1 - p) ^ 1.35229 * y * ((1 - p) / d)))",
    "1 - class_sum(batch_mean(p * y) / square(batch_mean(y))) / class_sum(batch_mean(square(p) + y))",
    "foreground_mean(batch_sum((class_sum(mean((p + y) * (y - d))) + y) * (p / d))) + 0.59 * (1 - foreground_mean(2 * "
    "sum(p * y) / mean(square(log(p)) + y)) - class_sum(mean(y * logp)))",
]
"""Winners of past searches, and the like: protected arithmetic in them is no reason to turn them down."""

# Each is turned down by the check of its name, and by no check before it.
FAILS = {
    Check.LIMITS: None,
    Check.INPUTS: "class_mean(mean(square(p)))",
    Check.SEEN: CROSS_ENTROPY,
    Check.OVERFLOW: OVERFLOWS,
    Check.FINITE: OVERFLOWS,  # where the proof is left out
    Check.FLAT: "class_mean(mean(y * exp(50 + p)))",
    Check.EQUIVALENT: f"3 * ({CROSS_ENTROPY}) + 5",
    Check.DESCENT: "class_mean(mean(p * y))",
}


@pytest.fixture(params=[2, 4, 6], ids="{} classes".format)
def screening(request) -> Screening:
    return Screening(request.param)


def screen(screening: Screening, formula: str | None) -> Check | None:
    """The check that turns a formula down; None if it passes all."""
    before = dict(screening.rejected)
    passed = screening.screen(None if formula is None else Expression.parse(formula))
    rejected = [check for check in Check if screening.rejected[check] > before[check]]
    assert passed is not bool(rejected)
    assert len(rejected) <= 1
    return rejected[0] if rejected else None


@pytest.fixture
def without_proof(monkeypatch) -> None:
    """Take every expression for one that cannot overflow: what the check ``finite`` is for, nothing is known to be."""
    monkeypatch.setattr("lossevo.search.screening.is_safe", lambda expression: True)


class TestChecks:
    @pytest.mark.parametrize("check", Check)
    def test_each_turns_down_what_it_is_for_and_counts(self, screening, check, request):
        if check is Check.FINITE:
            request.getfixturevalue("without_proof")
        assert screen(screening, CROSS_ENTROPY) is None
        assert screen(screening, FAILS[check]) is check
        order = list(Check)
        assert screening.saw == {other: 1 + (order.index(other) <= order.index(check)) for other in Check}
        assert screening.rejected == {other: int(other is check) for other in Check}

    def test_what_overflows_may_be_finite_where_nothing_is_extreme(self):
        """So it is the proof, or the extreme logits, that find it out."""
        assert Screening(2).fingerprint(Expression.parse(OVERFLOWS))

    @pytest.mark.parametrize(
        "formula",
        [
            "class_mean(mean(square(square(square(exp(20 * p)))) * y))",  # value
            "class_mean(mean(tanh(square(square(square(square(square(exp(20 * p)))))) * y)))",  # gradient: 0 · ∞
        ],
    )
    def test_neither_value_nor_gradient_may_overflow(self, formula, request):
        assert screen(Screening(2), formula) is Check.OVERFLOW
        request.getfixturevalue("without_proof")
        assert screen(Screening(2), formula) is Check.FINITE

    def test_what_only_images_larger_than_the_probes_overflow_is_found(self, request):
        formula = "class_mean(sum(p) * sum(p) * sum(p) * sum(p) * sum(p) * sum(p - y))"
        assert screen(Screening(2), formula) is Check.OVERFLOW
        request.getfixturevalue("without_proof")
        assert screen(Screening(2), formula) is not Check.FINITE

    def test_what_protection_keeps_finite_is_let_through(self):
        assert screen(Screening(2), f"{DICE} + class_mean(mean(square(y / (p - 0.5) / 1000)))") is not Check.OVERFLOW

    @pytest.mark.parametrize("formula", ["1 + 2", "0.5 * 3.0", "class_mean(mean(y))", "class_mean(mean(y * d))"])
    def test_a_loss_without_prediction_or_target_is_none(self, formula):
        assert screen(Screening(2), formula) is Check.INPUTS

    def test_the_distance_map_is_a_target_too(self):
        assert screen(Screening(2), "foreground_mean(mean(p * d))") is None

    @pytest.mark.parametrize("name", expressible_names())
    def test_every_hand_crafted_loss_passes(self, screening, name):
        assert screening.screen(expression_of(name))

    @pytest.mark.parametrize("classes", [2, 9])
    def test_every_loss_of_the_catalogue_that_trains_a_network_would_pass(self, classes):
        """Also those that no expression can be. hausdorff_erosion trains none by itself (docs/results.md)."""
        screening = Screening(classes)
        failed = {name: screening.judge(create(name)).failed for name in names()}
        assert {name for name, check in failed.items() if check} == {"hausdorff_erosion"}

    @pytest.mark.parametrize("classes", [2, 6, 9])
    @pytest.mark.parametrize("space", available())
    def test_every_seed_passes(self, space, classes):
        """But for those that a margin makes blind: it compares a class with the largest of the others, and among three
        or more nothing raises the background.
        """
        screening = Screening(classes)
        seeds = load_space(space).seed_expressions()
        failed = {name for name, expression in seeds.items() if screening.measure(expression).failed}
        assert failed <= {name for name, expression in seeds.items() if classes > 2 and "m" in expression.terminals}

    @pytest.mark.parametrize(
        "formula",
        [
            "class_mean(mean(y / logp - logp))",
            "1 - 2 * class_sum(batch_mean(p * y) / sum((1 - p) * y)) / class_sum(batch_mean(p + y) / "
            "square(batch_mean(y)))",
        ],
    )
    def test_who_begins_slowly_passes(self, formula):
        """Of six classes: its Dice after a quarter of the descent is a tenth, at the end it is four fifths."""
        assert screen(Screening(6), formula) is None

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

    def test_what_a_candidate_is_simplified_to_must_be_new_too(self):
        """A term that is too small to matter makes another gradient of Dice, but no other loss."""
        screening = Screening(2)
        assert screen(screening, DICE) is None
        nearly = Expression.parse(f"{DICE} - 0.0001 * class_sum(mean(y * logp))")
        assert screening.screen(nearly)
        before = screening.rejected[Check.EQUIVALENT]
        assert not screening.is_new(Expression.parse(f"{DICE} + 3"), than=nearly)
        assert screening.rejected[Check.EQUIVALENT] == before + 1
        # The same gradient as its own, and a new one: both are known from now on.
        assert screening.is_new(Expression.parse(f"2 * ({nearly})"), than=nearly)
        other = Expression.parse("1 - foreground_mean(2 * sum(p * y) / sum(square(p) + y))")
        assert screening.is_new(other, than=nearly)
        assert screen(screening, f"3 * ({other})") is Check.EQUIVALENT
        assert other.hash in {hash_ for hash_, _, _ in screening.new()}

    def test_seeds_are_let_in_and_keep_their_equivalents_out(self):
        screening = Screening(2)
        seed = Expression.parse(FAILS[Check.DESCENT])
        screening.admit(seed)
        assert screen(screening, FAILS[Check.DESCENT]) is Check.SEEN
        assert screen(screening, f"2 * {FAILS[Check.DESCENT]}") is Check.EQUIVALENT
        checks = list(Check)
        assert sum(screening.saw.values()) == checks.index(Check.SEEN) + 1 + checks.index(Check.EQUIVALENT) + 1

    def test_a_seed_that_may_overflow_is_let_in_too_and_keeps_its_equivalents_out(self):
        screening = Screening(2)
        seed = Expression.parse("class_mean(mean(square(p - y)) * mean(p) ^ mean(logp))")
        assert screening.measure(seed).failed is Check.OVERFLOW
        screening.admit(seed)
        assert screen(screening, str(seed)) is Check.SEEN
        assert screening.fingerprint(seed) in screening._fingerprints


class TestProof:
    """What the check ``overflow`` lets through does not fail ``finite``; it lets through what is good."""

    @pytest.mark.parametrize("space", available())
    def test_all_seeds_pass(self, space):
        for name, expression in load_space(space).seed_expressions().items():
            assert is_safe(expression), name

    @pytest.mark.parametrize("formula", EVOLVED)
    def test_good_evolved_losses_pass(self, formula):
        assert screen(Screening(2), formula) is None

    def test_what_it_lets_through_is_finite(self):
        screening, variation = Screening(2), Variation(load_space("segmentation"), random.Random(7))
        judged: list[bool] = []
        while len(judged) < 150:
            try:
                expression = variation.trees.to_expression(variation.random_tree())
            except ExpressionError:
                continue
            failed = screening.measure(expression).failed
            judged.append(failed is Check.OVERFLOW)
            assert failed is not Check.FINITE
        assert 0 < sum(judged) < 60


class TestMeasuring:
    def test_it_depends_on_the_expression_alone(self):
        for formula in filter(None, FAILS.values()):
            expression = Expression.parse(formula)
            torch.manual_seed(1)
            before = torch.get_rng_state()
            measured = [Screening(2).measure(expression) for _ in range(2)]
            assert measured[0] == measured[1]
            assert torch.equal(torch.get_rng_state(), before)

    def test_a_screening_that_is_told_what_another_measured_judges_as_it_did(self):
        one, formulas = Screening(2), [*filter(None, FAILS.values()), DICE, CROSS_ENTROPY]
        one.admit(expression_of("focal"))
        for formula in formulas:
            screen(one, formula)
        measured, counts = one.new(), one.counts()
        assert one.new() == []
        other = Screening(2)
        other.restore(measured, counts)
        assert (other.saw, other.rejected) == (one.saw, one.rejected)
        for formula in [*formulas, f"3 * ({DICE})", str(expression_of("focal")), f"2 * {FAILS[Check.DESCENT]}"]:
            assert screen(other, formula) is screen(one, formula)

    def test_without_its_numbers_it_keeps_limits_and_takes_nothing_twice(self):
        screening = Screening(2, numeric=False)
        assert screen(screening, None) is Check.LIMITS
        assert screen(screening, "class_mean(mean(y * y))") is None, "GLO trains what has no gradient, too"
        assert screen(screening, "class_mean(mean(y * y))") is Check.SEEN
        assert screen(screening, OVERFLOWS) is None

    def test_an_equivalent_is_measured_without_a_descent(self):
        screening = Screening(2)
        screen(screening, FAILS[Check.DESCENT])
        screening.new()
        assert screen(screening, f"2 * {FAILS[Check.DESCENT]}") is Check.EQUIVALENT
        ((_, failed, fingerprint),) = screening.new()
        assert failed == "equivalent"
        assert fingerprint == screening.fingerprint(Expression.parse(FAILS[Check.DESCENT]))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_adam_is_pytorchs(self, dtype):
        generator = torch.Generator().manual_seed(1)
        start = torch.randn(3, 4, 5, generator=generator, dtype=dtype)
        mine, theirs = start.clone(), start.clone().requires_grad_()
        one, other = Adam(start, 0.2), torch.optim.Adam([theirs], lr=0.2)
        for _ in range(40):
            gradient = torch.randn(3, 4, 5, generator=generator, dtype=dtype)
            one.step(mine, gradient)
            theirs.grad = gradient
            other.step()
            assert torch.equal(mine, theirs.detach())

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
    @settings(max_examples=300)
    def test_any_expression_is_told_apart_without_an_error(self, expression):
        screening = Screening(2)
        passed = screening.screen(expression)
        assert passed is (sum(screening.rejected.values()) == 0)


def test_a_loss_that_changes_is_measured_at_more_than_one_moment() -> None:
    """At the start of a training this one is Dice, and half-way through it is no other than that with ½."""
    screening = Screening(2)
    changes = Expression.parse(f"(1 - t) * ({DICE}) + t * ({CROSS_ENTROPY})")
    still = Expression.parse(f"0.5 * ({DICE}) + 0.5 * ({CROSS_ENTROPY})")
    fingerprints = [screening.fingerprint(loss) for loss in (changes, still, Expression.parse(DICE))]
    assert len(set(fingerprints)) == 3
    assert screening.direction(changes) @ screening.direction(still) == pytest.approx(1, abs=1e-5)
    assert screening.measure(changes).failed is None


def test_a_descent_goes_through_the_whole_of_a_loss_that_changes() -> None:
    """Dice for a fifth of the descent, and the opposite ever after: only who never steps would let it in."""
    turns = Expression.parse(f"(0.2 - t) * ({DICE})")
    assert Screening(2).measure(turns).failed is Check.DESCENT
    late = Expression.parse(f"max(t - 0.02, 0) * ({DICE})")
    assert Screening(2).measure(late).failed is None


@pytest.mark.parametrize("name", ["descent", "dice"])
def test_what_is_measured_depends_on_the_expression_alone(name: str) -> None:
    """Also where an equivalent expression was seen before: the ledger keeps what is measured."""
    expression = FAILS[Check.DESCENT] if name == "descent" else str(expression_of("dice"))
    screening = Screening(2)
    screening.screen(Expression.parse(f"2 * ({expression})"))
    assert screening.measure(Expression.parse(expression)) == Screening(2).measure(Expression.parse(expression))
