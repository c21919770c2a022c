"""Searches inside folds: one contender, of which each fold is tested with the loss found without it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lossevo.comparison import Comparison, contenders_with_specs
from lossevo.comparison.contenders import Contender
from lossevo.comparison.leakage import plan_folds
from lossevo.comparison.nested import folds_of, nested
from lossevo.comparison.provenance import SearchRecord
from lossevo.data import Fold
from lossevo.errors import LossevoError
from lossevo.experiment import CohortSource, Subjects

HERE = CohortSource(path=Path("cohort"))
HASHES = {name: f"content of {name}" for name in "abcdef"}
LOSSES = ("class_mean(mean(y / p))", "class_mean(mean(y / p - logp))", "class_mean(mean(square(y - p)))")


def part(fold: str, tested: str, *, of_other: str = "", evolved: bool = True) -> Contender:
    """The winner of a search inside a fold that tests these of the subjects a to f."""
    others = sorted({*"abcdef"} - {*tested} | {*of_other})
    subjects = Subjects(tuple(others[1:]), tuple(others[:1]), tuple(tested), HASHES)
    record = SearchRecord(subjects=subjects, cohort=HERE, fold=Fold.parse(fold))
    return Contender(
        name=f"f{fold[0]}:1", spec={"name": "dice"}, formula=f"formula {fold}", origin=fold, evolved=evolved,
        search=record,
    )  # fmt: skip


THREE = (part("2/3", "cd"), part("1/3", "ab"), part("3/3", "ef"))
DICE = Contender(name="dice", spec={"name": "dice"}, formula="", origin="dice")


def test_searches_of_all_folds_are_one_contender_in_the_order_of_the_folds():
    first, whole = nested([DICE, *THREE])
    assert first is DICE
    assert whole.name == "nested"
    assert [member.origin for member in whole.members] == ["1/3", "2/3", "3/3"]
    assert [whole.of_fold(fold).formula for fold in range(3)] == ["formula 1/3", "formula 2/3", "formula 3/3"]
    assert folds_of(whole) == (("a", "b"), ("c", "d"), ("e", "f"))
    assert (whole.evolved, whole.literature, whole.chosen_by) == (True, None, None)


def test_one_alone_and_searches_without_a_fold_stay_what_they_are():
    assert nested([DICE, THREE[0]]) == [DICE, THREE[0]]
    plain = [replace_fold(one) for one in THREE]
    assert nested(plain) == plain


def replace_fold(contender: Contender) -> Contender:
    return contender.model_copy(update={"search": contender.search.model_copy(update={"fold": None})})


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (THREE[:2], r"a search of each of the 3 folds, but only 2/3, 1/3 are given; add --hof .* of 3/3"),
        ((*THREE, THREE[0]), r"fold 2/3 is searched twice \(f2:1"),
        ((THREE[0], part("1/2", "abc")), "of different cross-validations"),
        ((part("1/2", "abc"), part("2/2", "cdef")), r"not those of one cross-validation \(see c\).*same --seed"),
        ((part("1/2", "abc"), part("2/2", "ef")), r"not those of one cross-validation \(see d\)"),
    ],
)
def test_what_is_no_whole_cross_validation_is_refused(parts, message):
    with pytest.raises(LossevoError, match=message):
        nested(parts)


def plan(contenders, hashes=HASHES, **given):
    whole = next(one for one in contenders if one.parts)
    return plan_folds(contenders, hashes, cohort=HERE, folds=3, seed=0, given=folds_of(whole), **given)


class TestLeakage:
    def test_each_fold_is_tested_though_the_searches_of_the_others_have_seen_it(self):
        found = plan(nested(THREE))
        assert found.test == (("a", "b"), ("c", "d"), ("e", "f"))
        assert (found.leaked, found.train_only) == ({}, ())

    def test_a_copy_under_another_name_in_the_training_part_of_a_fold_is_refused(self):
        hashes = HASHES | {"a": HASHES["c"]}  # tested in fold 1, whose search has seen c
        with pytest.raises(LossevoError, match=r"nested: a would be tested .* seen the same images or labels"):
            plan(nested(THREE), hashes)
        assert plan(nested(THREE), hashes, allow_leakage=True).leaked == {"nested": ("a",)}

    def test_what_a_loss_of_the_literature_was_ranked_on_leaks_nothing(self):
        hashes = HASHES | {"a": HASHES["c"]}
        parts = [one.model_copy(update={"evolved": False}) for one in THREE]
        assert plan(nested(parts), hashes).leaked == {}

    def test_another_evolved_loss_takes_whom_it_has_seen_from_every_fold(self):
        record = SearchRecord(subjects=Subjects(("a",), ("c",), ("e",), HASHES), cohort=HERE)
        other = Contender(name="other", spec={"name": "focal"}, formula="", origin="", evolved=True, search=record)
        found = plan([*nested(THREE), other])
        assert found.test == (("b",), ("d",), ("e", "f"))
        assert found.train_only == ("a", "c")


class TestComparison:
    @pytest.fixture
    def runs(self, balls, searched_run):
        cohort = balls(9)
        runs = [
            searched_run(cohort, f"fold-{number}", fold=Fold(number, 3), evolved=formula)
            for number, formula in enumerate(LOSSES, start=1)
        ]
        return cohort, runs

    def test_each_fold_is_trained_with_the_loss_found_without_it(self, runs, configured, in_process, tmp_path):
        cohort, folders = runs
        config = configured(cohort, losses=("dice",), hof=folders[::-1], folds=None)
        comparison = Comparison.create(tmp_path / "cmp", config)
        assert comparison.plan.test == tuple(Subjects.read(run).untouched for run in folders)
        report = comparison.run(in_process)
        trials = {(one.contender.name, one.fold): one.trial for one in comparison.schedule}
        for fold, run in enumerate(folders, start=1):
            (expected,) = contenders_with_specs(hof=[f"{run}:1"])
            trial, known = trials["nested", fold], Subjects.read(run)
            assert trial.loss == expected.spec
            assert trial.fidelity.split.validate == known.untouched
            assert {*trial.fidelity.split.train} == {*known.train, *known.validation}
        assert report.reference == "nested"
        assert Comparison.open(tmp_path / "cmp").plan == comparison.plan

    def test_the_same_loss_in_every_fold_is_no_fault(self, runs, configured):
        cohort, folders = runs
        whole = configured(cohort, losses=(), hof=[f"{run}:2" for run in folders], folds=None).contenders[0]
        assert not whole.evolved
        assert len({one.identity for one in whole.parts}) == 1

    @pytest.mark.parametrize(
        ("given", "message"), [({"folds": 2}, "leave --folds 2 out"), ({"splits": "cohort"}, "leave --splits cohort")]
    )
    def test_other_folds_are_refused(self, runs, configured, given, message):
        cohort, folders = runs
        with pytest.raises(LossevoError, match=f"nested: the 3 folds are those of its searches; {message}"):
            configured(cohort, hof=folders, **{"folds": None, **given})

    def test_a_cohort_that_has_changed_is_refused(self, runs, configured, balls, tmp_path):
        _, folders = runs
        fewer = balls(8, name="fewer")
        with pytest.raises(LossevoError, match=r"1 of the 9 subjects that .* was found with are gone"):
            Comparison.create(tmp_path / "cmp", configured(fewer, hof=folders, folds=None))


def test_the_text_of_a_record_with_a_fold_can_be_read_back():
    record = THREE[0].search
    assert SearchRecord.model_validate_json(record.model_dump_json()) == record
    assert replace(record.fold, number=1) == Fold(1, 3)
