from __future__ import annotations

import numpy as np
import pytest

from lossevo.comparison.findings import findings, p_text
from lossevo.comparison.statistics import statistics_of


def told(rows, *, rope: float = 0.005) -> str:
    """The findings on scores (seeds, losses, subjects)."""
    by_seed = {
        seed: {f"l{n}": {f"s{m:02d}": float(value) for m, value in enumerate(row)} for n, row in enumerate(losses)}
        for seed, losses in enumerate(np.asarray(rows, dtype=float))
    }
    return "\n".join(findings(statistics_of(by_seed, reference="l0", rope=rope, seed=0)))


def scores(seeds: int, losses: int, subjects: int, sd: float = 0.02) -> np.ndarray:
    rng = np.random.default_rng(1)
    return 0.7 - 0.05 * np.arange(losses)[:, np.newaxis] + rng.normal(0, sd, size=(seeds, losses, subjects))


def test_the_verdict_is_first_and_the_rest_is_a_few_lines():
    lines = told(scores(2, 4, 20)).splitlines()
    assert lines[0] == "l0 is the best: it can be told apart from all others."
    assert len(lines) == 5
    assert all(len(line) < 330 for line in lines)


def test_one_seed_says_what_it_cannot_tell():
    text = told(scores(1, 3, 20))
    assert text.splitlines()[1].startswith("One seed: the luck of trainings is counted nowhere")
    assert "the smallest difference that this comparison could have found is at least 0.0" in text
    assert "For 0.005 it takes at least " in text
    assert "Signal to noise of the task: not known" in text


def test_one_seed_never_says_that_a_difference_could_be_found():
    assert "could be found" not in told(scores(1, 2, 20, sd=0.001))


def test_with_too_few_subjects_for_the_test_nothing_could_be_found():
    text = told(scores(3, 4, 7, sd=0.001))
    assert "with 7 subjects and 6 pairs of losses the smallest possible adjusted p is 0.094" in text
    assert "could have found" not in text
    assert "could have found" in told(scores(3, 4, 8, sd=0.001))


def test_a_best_that_is_not_the_reference_is_doubted_too():
    networks = np.array([0.04, 0.01, 0.025])[:, np.newaxis] + np.random.default_rng(4).normal(0, 0.001, size=(3, 20))
    rows = np.stack([np.full((3, 20), 0.5), 0.7 + networks, np.full((3, 20), 0.7)], axis=1)  # l0 is the reference
    text = told(rows)
    assert text.startswith("l1 is the best: it can be told apart from all others.")
    assert "Told apart from l1 by p, yet by less than the smallest difference that could have been found: l2." in text


def test_what_half_a_point_needs():
    assert "For 0.005 it takes " in (text := told(scores(3, 2, 20)))
    assert "more)" in text


def test_where_neither_more_subjects_nor_more_seeds_are_enough():
    subjects = np.random.default_rng(2).normal(0, 0.1, size=8)
    seeds = np.random.default_rng(3).normal(0, 0.1, size=(3, 1))
    text = told(np.stack([np.zeros((3, 8)), subjects + seeds], axis=1))
    assert "it takes more subjects and more seeds: neither alone is enough" in text


def test_a_small_p_that_other_trainings_may_turn_is_told():
    """All subjects agree, since they share the networks; the networks of three seeds do not."""
    networks = np.array([0.04, 0.01, 0.025])[:, np.newaxis] + np.random.default_rng(4).normal(0, 0.001, size=(3, 20))
    text = told(np.stack([0.7 + networks, np.full((3, 20), 0.7)], axis=1))
    assert "l0 is the best" in text
    assert "Told apart from l0 by p, yet by less than the smallest difference that could have been found: l1." in text
    firm = told(np.stack([0.9 + networks, np.full((3, 20), 0.7)], axis=1))
    assert "yet by less" not in firm


def test_a_difference_that_can_be_found_needs_nothing():
    assert "So 0.005 could be found." in told(scores(2, 2, 20, sd=0.001))


def test_without_rope_no_size_is_asked_for():
    assert "For 0" not in told(scores(2, 2, 20), rope=0)


def test_losses_that_all_tie():
    text = told(np.full((2, 3, 5), 0.5))
    assert "These 2 losses cannot be told apart from the best, l0: l1, l2. No loss can be told apart from it." in text
    assert "seeds make no difference" in text
    assert "τ" not in text


def test_one_loss_or_one_subject_has_no_finding_that_is_none():
    assert told(scores(1, 1, 5)) == ""
    assert "None" not in told(scores(2, 3, 1))


@pytest.mark.parametrize(
    ("p", "text"), [(1.0, "1"), (0.0499, "0.05"), (0.0123, "0.012"), (0.001, "0.001"), (1e-9, "<0.001")]
)
def test_p_shows_no_more_than_it_knows(p, text):
    assert p_text(p) == text
