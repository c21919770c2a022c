from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossevo.data import (
    CaseFold,
    Fold,
    k_folds,
    nested_parts,
    read_splits,
    split_inside_fold,
    split_subjects,
    splits_json,
    stated_folds,
    subjects_of_folds,
)
from lossevo.errors import LossevoError


def names(count: int) -> list[str]:
    return [f"subject_{index:03d}" for index in range(count)]


def test_thirty_eight_subjects_split_as_documented():
    split = split_subjects(names(38), seed=0)
    assert (len(split.train), len(split.validation), len(split.untouched)) == (17, 8, 13)


@given(count=st.integers(3, 60), seed=st.integers(0, 2**32), shuffle=st.randoms(use_true_random=False))
def test_split_is_disjoint_covering_sorted_and_independent_of_order(count: int, seed: int, shuffle: random.Random):
    subjects = names(count)
    split = split_subjects(subjects, seed=seed)
    parts = (split.train, split.validation, split.untouched)
    assert sorted(sum(parts, ())) == subjects
    assert all(part and list(part) == sorted(part) for part in parts)
    shuffle.shuffle(subjects)
    assert split_subjects(subjects + subjects[:1], seed=seed) == split


def test_another_seed_gives_another_split():
    assert len({split_subjects(names(38), seed=seed) for seed in range(10)}) == 10


def test_every_subject_lands_in_every_part_for_some_seed():
    splits = [split_subjects(names(6), seed=seed) for seed in range(60)]
    for part in ("train", "validation", "untouched"):
        assert {subject for split in splits for subject in getattr(split, part)} == set(names(6))


def test_nothing_is_set_aside_when_the_share_is_zero():
    split = split_subjects(names(10), seed=1, untouched_share=0)
    assert split.untouched == ()
    assert len(split.validation) == 3


def test_too_few_subjects_to_split():
    with pytest.raises(LossevoError, match=r"2 subject\(s\) cannot be split .* add cases"):
        split_subjects(names(2), seed=0)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_share_out_of_range(share: float):
    with pytest.raises(LossevoError, match="untouched_share must be"):
        split_subjects(names(10), seed=0, untouched_share=share)


