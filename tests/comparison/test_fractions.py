from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossevo.comparison.fractions import (
    WHOLE,
    parse_fractions,
    part_sizes,
    require_different_parts,
    training_parts,
    warn_of_classes_out_of_parts,
)
from lossevo.comparison.leakage import FoldPlan
from lossevo.errors import LossevoError
from lossevo.metrics import FieldOfView
from lossevo.training.reference import ReferenceCase

NAMES = [f"s{number:02d}" for number in range(11)]
PLAN = FoldPlan((tuple(NAMES[:4]), tuple(NAMES[4:8]), tuple(NAMES[8:10])), (NAMES[10],), {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.1,0.25,0.5,1", (0.5, 0.25, 0.1)), (" 0.5 , 0.1", (0.5, 0.1)), ("1.0,1e-1", (0.1,)), ("0.999", (0.999,))],
)
def test_one_need_not_be_named_and_the_order_does_not_matter(text, expected):
    assert parse_fractions(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *(
            (f"0.5,{item}", f"--train-fraction has '{item}'; give shares")
            for item in ("0", "-0.1", "1.01", "nan", "inf")
        ),
        ("half", "--train-fraction has 'half'; give shares of the training subjects above 0 and up to 1"),
        ("0.1,,0.5", "--train-fraction has ''; give shares"),
        ("10%", "--train-fraction has '10%'; give shares"),
        ("1e-400", "--train-fraction has '1e-400'; give shares"),
        ("0.1,0.5,0.10", "--train-fraction names 0.1 twice"),
        ("0.5,1,1.0", "--train-fraction names 1 twice"),
        ("1", "--train-fraction names 1 alone, which is always trained with"),
    ],
)
def test_what_is_no_fraction(text, message):
    with pytest.raises(LossevoError) as refused:
        parse_fractions(text)
    assert message in str(refused.value)


def test_who_is_in_which_part():
    """The first of the training subjects in the order that NumPy draws by seed and fold, counted from 1."""
    for fold in range(3):
        trained = [name for name in NAMES if name not in PLAN.test[fold]]
        order = [trained[place] for place in np.random.default_rng([7, fold + 1]).permutation(len(trained))]
        parts = training_parts(PLAN, fold, (0.5, 0.25, 0.01), 7)
        sizes = {0.5: (4, 4, 5)[fold], 0.25: 2, 0.01: 1}  # of 7, 7 and 9 subjects, rounded half up
        assert parts == {1.0: tuple(trained), **{share: tuple(sorted(order[:size])) for share, size in sizes.items()}}
    assert part_sizes(PLAN, (0.5, 0.25), 7) == {1.0: (7, 9), 0.5: (4, 5), 0.25: (2, 2)}


def test_seed_and_fold_decide_the_draw():
    plan = FoldPlan((("x",), ("y",)), tuple(NAMES), {})
    drawn = {(seed, fold): training_parts(plan, fold, (0.5,), seed)[0.5] for seed in range(3) for fold in range(2)}
    assert len({*drawn.values()}) == 6


@given(
    folds=st.integers(1, 4),
    size=st.integers(1, 9),
    shares=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4, unique=True),
    seed=st.integers(0, 2**31 - 1),
)
def test_parts_are_nested_and_never_tested(folds, size, shares, seed):
    test = tuple(tuple(f"t{fold}{number}" for number in range(size)) for fold in range(folds))
    plan = FoldPlan(test, ("z",), {})
    for fold in range(folds):
        parts = training_parts(plan, fold, sorted(shares, reverse=True), seed)
        assert parts[WHOLE] == plan.train(fold)
        for larger, smaller in zip(parts.values(), [*parts.values()][1:], strict=False):
            assert 1 <= len(smaller) <= len(larger)
            assert {*smaller} <= {*larger}
        for share, subjects in parts.items():
            assert abs(len(subjects) - share * len(parts[WHOLE])) <= 0.5 or len(subjects) == 1


def test_fractions_that_are_the_same_subjects_are_refused():
    require_different_parts(PLAN, (0.5, 0.25), 0)
    with pytest.raises(
        LossevoError, match=r"0\.1 and 0\.15 of the 7 training subjects of fold 1 are the same 1 subject;"
    ):
        require_different_parts(PLAN, (0.5, 0.15, 0.1), 0)
    with pytest.raises(
        LossevoError, match=r"0\.95 and 1 of the 7 training subjects of fold 1 are the same 7 subjects;"
    ):
        require_different_parts(PLAN, (0.95,), 0)
    with pytest.raises(LossevoError, match="of the 9 training subjects of fold 3 are the same 3 subjects"):
        require_different_parts(PLAN, (0.36, 0.35), 0)  # of 7 subjects they are 3 and 2


def test_a_class_that_a_part_lacks_is_told():
    view = FieldOfView((4, 4, 4), (1.0, 1.0, 1.0))
    rare = training_parts(PLAN, 0, (0.5,), 0)
    who = next(name for name in rare[WHOLE] if name not in rare[0.5])
    cases = [ReferenceCase(name, name, view, {1: 1.0, **({2: 1.0} if name == who else {})}) for name in NAMES]
    with pytest.warns(
        UserWarning, match=r"--train-fraction 0\.5: none of these training subjects of fold 1.* has tumour, so no"
    ):
        warn_of_classes_out_of_parts(PLAN, (0.5,), 0, cases, ("background", "cyst", "tumour"))
