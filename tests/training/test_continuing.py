"""A trial that continues another is that trial trained on, whether or not the other's state is at hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lossevo.errors import LossevoError
from lossevo.training import Measurement, Trial
from lossevo.training.session import Session
from lossevo.training.trial import KEEPS, STATE
from lossevo.training.worker import TrainingWorker
from tests.training.test_session import OPEN_ENDED, request, trainer

SHORT = request(steps=6)
LONG = replace(request(steps=14), continues=6)


def train(trial: Trial, state: bytes | None = None) -> tuple[Measurement, bytes]:
    kept: list[bytes] = []
    found = trainer(**OPEN_ENDED).train(trial, state=state, keep=kept.append)
    return replace(found, seconds=0.0), kept[0]


@pytest.fixture(scope="module")
def short() -> tuple[Measurement, bytes]:
    return train(SHORT)


def test_with_the_state_or_without_the_result_is_the_same(short):
    _, state = short
    continued, anew = train(LONG, state), train(LONG)
    assert continued[0] == anew[0]
    whole, _ = train(request(steps=14))
    assert continued[0].values == whole.values
    assert continued[0].curve == whole.curve


def test_it_makes_its_own_steps_alone(short, monkeypatch):
    made = []
    advance = Session.advance
    monkeypatch.setattr(Session, "advance", lambda session, steps: made.append(steps) or advance(session, steps))
    train(LONG, short[1])
    assert sum(made) == LONG.own_steps == 8
    assert SHORT.own_steps == 6


def test_only_its_own_steps_are_validated(short):
    found, _ = train(LONG, short[1])
    assert [step for step, _ in found.validation_curve] == [9, 12, 14]
    assert [step for step, _ in short[0].validation_curve] == [2, 4, 6]


def test_three_in_a_row(short):
    _, state = train(LONG, short[1])
    last = replace(request(steps=20), continues=14)
    assert train(last, state)[0] == train(last)[0]


@pytest.mark.parametrize("wrong", ["nothing", "half", "other loss", "other length"])
def test_a_state_that_does_not_fit_is_none(short, wrong):
    state = {
        "nothing": lambda: b"",
        "half": lambda: short[1][: len(short[1]) // 2],
        "other loss": lambda: train(request("cross_entropy", steps=6))[1],
        "other length": lambda: train(request(steps=5))[1],
    }[wrong]()
    assert train(LONG, state)[0] == train(LONG)[0]


def test_a_worker_gives_and_takes_states(short):
    worker = TrainingWorker(trainer(**OPEN_ENDED).data)
    first = worker(SHORT.to_payload() | {KEEPS: True})
    assert STATE not in worker(SHORT.to_payload())
    second = worker(LONG.to_payload() | {STATE: first[STATE]})
    assert second["values"] == train(LONG)[0].values
    assert STATE not in second


@pytest.mark.parametrize("continues", [0, 14, 20, -1])
def test_there_must_be_something_to_continue_and_something_left(continues):
    with pytest.raises(LossevoError, match=f"a training of 14 steps cannot continue one of {continues}; give fewer"):
        replace(LONG, continues=continues)
