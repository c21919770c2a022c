"""A run folder whose files were damaged or edited: one line names the file, the place in it and what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def run(tmp_path, finished) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(finished.folder, tmp_path / "run", ignore=shutil.ignore_patterns(".lock")))


@pytest.fixture
def refused(cli):
    """Runs a command that must be refused with a line that holds every one of ``told``."""

    def refused_(arguments: list[object], *told: str) -> None:
        said = cli(*arguments)
        assert said.status == 2, said
        assert said.err.count("\n") == 1, said.err
        assert said.err.startswith("lossevo: ")
        assert len(said.err) < 2000
        for part in told:
            assert part in said.err

    return refused_


def commands(run: Path) -> list[list[object]]:
    """Every command that reads a hall of fame."""
    return [
        ["hof", run],
        ["hof", run, "--show", "1", "--json"],
        ["export", run, "1", "--out", "exported"],
        ["evaluate", "--losses", "dice", "--hof", f"{run}:1", "--out", "comparison", "--in-process"],
        ["analyze", "--losses", "dice", "--hof", f"{run}:1", "--out", "analysis"],
    ]


ENTRIES = {
    "null": (None, "entry 1: Input should be an object, found None"),
    "text": ("text", "entry 1: Input should be an object, found 'text'"),
    "a number": (3, "entry 1: Input should be an object, found 3"),
    "a list": ([], "entry 1: Input should be an object, found []"),
    "nothing in it": ({}, "entry 1: rank: Field required, found {}"),
}
FIELDS = {
    "rank": ("1", "entry 1: rank: Input should be a valid integer, found '1'"),
    "id": (None, "entry 1: id: Input should be a valid string, found None"),
    "score": ([], "entry 1: score: Input should be a valid number, found []"),
    "seeds": (1.5, "entry 1: seeds: Input should be a valid integer"),
    "confirmed": ("yes", "entry 1: confirmed: Input should be a valid boolean, found 'yes'"),
    "loss": ({}, "entry 1, loss: expected one of expression and learned"),
    "more": (1, "entry 1: more: Unexpected keyword argument"),
}


class TestHallOfFame:
    @pytest.fixture
    def spoilt(self, run, refused):
        def spoilt_(document: Any, *told: str) -> None:
            (run / "hall_of_fame.json").write_text(json.dumps(document))
            for command in commands(run):
                refused(command, f"{run / 'hall_of_fame.json'}: damaged (", "--resume", *told)
            assert list(Path().iterdir()) == []

        return spoilt_

    @pytest.mark.parametrize(("entry", "told"), ENTRIES.values(), ids=ENTRIES)
    def test_something_else_than_an_entry(self, spoilt, run, entry, told):
        spoilt([entry, *json.loads((run / "hall_of_fame.json").read_text())], told)

    @pytest.mark.parametrize("field", FIELDS)
    def test_something_else_than_a_field(self, spoilt, run, field):
        entries = json.loads((run / "hall_of_fame.json").read_text())
        value, told = FIELDS[field]
        spoilt([{**entries[0], field: value}, *entries[1:]], told)

    def test_the_number_of_the_entry_is_told(self, spoilt, run):
        entries = json.loads((run / "hall_of_fame.json").read_text())
        spoilt([*entries[:2], {**entries[2], "score": None}], "entry 3: score: Input should be a valid number")

    @pytest.mark.parametrize("document", [None, "text", 3, {}, {"a": []}])
    def test_no_list(self, spoilt, document):
        spoilt(document, "Input should be a valid array")

    @pytest.mark.parametrize("text", ["", "[", "[NaN]", "[" * 100_000, '[{"rank": 1, "rank": 2}]', "\0"])
    def test_no_json(self, refused, run, text):
        (run / "hall_of_fame.json").write_text(text)
        for command in commands(run):
            refused(command, "hall_of_fame.json: damaged (")

    def test_a_run_that_is_damaged_too(self, refused, run):
        (run / "hall_of_fame.json").write_text("[")
        (run / "run.json").write_text("[")
        refused(["hof", run], "hall_of_fame.json: damaged", f"lossevo search --resume {run}")

    def test_no_digits_of_another_script(self, refused, run):
        refused(["hof", run, "--show", "²"], "no loss '²' in the hall of fame")


class TestOtherFiles:
    @pytest.mark.parametrize("file", ["run.json", "subjects.json"])
    @pytest.mark.parametrize(
        "text", ["", "[]", "null", "{", "[" * 100_000, '{"task": 3}', '{"train": "abc"}', "1" * 5000]
    )
    def test_read_back_by_a_search(self, refused, run, file, text):
        (run / file).write_text(text)
        refused(["search", "--resume", run, "--in-process"], file)
        refused(["export", run, "1", "--out", "exported"], file)

    @pytest.mark.parametrize("part", ["train", "validation", "untouched", "hashes"])
    @pytest.mark.parametrize("value", [None, "abc", [1], {"a": 1}])
    def test_subjects(self, refused, run, part, value):
        document = json.loads((run / "subjects.json").read_text())
        (run / "subjects.json").write_text(json.dumps({**document, part: value}))
        refused(["export", run, "1", "--out", "exported"], f"subjects.json: damaged ({part}", "leakage")

    def test_a_pipe_is_not_waited_for(self, refused, run):
        for file in ("run.json", "subjects.json", "hall_of_fame.json"):
            (run / file).unlink()
            os.mkfifo(run / file)
            refused(["export", run, "1", "--out", "exported"], str(run))


class TestLedger:
    @pytest.fixture
    def changed(self, run):
        def changed_(statement: str, *values: object) -> None:
            with closing(sqlite3.connect(run / "ledger.sqlite")) as ledger, ledger:
                ledger.execute(statement, values)

        return changed_

    @pytest.mark.parametrize(
        ("column", "text", "told"),
        [
            ("trial", "", "damaged (no JSON"),
            ("trial", "{", "damaged (no JSON"),
            ("trial", "3", "Input should be a valid dictionary"),
            (
                "trial",
                '{"loss": {}, "split": "a", "steps": 1, "study": "", "metrics": [], "grid": "working", "seed": "x"}',
                "seed: Input should be a valid",
            ),
            ("measurement", "[", "damaged (no JSON"),
            ("measurement", "[]", "Input should be a valid dictionary"),
            (
                "measurement",
                '{"values": {"dice": {"a": {"b": "x"}}}}',
                "values.dice.a.b: Input should be a valid number, found 'x'",
            ),
            ("measurement", '{"values": {}, "curve": [1]}', "curve.0: Input should be a valid list, found 1"),
            ("measurement", '{"score": 1, "score": 2}', "the key 'score' is given twice"),
            ("measurement", None, "nothing, but the training is done"),
            ("status", "perfect", "'perfect', expected one of done"),
        ],
    )
    def test_a_training(self, refused, run, changed, column, text, told):
        changed(f"UPDATE trials SET {column} = ? WHERE ticket = 2", text)
        for command in (["hof", run, "--show", "1"], ["search", "--resume", run, "--in-process"]):
            refused(command, f"{run / 'ledger.sqlite'}: table trials, ticket 2, column {column}: damaged (", told)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[]",
            "{}",
            '{"origin": 3, "loss": {}}',
            '{"origin": {"kind": "evolved", "operator": "x", "parents": []}}',
        ],
    )
    def test_a_candidate(self, refused, run, changed, text):
        changed("UPDATE candidates SET document = ?", text)
        refused(["hof", run, "--show", "1"], "ledger.sqlite: table candidates, row '", "column document: damaged (")
