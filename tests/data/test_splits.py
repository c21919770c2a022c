from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossevo.data import k_folds, split_subjects
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


def test_one_fold_is_no_cross_validation():
    with pytest.raises(LossevoError, match="at least 2 folds, got 1"):
        k_folds(names(5), 1, seed=0)
