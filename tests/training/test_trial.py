from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from lossevo.errors import LossevoError
from lossevo.training import Fidelity, Split, Trial
from lossevo.training.trial import identity_of

SPLIT = Split(("a", "b"), ("c",))
TRIAL = Trial(
    {"name": "tversky", "parameters": {"w_fp": 0.3}}, Fidelity(10, 3, SPLIT), "study", ("dice", "nsd@2mm"), "original"
)


def test_it_survives_json():
    assert Trial.from_payload(json.loads(json.dumps(TRIAL.to_payload()))) == TRIAL


def test_a_rung_survives_json():
    rung = replace(TRIAL, learning_rate=0.02, length=40)
    assert Trial.from_payload(json.loads(json.dumps(rung.to_payload()))) == rung


def test_a_length_that_is_the_steps_says_nothing():
    assert replace(TRIAL, length=10).identity == TRIAL.identity
    assert {"learning_rate", "length"}.isdisjoint(TRIAL.to_payload())


def test_its_identity_is_over_all_of_it_and_nothing_else():
    """Over who is trained and validated on as well: the same loss and seed on other subjects is another training."""
    others = [
        replace(TRIAL, loss={"name": "tversky", "parameters": {"w_fp": 0.4}}),
        replace(TRIAL, study="another"),
        replace(TRIAL, metrics=("dice",)),
        replace(TRIAL, grid="working"),
        replace(TRIAL, learning_rate=0.02),
        replace(TRIAL, length=11),
        *(
            replace(TRIAL, fidelity=replace(TRIAL.fidelity, **change))
            for change in (
                {"steps": 11},
                {"seed": 4},
                {"split": Split(("a",), ("c",))},
                {"split": Split(("b", "a"), ("c",))},
                {"split": Split(("a", "b"), ("d",))},
            )
        ),
    ]
    identities = {trial.identity for trial in (TRIAL, *others)}
    assert len(identities) == 1 + len(others)
    assert all(len(identity) == 64 for identity in identities)
    shuffled = dict(reversed(TRIAL.to_payload().items()))
    assert identity_of(json.loads(json.dumps(shuffled))) == TRIAL.identity


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Split((), ("c",)), "at least one training"),
        (lambda: Split(("a",), ()), "one validation subject"),
        (lambda: Split(("a", "b"), ("c", "b")), r"\['b'\] are both trained and validated on"),
        (lambda: Fidelity(0, 0, SPLIT), "steps is 0"),
        (lambda: Fidelity(1, -1, SPLIT), "seed is -1"),
        (lambda: replace(TRIAL, learning_rate=0.0), "learning rate is 0.0, expected a number above 0"),
        (lambda: replace(TRIAL, learning_rate=math.nan), "learning rate is nan"),
        (lambda: replace(TRIAL, length=9), "a schedule of 9 steps is too short for a training of 10"),
        (lambda: replace(TRIAL, grid="own"), "grid is .own., expected one of working, original"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, complaint: str):
    with pytest.raises(LossevoError, match=complaint):
        make()


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (("dicee",), "unknown metric 'dicee'"),
        (("nsd@2.0mm",), r"metrics are .*, expected the names nsd@2mm"),
        (("dice", "dice"), "given twice"),
    ],
)
def test_metrics_are_checked_before_anything_is_trained(metrics: tuple[str, ...], message: str) -> None:
    with pytest.raises(LossevoError, match=message):
        Trial({"name": "dice"}, Fidelity(1, 0, Split(("a",), ("b",))), metrics=metrics)
