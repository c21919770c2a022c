from __future__ import annotations

from itertools import combinations

import pytest

from lossevo.errors import LossevoError
from lossevo.training.seeds import (
    CANDIDATES,
    MAX_RUN_SEED,
    REPETITIONS,
    comparison_seed,
    confirmation_seed,
    meta_confirmation_seed,
    meta_evaluation_seed,
    selection_seed,
    task_seed,
)

RUN_SEEDS = (0, 1, 2, 499, 999, 1000, 1001, 2000, 3003, 12_345, 999_999, 2_000_000, 20_261_123, MAX_RUN_SEED)


def seeds_of(run_seed: int) -> dict[str, set[int]]:
    return {
        "selection": {
            selection_seed(run_seed, candidate, repetition) for candidate in range(1200) for repetition in range(6)
        },
        "confirmation": {confirmation_seed(run_seed, number) for number in range(500)},
        "comparison": {comparison_seed(run_seed, number) for number in range(1000)},
        "tasks": {task_seed(run_seed, number) for number in range(2000)},
        "evaluation": {meta_evaluation_seed(run_seed, number) for number in range(500)},
        "confirmation of what was learned": {meta_confirmation_seed(run_seed, number) for number in range(500)},
    }


def test_no_training_s_seed_is_another_s_whatever_the_runs_seeds():
    given = [(run, what, seeds) for run in RUN_SEEDS for what, seeds in seeds_of(run).items()]
    for (run, what, seeds), (other_run, other, others) in combinations(given, 2):
        assert seeds.isdisjoint(others), f"{what} of {run} and {other} of {other_run}"


def test_every_candidate_and_every_repetition_has_a_seed_of_its_own():
    sizes = {what: len(seeds) for what, seeds in seeds_of(7).items()}
    assert sizes == {
        "selection": 7200,
        "confirmation": 500,
        "comparison": 1000,
        "tasks": 2000,
        "evaluation": 500,
        "confirmation of what was learned": 500,
    }


@pytest.mark.parametrize("run_seed", [0, MAX_RUN_SEED])
def test_a_seed_fits_into_64_bits(run_seed: int):
    largest = selection_seed(run_seed, CANDIDATES - 1, REPETITIONS - 1)
    for seed in (confirmation_seed, comparison_seed, task_seed, meta_evaluation_seed, meta_confirmation_seed):
        assert 0 <= seed(run_seed, 2**29 - 1) < 2**63
    assert 0 <= largest < confirmation_seed(run_seed, 0)


@pytest.mark.parametrize(("candidate", "repetition"), [(CANDIDATES, 0), (0, REPETITIONS), (-1, 0)])
def test_beyond_them_no_seed_is_used_twice(candidate: int, repetition: int):
    with pytest.raises(LossevoError, match="a search has seeds for 1048576 candidates and 512 repetitions"):
        selection_seed(0, candidate, repetition)
    with pytest.raises(LossevoError, match="fewer trainings"):
        confirmation_seed(0, 2**29)
