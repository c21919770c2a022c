"""A program that proposes losses beside a strategy."""

from __future__ import annotations

import itertools
import json
import random
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lossevo.errors import LossevoError
from lossevo.experiment.origin import Evolved, Seed
from lossevo.search.screening import Screening
from lossevo.search.strategies import create_strategy, program
from lossevo.search.strategies.program import EVERY, ORIGIN, Program, WithProgram
from tests.conformance.strategy import Dialogue, StrategyConformance
from tests.search.synthetic import Killed, SyntheticExecutor, run_search, small_space

SCREENING = Screening(2)
DICE = "1 - foreground_mean({}.0 * sum(p * y) / sum(p + y)) - 0.{} * class_sum(mean(y * logp))"

Write = Callable[[str], str]


@pytest.fixture
def script(tmp_path) -> Write:
    """Writes a Python program that has the document in ``given``; returns its command."""

    def write(body: str) -> str:
        file = tmp_path / "propose me.py"
        file.write_text(f"import json, sys\ngiven = json.load(sys.stdin)\n{body}\n")
        return shlex.join([sys.executable, str(file)])

    return write


PROPOSING = f"""
for number in range(given["wanted"]):
    print("{DICE}".format(number + 2, len(given["proposed"]) + number + 1))
"""


class TestConformance(StrategyConformance):
    @pytest.fixture
    def make(self, script):
        command, space = script(PROPOSING), small_space()

        def made() -> WithProgram:
            strategy = create_strategy(space, expected=40, worth=lambda c: c.score, direction=SCREENING.direction)
            return WithProgram(strategy, Program(command), lambda: [])

        return made

    def test_it_is_asked_when_trainings_have_ended(self, make):
        dialogue = Dialogue(make()).go(60)
        origins = [proposal.origin for proposal in dialogue.proposals]
        assert ORIGIN not in origins[:EVERY]
        assert 8 <= origins.count(ORIGIN) <= 3 * 8
        assert sum(origin != ORIGIN for origin in origins) > 20


