from __future__ import annotations

import pytest

from lossevo.comparison import contenders_with_specs, with_ablations
from lossevo.errors import LossevoError
from lossevo.losses import expression_of
from lossevo.losses.definitions import definition_in

TWO_TERMS = "class_mean(mean(square(p - y))) - 0.25 * class_sum(mean(y * logp))"


@pytest.fixture
def evolved(balls, searched_run):
    cohort = balls(6)
    return lambda formula, name="myo": f"{searched_run(cohort, name, evolved=formula)}:1"


def test_an_evolved_loss_is_compared_without_each_of_its_terms(evolved):
    dice, whole, first, second = with_ablations(contenders_with_specs(["dice"], [evolved(TWO_TERMS)]))
    assert [one.name for one in (dice, whole, first, second)] == [
        "dice", "myo:1", "myo:1 without term 1", "myo:1 without term 2",
    ]  # fmt: skip
    assert str(definition_in(first.spec)) == "-(0.25 * class_sum(mean(y * logp)))"
    assert str(definition_in(second.spec)) == "class_mean(mean(square(p - y)))"
    assert first.origin == f"{whole.origin}, without its term 1: (p − y)²"
    assert second.formula == "μᶜ[μ[(p − y)²]]"
    # chosen on the subjects on which the whole was
    assert first.chosen_by == second.chosen_by == whole.chosen_by


def test_what_is_left_may_be_of_the_literature_or_compared_anyway(evolved):
    dice, both = expression_of("dice"), expression_of("dice_ce")
    hof = evolved(f"{both} + 0.5 * class_mean(mean(p * p))")
    found = with_ablations(contenders_with_specs(["dice_ce"], [hof]))
    # without the last term it is Dice + CE, which is compared anyway
    assert [one.name for one in found] == ["dice_ce", "myo:1", "myo:1 without term 1", "myo:1 without term 2"]
    pure = with_ablations(contenders_with_specs([], [evolved(f"{dice} + 0.5 * class_mean(mean(p * p))", "other")]))
    assert [(one.name, one.evolved) for one in pure[1:]] == [
        ("other:1 without term 1", True), ("other:1 without term 2", False),
    ]  # fmt: skip
    assert pure[2].literature == "dice"


@pytest.mark.parametrize("losses", [["dice_ce"], []])
def test_without_terms_there_is_nothing_to_compare(evolved, losses):
    with pytest.raises(LossevoError, match=r"--ablate: no evolved loss .* sum of several terms"):
        with_ablations(contenders_with_specs(losses, [evolved("class_mean(mean(square(p - y)))")]))
