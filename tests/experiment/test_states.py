"""States are a cache: bounded, and never in the way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lossevo.experiment.states import States
from lossevo.training import Fidelity, Trial
from tests.trials import trial_of


def short(seed: int) -> Trial:
    return trial_of("dice", ("a",), ("b",), 10, seed)


def longer(seed: int) -> Trial:
    found = short(seed)
    return replace(found, fidelity=Fidelity(20, seed, found.fidelity.split), continues=10)


def kept(states: States, count: int) -> list[int]:
    return [seed for seed in range(count) if states.to_continue(longer(seed)) is not None]


def test_a_state_is_there_for_the_training_that_continues_it(tmp_path):
    states = States(tmp_path / "states")
    assert states.to_continue(longer(1)) is None
    states.put(short(1), b"one")
    assert states.to_continue(longer(1)) == b"one"
    assert states.to_continue(longer(2)) is None
    assert states.to_continue(short(1)) is None
    another = replace(longer(1), loss={"name": "tversky"})
    assert states.to_continue(another) is None


def test_the_worst_go_first(tmp_path):
    states = States(tmp_path / "states", most_bytes=30)
    for seed, worth in enumerate((0.5, 0.2, 0.9)):
        states.put(short(seed), b"x" * 10)
        states.judge(short(seed), worth)
    states.put(short(3), b"x" * 10)
    assert kept(states, 4) == [0, 2, 3]
    states.put(short(4), b"x" * 20)
    assert kept(states, 5) == [3, 4], "one that is not judged yet stays"
    states.put(short(5), b"x" * 31)
    assert kept(states, 6) == [3, 4]


def test_what_was_continued_goes(tmp_path):
    states = States(tmp_path / "states")
    states.put(short(1), b"one")
    states.put(longer(1), b"two")
    states.judge(longer(1), 0.7)
    assert kept(states, 2) == []
    assert states.to_continue(replace(longer(1), fidelity=Fidelity(40, 1, longer(1).fidelity.split), continues=20))


def test_another_process_finds_them_and_keeps_the_bound(tmp_path):
    States(tmp_path / "states").put(short(1), b"x" * 10)
    states = States(tmp_path / "states", most_bytes=15)
    assert kept(states, 2) == [1]
    states.put(short(2), b"x" * 10)
    assert len(kept(states, 3)) == 1


def test_in_the_end_nothing_is_left(tmp_path):
    states = States(tmp_path / "states")
    states.put(short(1), b"one")
    states.clear()
    assert not (tmp_path / "states").exists()
    assert kept(states, 2) == []
    states.put(short(1), b"one")
    assert kept(states, 2) == [1]


@pytest.mark.parametrize("place", ["file", "link"])
def test_where_nothing_can_be_written_nothing_is_kept_and_nothing_said(tmp_path, place):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.pt").write_bytes(b"mine")
    folder = tmp_path / "states"
    if place == "file":
        folder.write_bytes(b"")
    else:
        folder.symlink_to(elsewhere)
    states = States(folder, most_bytes=10)
    states.put(short(1), b"one")
    states.clear()
    assert [path.name for path in elsewhere.iterdir()] == ["mine.pt"]