class TestProgram:
    def test_it_gets_the_hall_of_fame_and_the_language(self, script, tmp_path):
        command = script(f"open({str(tmp_path / 'got.json')!r}, 'w').write(json.dumps(given))")
        run_search(tmp_path / "l", small_space(trainings=48), program=Program(command))
        got = json.loads((tmp_path / "got.json").read_text())
        assert got["objective"] == "dice"
        assert got["terminals"].keys() >= {"p", "y", "logp", "d"}
        assert "foreground_mean(a)" in got["primitives"]
        best = got["hall_of_fame"][0]
        assert (best["rank"], best["confirmed"]) == (1, False)
        assert {"id", "formula", "score", "seeds", "origin"} <= best.keys()

    def test_only_formulas_are_taken_and_each_once(self, script):
        said: list[str] = []
        command = script("print('# two of them\\n\\np * y\\nclass_mean(mean(p))\\nclass_mean(mean(p))\\nos.remove(1)')")
        assert Program(command, said.append).formulas({}) == ["class_mean(mean(p))"]
        assert len(said) == 2
        assert all(line.startswith("the program that proposes printed no formula: ") for line in said)

    @pytest.mark.parametrize(
        ("body", "complains"),
        [("sys.exit('no model here')", "ended with status 1: no model here"), ("1 / 0", "ZeroDivisionError")],
    )
    def test_a_failure_is_told_and_ends_nothing(self, script, tmp_path, body, complains):
        said: list[str] = []
        found = run_search(tmp_path / "l", small_space(trainings=40), program=Program(script(body), said.append))
        assert found.entries
        assert said
        assert all(complains in line for line in said)

    @pytest.mark.parametrize(
        ("command", "complains"),
        [("", "no program ''"), ("no-such-program --x", "no program 'no-such-program'"), ("'", "No closing quotation")],
    )
    def test_one_that_cannot_be_run_is_refused(self, command, complains):
        with pytest.raises(LossevoError, match=complains):
            Program(command)

    def test_of_many_lines_that_are_no_formula_few_are_told(self, script):
        said: list[str] = []
        Program(script("print('nonsense(\\n' * 500 + 'class_mean(mean(p))')"), said.append).formulas({})
        assert len(said) == 4
        assert said[-1] == "the program that proposes printed 497 more lines that are no formula"

    def test_one_that_never_stops_printing_is_ended_with_all_that_it_started(self, script, tmp_path):
        said: list[str] = []
        beacon = tmp_path / "alive"
        child = f"import pathlib, time\nwhile True: pathlib.Path({str(beacon)!r}).touch(); time.sleep(0.02)"
        body = f"""
import subprocess
subprocess.Popen([sys.executable, '-c', {child!r}])
import pathlib, time
while not pathlib.Path({str(beacon)!r}).exists(): time.sleep(0.01)
while True: print('x' * 1000)
"""
        assert Program(script(body), said.append).formulas({}) == []
        assert said == ["the program that proposes printed more than 1 MiB, of which nothing is taken"]
        time.sleep(0.1)
        beacon.unlink()
        time.sleep(0.3)
        assert not beacon.exists(), "its child is still there"

    def test_one_that_takes_too_long_is_ended(self, script, monkeypatch):
        monkeypatch.setattr(program, "_TIMEOUT_S", 0.5)
        said: list[str] = []
        assert Program(script("import time; time.sleep(60)"), said.append).formulas({}) == []
        assert said == ["the program that proposes took longer than 0.5 s"]

    def test_one_that_does_not_read_what_it_is_given(self, tmp_path):
        file = tmp_path / "deaf.py"
        file.write_text("print('class_mean(mean(p))')")
        command = shlex.join([sys.executable, str(file)])
        assert Program(command).formulas({"much": "x" * 10**6}) == ["class_mean(mean(p))"]

    def test_no_shell_sees_the_command(self, tmp_path):
        Program(f"echo hello > {tmp_path / 'file'}").formulas({})
        assert not (tmp_path / "file").exists()


class TestSearch:
    SPACE = small_space(trainings=60, tuning_share=0)

    def test_what_it_proposes_is_screened_trained_and_bred_from(self, script, tmp_path):
        found = run_search(tmp_path / "l", self.SPACE, seed=2, program=Program(script(PROPOSING)))
        own = {candidate.id for candidate in found.search.archive if candidate.origin == ORIGIN}
        assert len(own) >= 3
        parents = {
            parent
            for candidate in found.search.archive
            if isinstance(candidate.origin, Evolved)
            for parent in candidate.origin.parents
        }
        assert own & parents

    def test_killed_it_follows_what_was_proposed_also_without_the_program(self, script, tmp_path):
        def searched(path: Path, *, again: bool = True):
            for life in itertools.count():
                executor = SyntheticExecutor(2, random.Random(life), kill_after=23)
                asked = Program(script(PROPOSING)) if again or not life else None
                try:
                    return run_search(path, self.SPACE, seed=2, executor=executor, program=asked)
                except Killed:
                    continue
            raise AssertionError("it never ends")

        expected = run_search(tmp_path / "a", self.SPACE, seed=2, program=Program(script(PROPOSING)))
        assert searched(tmp_path / "b").entries == expected.entries
        without = searched(tmp_path / "c", again=False)
        assert any(candidate.origin == ORIGIN for candidate in without.search.archive)


def test_a_loss_that_the_search_begins_with_is_not_trained_as_the_programs(script, tmp_path):
    seeds = tuple(DICE.format(number, 3) for number in range(2, 26))
    command = script(f"print('\\n'.join({seeds[-6:]}))")
    space = small_space(trainings=48, confirmation_share=0.1).model_copy(update={"seeds": seeds})
    found = run_search(tmp_path / "l", space, program=Program(command), seed=1)
    assert sum(isinstance(candidate.origin, Seed) for candidate in found.search.archive) == len(seeds)
