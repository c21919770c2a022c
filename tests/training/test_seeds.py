from __future__ import annotations

from itertools import combinations

import pytest

from lossevo.training.seeds import comparison_seed, confirmation_seed, selection_seed, task_seed

RUN_SEEDS = (0, 1, 2, 499, 999, 1000, 1001, 2000, 3003, 12_345, 999_999, 2_000_000, 20_261_123)


def seeds_of(run_seed: int) -> dict[str, set[int]]:
    return {
        "selection": {selection_seed(run_seed, number) for number in range(700)},
        "confirmation": {confirmation_seed(run_seed, number) for number in range(500)},
        "comparison": {comparison_seed(run_seed, number) for number in range(1000)},
        "tasks": {task_seed(run_seed, number) for number in range(2000)},
    }


def test_no_training_s_seed_is_another_s_whatever_the_runs_seeds():
    given = [(run, what, seeds) for run in RUN_SEEDS for what, seeds in seeds_of(run).items()]
    for (run, what, seeds), (other_run, other, others) in combinations(given, 2):
        assert seeds.isdisjoint(others), f"{what} of {run} and {other} of {other_run}"


def test_numbers_have_seeds_of_their_own():
    sizes = {what: len(seeds) for what, seeds in seeds_of(7).items()}
    assert sizes == {"selection": 500, "confirmation": 500, "comparison": 1000, "tasks": 2000}


@pytest.mark.parametrize("run_seed", [0, 10**12])
def test_a_seed_fits_into_64_bits(run_seed: int):
    for seed in (selection_seed, confirmation_seed, comparison_seed, task_seed):
        assert 0 <= seed(run_seed, 499) < 2**63