@given(count=st.integers(2, 60), k=st.integers(2, 10), seed=st.integers(0, 2**32))
def test_folds_are_disjoint_covering_and_even(count: int, k: int, seed: int):
    if k > count:
        with pytest.raises(LossevoError, match=f"{k} folds need at least {k} subjects, there are {count}"):
            k_folds(names(count), k, seed=seed)
        return
    folds = k_folds(names(count), k, seed=seed)
    assert len(folds) == k
    assert sorted(sum(folds, ())) == names(count)
    sizes = [len(fold) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    assert k_folds(reversed(names(count)), k, seed=seed) == folds


def test_parts_are_the_first_of_one_order():
    subjects = [f"s{number}" for number in range(10)]
    order = [subjects[place] for place in np.random.default_rng([3, 1]).permutation(10)]
    parts = nested_parts(reversed(subjects), (0.55, 0.14, 0.01), seed=(3, 1))
    assert parts == {0.55: tuple(sorted(order[:6])), 0.14: (order[0],), 0.01: (order[0],)}
    for share in (0, 1.1):
        with pytest.raises(LossevoError, match="a part of 10 subjects"):
            nested_parts(subjects, (share,), seed=0)


def test_one_fold_is_no_cross_validation():
    with pytest.raises(LossevoError, match="at least 2 folds, got 1"):
        k_folds(names(5), 1, seed=0)


@st.composite
def cohorts(draw: st.DrawFn, subjects: int = 2) -> dict[str, str]:
    """Case id -> subject; subjects have one to four cases."""
    count = draw(st.integers(subjects, 12))
    series = draw(st.lists(st.integers(1, 4), min_size=count, max_size=count))
    return {f"{name}_{series}": name for name, many in zip(names(count), series, strict=True) for series in range(many)}


OF_CASE = {"a_t1": "a", "a_t2": "a", "b_t1": "b", "c_t1": "c"}


class TestSplitsOfNnunet:
    """``splits_final.json``: folds in cases, which must keep every subject whole."""

    @given(cohort=cohorts(), k=st.integers(2, 5), seed=st.integers(0, 2**32))
    def test_what_is_written_is_read_and_keeps_subjects_whole(self, tmp_path_factory, cohort, k, seed):
        subjects = set(cohort.values())
        folds = k_folds(subjects, min(k, len(subjects)), seed=seed)
        file = tmp_path_factory.getbasetemp() / "splits_final.json"
        file.write_text(splits_json(folds, cohort), encoding="utf-8")
        read = read_splits(file)
        assert subjects_of_folds(read, cohort, source="file") == folds
        for fold in read:
            assert sorted(fold.train + fold.val) == sorted(cohort)
            assert {cohort[case] for case in fold.train}.isdisjoint(cohort[case] for case in fold.val)

    @given(cohort=cohorts(), data=st.data())
    def test_any_partition_of_cases_that_parts_a_subject_is_refused_by_name(self, cohort, data):
        val = data.draw(st.sets(st.sampled_from(sorted(cohort))))
        train = cohort.keys() - val
        parted = {cohort[case] for case in train} & {cohort[case] for case in val}
        folds = [CaseFold(tuple(train), tuple(val))]
        if parted:
            with pytest.raises(
                LossevoError, match=rf"fold 0 trains and tests on the same {len(parted)} .*{min(parted)}"
            ):
                subjects_of_folds(folds, cohort, source="file")
        else:
            assert subjects_of_folds(folds, cohort, source="file") == (tuple(sorted({cohort[case] for case in val})),)

    @pytest.mark.parametrize(
        ("train", "val", "message"),
        [
            ("a_t1 b_t1", "a_t2 c_t1", r"^here: fold 0 trains and tests .* 1 subject.*: a \(cases a_t1, a_t2\)"),
            ("a_t1 a_t2 b_t1", "b_t1 c_t1", r"fold 0 trains and tests on the same 1 subject\(s\): b"),
            ("a_t1 a_t2 b_t1", "c_t1 d e", r"fold 0 has 2 case\(s\) that the cohort has not: d, e; "),
            ("a_t1 a_t2", "c_t1", r'fold 0 leaves out 1 case\(s\) of the cohort: b_t1; add each to "train" or "val"'),
        ],
    )
    def test_refused(self, train, val, message):
        with pytest.raises(LossevoError, match=message):
            subjects_of_folds([CaseFold(tuple(train.split()), tuple(val.split()))], OF_CASE, source="here")

    def test_a_subject_is_tested_once(self):
        fold = CaseFold(("a_t1", "a_t2", "c_t1"), ("b_t1",))
        with pytest.raises(LossevoError, match=r"1 subject\(s\) are tested in more than one fold: b;"):
            subjects_of_folds([fold, fold], OF_CASE, source="here")

    def test_many_names_are_cut_short(self):
        with pytest.raises(LossevoError, match="x00, x01, x02, x03, x04 and 35 more"):
            subjects_of_folds([CaseFold(tuple(OF_CASE), tuple(f"x{i:02d}" for i in range(40)))], OF_CASE, source="s")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "cannot be read"),
            ("{", "cannot be read"),
            ("[]", "expected a list of folds .* found an empty list"),
            ('{"train": ["a"]}', "expected a list of folds .* found a JSON dict"),
            ('[{"train": ["a"], "val": ["b"]}, {"train": ["a"]}]', 'fold 1 needs "train" and "val"'),
            ('[{"train": ["a"], "val": []}]', 'fold 0 needs "train" and "val", each a list of at least one case id'),
            ('[{"train": "a", "val": ["b"]}]', "fold 0 needs"),
            ('[{"train": [1], "val": ["b"]}]', "fold 0 needs"),
            ("[[1]]", "fold 0 needs"),
        ],
    )
    def test_files_that_are_none(self, tmp_path: Path, content, message):
        (tmp_path / "splits.json").write_text(content)
        with pytest.raises(LossevoError, match=message) as raised:
            read_splits(tmp_path / "splits.json")
        assert "splits.json" in str(raised.value)

    def test_a_file_that_is_not_there(self, tmp_path: Path):
        with pytest.raises(LossevoError, match=r"nowhere\.json: cannot be read"):
            read_splits(tmp_path / "nowhere.json")

    def test_the_text_is_what_nnunet_reads(self):
        assert json.loads(splits_json([("a",), ("b", "c")], OF_CASE)) == [
            {"train": ["b_t1", "c_t1"], "val": ["a_t1", "a_t2"]},
            {"train": ["a_t1", "a_t2"], "val": ["b_t1", "c_t1"]},
        ]


class TestStatedFolds:
    """MONAI's datalists number the folds of their cases."""

    def test_a_numbered_fold_is_tested_and_all_else_trained_on(self):
        assert stated_folds({"a": 0, "b": 1, "c": None, "d": 0}) == (
            CaseFold(train=("b", "c"), val=("a", "d")),
            CaseFold(train=("a", "c", "d"), val=("b",)),
        )

    @pytest.mark.parametrize("folds", [{}, {"a": None}, {"a": 3, "b": 3, "c": None}])
    def test_fewer_than_two(self, folds):
        with pytest.raises(LossevoError, match=r"states [01] fold\(s\), expected at least 2"):
            stated_folds(folds)


class TestInsideFold:
    @given(count=st.integers(6, 40), of=st.integers(2, 5), seed=st.integers(0, 99))
    def test_untouched_are_the_folds_of_one_cross_validation_and_the_rest_is_shared_out(self, count, of, seed):
        splits = [split_inside_fold(names(count), Fold(number, of), seed=seed) for number in range(1, of + 1)]
        assert tuple(split.untouched for split in splits) == k_folds(names(count), of, seed=seed)
        for split in splits:
            assert sorted([*split.train, *split.validation, *split.untouched]) == sorted(names(count))
            assert split.train
            assert split.validation

    def test_too_few(self):
        with pytest.raises(LossevoError, match=r"1 subject\(s\) cannot be split"):
            split_inside_fold(names(2), Fold(1, 2), seed=0)

    @pytest.mark.parametrize("text", ["2/5", " 2/5 "])
    def test_text(self, text):
        assert str(Fold.parse(text)) == "2/5"

    @pytest.mark.parametrize("text", ["", "2", "0/5", "6/5", "1/1", "2/5/6", "-1/3", "a/b", "\u0662/5", "1.0/2"])
    def test_what_is_no_fold(self, text):
        with pytest.raises(LossevoError, match="expected which one out of how many, as in 2/5"):
            Fold.parse(text)

    def test_a_fold_beyond_the_last(self):
        with pytest.raises(ValueError, match="there is no fold 5 of 3"):
            Fold(5, 3)
