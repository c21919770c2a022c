from __future__ import annotations

import pytest

from lossevo.errors import LossevoError
from lossevo.search.plan import CONFIRMATION, Account, Plan, lengths
from lossevo.search.space import Budget
from tests.search.synthetic import small_space

SPACES = {"segmentation": small_space(), "glo": small_space("glo")}


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("given", [0, 6, 10])
@pytest.mark.parametrize("horizon", [75, 400])
@pytest.mark.parametrize("trainings", [60, 96, 240, 5000])
def test_it_spends_all_of_the_budget(name, given, horizon, trainings):
    budget = SPACES[name].budget.model_copy(update={"trainings": trainings})
    try:
        plan = Plan.of(budget, given, shortest=75, horizon=horizon)
    except LossevoError:
        assert trainings < 240
        return
    assert plan.selection + plan.confirmation == plan.total == trainings * 75
    assert plan.tuning <= budget.tuning_share * plan.total
    assert plan.confirmation == plan.finalists * budget.confirmation_seeds * horizon
    assert plan.finalists >= 2


@pytest.mark.parametrize("budget", [Budget(), Budget(confirmation_seeds=40), Budget(tuning_share=0.5)])
@pytest.mark.parametrize("horizon", [75, 300])
def test_one_that_is_too_small_is_refused_with_one_that_is_not(budget, horizon):
    with pytest.raises(LossevoError, match=r"a budget of 9 trainings is too small: .* \d+ would be enough") as caught:
        Plan.of(budget.model_copy(update={"trainings": 9}), 10, shortest=75, horizon=horizon)
    enough = int(str(caught.value).split("; ")[-1].split()[0])
    plan = Plan.of(budget.model_copy(update={"trainings": enough}), 10, shortest=75, horizon=horizon)
    assert plan.selection - plan.tuning >= 12 * 75
    with pytest.raises(LossevoError):
        Plan.of(budget.model_copy(update={"trainings": enough - 1}), 10, shortest=75, horizon=horizon)


@pytest.mark.parametrize(
    ("shortest", "horizon", "expected"),
    [
        (75, 75, (75,)),
        (75, 100, (75, 100)),
        (75, 150, (75, 150)),
        (75, 300, (75, 150, 300)),
        (75, 400, (75, 150, 400)),
        (75, 1000, (75, 150, 300, 600, 1000)),
        (1, 3, (1, 2, 3)),
    ],
)
def test_lengths_double_up_to_the_horizon(shortest, horizon, expected):
    assert lengths(shortest, horizon) == expected


def test_an_account_tells_what_selection_has_left():
    account = Account(Plan(1000, 100, 600, 2))
    account.spend("evolution", 75)
    account.spend("promotion", 150)
    account.spend(CONFIRMATION, 300)
    assert (account.selection, account.left_for_selection) == (225, 775)
