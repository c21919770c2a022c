"""Strategies without trees in the real engine."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import pytest

from lossevo.experiment.origin import Evolved, HandCrafted, Variant
from lossevo.losses import from_spec
from lossevo.search.space import load_space
from lossevo.search.strategies.taylorglo import taylor_form, trainable
from tests.search.synthetic import Killed, SyntheticExecutor, run_search

NAMES = ("tuned_catalogue", "taylorglo", "auto_seg_loss")


def space_of(name: str, **budget):
    space = load_space(name)
    return space.model_copy(update={"budget": space.budget.model_copy(update={"trainings": 60, "window": 4, **budget})})


@pytest.fixture(scope="module", params=NAMES)
def searched(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / "ledger.sqlite"
    return request.param, run_search(path, space_of(request.param), seed=2, classes=3)


def test_killed_and_resumed_it_ends_as_undisturbed(searched, tmp_path):
    name, undisturbed = searched
    ledger, killed = tmp_path / "ledger.sqlite", 0
    for kill_after in (7, 13, 19, None):
        executor = SyntheticExecutor(workers=3, kill_after=kill_after)
        try:
            found = run_search(ledger, space_of(name), seed=2, classes=3, executor=executor)
        except Killed:
            killed += 1
    assert killed == 3
    assert [asdict(entry) for entry in found.entries] == [asdict(entry) for entry in undisturbed.entries]


def test_its_budget_is_spent_and_the_best_that_it_found_is_confirmed(searched):
    _, found = searched
    progress = found.events[-1].progress
    assert (progress.done, progress.total) == (60, 60)
    winner = next(entry for entry in found.entries if not isinstance(entry.origin, HandCrafted))
    assert winner.confirmed
    from_spec(winner.loss)


def test_nothing_is_trained_twice(searched):
    _, found = searched
    seen = Counter(candidate.definition.hash for candidate in found.search.archive)
    assert set(seen.values()) == {1}


def test_origins_are_told(searched):
    name, found = searched
    made = [candidate.origin for candidate in found.search.archive if not candidate.hand_crafted]
    if name == "tuned_catalogue":
        assert made
        assert all(isinstance(origin, Variant) for origin in made)
    else:
        assert {*made} == {Evolved("cma-es"), Evolved("cma-es mean")}


def test_the_invariant_is_that_of_the_cohort_s_classes(searched):
    name, found = searched
    if name == "taylorglo":
        form = taylor_form(found.search.space.wrap)
        vectors = [form.parameters(form.vector(candidate.expression)) for candidate in found.search.archive]
        assert all(trainable(vector, 3) for vector in vectors)
        assert not all(trainable(vector, 12) for vector in vectors)


def test_curves_are_found_and_confirmed_though_all_are_of_one_structure(tmp_path):
    found = run_search(tmp_path / "ledger.sqlite", space_of("auto_seg_loss", trainings=150))
    assert found.search.plan.finalists == 5
    assert sum(entry.confirmed for entry in found.entries) == 5
    assert found.events[-1].progress.done == 150
    jaccard = next(entry for entry in found.entries if isinstance(entry.origin, HandCrafted))
    assert found.entries[0].score > jaccard.score
