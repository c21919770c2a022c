from __future__ import annotations

import json
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

import lossevo
from lossevo.cluster import Outcome, Status
from lossevo.errors import LossevoError
from lossevo.experiment.folder import locked
from lossevo.experiment.ledger import MAY_BRANCH, SCHEMA, Ledger, Record
from lossevo.training import Measurement
from lossevo.training.trial import identity_of
from tests.trials import trial_of

TRIAL = trial_of("dice", ("a",), ("b",), 3).to_payload()
VALUE = Measurement({"dice": {"b": {"L1": 0.1 + 0.2}}}, [[1, 0.5]], [[3, 0.3]], 1.0).to_payload()
DONE = Outcome(Status.DONE, VALUE, "", 1.5, "host:1", 2)
FAILED = Outcome(Status.DIVERGED, None, "FloatingPointError: at step 3 — ∞ (trainer.py:7)", 0.5, "host:2")


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path):
    with Ledger(path, create=True) as opened:
        yield opened


def reopened(path: Path) -> list[Record]:
    with Ledger(path, read_only=True) as ledger:
        return ledger.records()


class TestRecords:
    def test_a_training_comes_back_as_it_went_in(self, ledger, path):
        ledger.submit(0, "evolution", "3fa9c1d2", TRIAL)
        assert ledger.record(0) == Record(0, "evolution", "3fa9c1d2", TRIAL, None)
        ledger.finish(0, DONE)
        assert ledger.record(0).outcome == DONE
        assert reopened(path) == ledger.records() == [Record(0, "evolution", "3fa9c1d2", TRIAL, DONE)]

    @pytest.mark.parametrize("status", [status for status in Status if status is not Status.DONE])
    def test_so_does_a_failure(self, ledger, status):
        failed = Outcome(status, None, FAILED.error, 0.5, "host:2", 5)
        ledger.submit(0, "tuning", "x", TRIAL)
        ledger.finish(0, failed)
        assert ledger.record(0).outcome == failed

    def test_what_was_never_asked_for_is_unknown(self, ledger):
        assert ledger.record(0) is None
        assert ledger.text("x") is ledger.candidate("x") is None
        assert ledger.measured() == []
        assert ledger.records() == []

    def test_trainings_are_listed_in_the_order_of_asking(self, ledger):
        for ticket in (2, 0, 1):
            ledger.submit(ticket, "evolution", str(ticket), TRIAL)
        assert [record.ticket for record in ledger.records()] == [0, 1, 2]

    def test_whom_its_trainings_saw(self, ledger, path):
        assert ledger.subjects_used() == (frozenset(), frozenset())
        for ticket, (train, validate) in enumerate([(["a", "ü"], ["b"]), (["a", "ü"], ["b"]), (["c"], ["a"])]):
            split = {"train": train, "validate": validate}
            ledger.submit(ticket, "evolution", f"loss{ticket}", {**TRIAL, "split": split})
        with Ledger(path, read_only=True) as opened:
            assert opened.subjects_used() == ({"a", "ü", "c"}, {"a", "b"})
            assert opened.has_trial_of("loss2")
            assert not opened.has_trial_of("loss")

    @pytest.mark.parametrize("train", [None, "a", [], [1], [["a"]], {"a": 1}])
    def test_a_training_that_does_not_say_whom_it_saw(self, ledger, train):
        ledger.submit(0, "evolution", "loss", TRIAL)
        ledger.submit(1, "evolution", "loss", {**TRIAL, "split": {"train": train, "validate": ["b"]}})
        with pytest.raises(LossevoError, match=r"ledger\.sqlite: .*damaged \(.*(no subjects|train)"):
            ledger.subjects_used()

    def test_a_ticket_is_used_once(self, ledger):
        ledger.submit(0, "evolution", "a", TRIAL)
        with pytest.raises(sqlite3.IntegrityError):
            ledger.submit(0, "evolution", "b", TRIAL)
        ledger.finish(0, DONE)  # and the ledger goes on
        assert ledger.record(0).candidate == "a"

    def test_screening_results_and_candidates(self, ledger):
        ledger.remember_measured([("a", "", "f"), ("b", "finite", "")])
        ledger.remember_measured([("a", "flat", "g")])
        assert ledger.measured() == [("a", "", "f"), ("b", "finite", "")], "what was measured first stays"
        for number in (1, 1, 2):
            ledger.remember_candidate("a", {"number": number})
        assert ledger.candidate("a") == {"number": 2}, "a run that got more budget may number it anew"


class TestDecisions:
    def test_a_decision_is_on_record_with_what_it_was_taken_on(self, ledger):
        ledger.submit(0, "evolution", "a", TRIAL)
        ledger.submit(1, "promotion", "a", TRIAL, after=1, note={"strategy": {"tuned": ["a"]}})
        assert [(record.after, record.note) for record in ledger.records()] == [
            (0, None),
            (1, {"strategy": {"tuned": ["a"]}}),
        ]

    def test_what_is_written_together_is_written_or_nothing_of_it(self, ledger):
        def write_and_fail() -> None:
            with ledger.together():
                ledger.remember_candidate("a", {"number": 1})
                ledger.remember_measured([("a", "", "f")])
                ledger.submit(0, "evolution", "a", TRIAL)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            write_and_fail()
        assert ledger.candidate("a") is ledger.record(0) is None
        assert ledger.measured() == []
        with ledger.together():
            ledger.remember_candidate("a", {"number": 1})
            ledger.submit(0, "evolution", "a", TRIAL)
        assert ledger.record(0).candidate == "a"

    def test_a_note_that_is_none_is_damage(self, ledger):
        ledger.submit(0, "evolution", "a", TRIAL, note={"x": 1})
        ledger._write("UPDATE trials SET note = ?", ("[1]",))
        with pytest.raises(LossevoError, match=r"table trials, ticket 0, column note: damaged"):
            ledger.record(0)

    def test_texts(self, ledger):
        ledger.record_text("configuration", "one")
        ledger.record_text("configuration", "two")
        assert ledger.text("configuration") == "two"


class TestAnotherCourse:
    """A run that got more budget, or whose failures are tried again, leaves what is on record."""

    def test_what_is_set_aside_is_off_the_record_and_found_by_its_request(self, ledger):
        for ticket in range(4):
            ledger.submit(ticket, "evolution", "a", {**TRIAL, "seed": ticket})
        ledger.finish(0, DONE)
        ledger.finish(2, DONE)
        ledger.set_aside_from(1)
        assert [record.ticket for record in ledger.records()] == [0]
        assert ledger.known_outcome(identity_of({**TRIAL, "seed": 2})) == DONE
        assert ledger.known_outcome(identity_of({**TRIAL, "seed": 3})) is None, "it had not ended"

    def test_failures_are_forgotten_but_for_those_of_the_loss(self, ledger):
        statuses = (Status.DONE, Status.DIVERGED, Status.TIMEOUT, Status.DIED, Status.OUT_OF_MEMORY, Status.ERROR)
        for ticket, status in enumerate(statuses):
            ledger.submit(ticket, "evolution", "a", {**TRIAL, "seed": ticket})
            ledger.finish(ticket, DONE if status is Status.DONE else Outcome(status, None, "why", 1.0, "w"))
        assert ledger.fact(MAY_BRANCH) is None
        assert ledger.forget_failures() == 4
        kept = [record.outcome.status for record in ledger.records() if record.outcome]
        assert kept == [Status.DONE, Status.DIVERGED]
        assert ledger.fact(MAY_BRANCH) == 1
        assert ledger.forget_failures() == 0

    def test_facts(self, ledger, path):
        ledger.record_fact("a", 1.5)
        ledger.record_fact("a", 2.5)
        ledger.record_fact("b", 1)
        ledger.record_fact("b", None)
        with Ledger(path, read_only=True) as reader:
            assert (reader.fact("a"), reader.fact("b")) == (2.5, None)


class TestDurability:
    def test_a_record_is_there_before_the_call_returns(self, path):
        """Whatever happens to the process then: nothing is flushed at its end."""
        program = (
            "import json, os, sys, pathlib\n"
            "trial, value = map(json.loads, sys.argv[2:])\n"
            "from lossevo.experiment.ledger import Ledger\n"
            "from lossevo.cluster import Outcome, Status\n"
            "ledger = Ledger(pathlib.Path(sys.argv[1]), create=True)\n"
            "ledger.submit(0, 'evolution', 'a', trial)\n"
            "ledger.finish(0, Outcome(Status.DONE, value, '', 1.0, 'w'))\n"
            "ledger.submit(1, 'evolution', 'b', trial)\n"
            "os.kill(os.getpid(), 9)\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(lossevo.__file__).parents[1])}
        arguments = [str(path), json.dumps(TRIAL), json.dumps(VALUE)]
        ended = subprocess.run([sys.executable, "-c", program, *arguments], env=environment)
        assert ended.returncode == -9
        done, open_ = reopened(path)
        assert done.outcome.value == VALUE
        assert open_.outcome is None

    def test_it_is_written_ahead_and_synchronised(self, ledger, path):
        assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert ledger._connection.execute("PRAGMA synchronous").fetchone() == (2,)

    def test_a_reader_sees_whole_records_while_a_writer_writes(self, ledger, path):
        seen, stop = [], threading.Event()

        def read() -> None:
            with Ledger(path, read_only=True) as reader:
                while not stop.is_set():
                    seen.append(reader.records())

        thread = threading.Thread(target=read)
        thread.start()
        for ticket in range(150):
            ledger.submit(ticket, "evolution", "a", TRIAL)
            ledger.finish(ticket, DONE)
        stop.set()
        thread.join()
        counts = [len(trainings) for trainings in seen]
        assert counts == sorted(counts)
        assert len(set(counts)) > 3
        for trainings in seen:
            assert [record.ticket for record in trainings] == list(range(len(trainings)))
            assert all(record.outcome == DONE for record in trainings[:-1])

    def test_a_reader_cannot_write(self, ledger, path):
        with Ledger(path, read_only=True) as reader, pytest.raises(LossevoError, match="readonly"):
            reader.submit(0, "evolution", "a", TRIAL)


class TestWhatIsNoLedger:
    def test_nothing_there(self, path):
        with pytest.raises(LossevoError, match=r"ledger\.sqlite: no ledger there"):
            Ledger(path)
        assert not path.exists()

    @pytest.mark.parametrize("content", [b"", b"rubbish" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
    @pytest.mark.parametrize("read_only", [True, False])
    def test_another_file(self, path, content, read_only):
        path.write_bytes(content)
        with pytest.raises(LossevoError, match=r"ledger\.sqlite: (not a lossevo ledger|cannot be opened)"):
            Ledger(path, read_only=read_only)
        assert path.read_bytes() == content

    def test_another_database(self, path):
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE mine (x)")
        with pytest.raises(LossevoError, match=r"not a lossevo ledger \(schema 0, expected 4\)"):
            Ledger(path)

    def test_a_newer_schema(self, path):
        Ledger(path, create=True).close()
        with sqlite3.connect(path) as other:
            other.execute(f"PRAGMA user_version={SCHEMA + 1}")
        for read_only in (True, False):
            with pytest.raises(LossevoError, match=r"written by a newer lossevo \(ledger schema 5, .*upgrade lossevo"):
                Ledger(path, read_only=read_only)

    @pytest.mark.parametrize("read_only", [True, False])
    @pytest.mark.parametrize("older", [1, 2])
    def test_an_older_schema(self, path, older, read_only):
        Ledger(path, create=True).close()
        with sqlite3.connect(path) as other:
            other.execute(f"PRAGMA user_version={older}")
        with pytest.raises(LossevoError, match=rf"older lossevo \(ledger schema {older}, this reads 4\).*new run"):
            Ledger(path, read_only=read_only)

    def test_a_damaged_one(self, path):
        with Ledger(path, create=True) as ledger:
            for ticket in range(200):
                ledger.submit(ticket, "evolution", "a", TRIAL)
        content = bytearray(path.read_bytes())
        content[8192:] = b"\x5a" * (len(content) - 8192)
        path.write_bytes(content)
        for read_only in (True, False):
            with pytest.raises(LossevoError, match=r"ledger\.sqlite: damaged \(.*put a copy in its place"):
                Ledger(path, read_only=read_only)

    @pytest.mark.parametrize("bytes_lost", [100, 2000, 5000, 9000])
    def test_one_that_is_cut(self, path, bytes_lost):
        """Inside a page SQLite itself goes on, and gives tickets twice."""
        with Ledger(path, create=True) as ledger:
            for ticket in range(200):
                ledger.submit(ticket, "evolution", "a", TRIAL)
        content = path.read_bytes()
        path.write_bytes(content[:-bytes_lost])
        with pytest.raises(LossevoError, match=r"ledger\.sqlite: (not a lossevo ledger, or )?damaged"):
            Ledger(path)

    @pytest.mark.parametrize(
        ("column", "content"),
        [
            ("measurement", "'{\"score\": 0.'"),
            ("measurement", "'7'"),
            ("measurement", "CAST(x'7b22ff227d' AS TEXT)"),
            ("trial", "'rubbish'"),
            ("trial", "'[1]'"),
            ("status", "'dome'"),
        ],
    )
    def test_what_it_holds_is_not_what_was_written(self, path, column, content):
        with Ledger(path, create=True) as ledger:
            ledger.submit(0, "evolution", "a", TRIAL)
            ledger.finish(0, DONE)
        with closing(sqlite3.connect(path)) as other, other:
            other.execute(f"UPDATE trials SET {column} = {content}")
        with Ledger(path) as ledger:
            for read in (ledger.records, lambda: ledger.record(0)):
                with pytest.raises(LossevoError, match=r"ledger\.sqlite: .*damaged"):
                    read()

    @pytest.mark.parametrize("change", ["UPDATE splits SET document = 'rubbish'", "DELETE FROM splits"])
    @pytest.mark.parametrize("query", [lambda ledger: ledger.subjects_used(), lambda ledger: ledger.records()])
    def test_so_is_what_is_looked_up_in_it(self, path, query, change):
        with Ledger(path, create=True) as ledger:
            ledger.submit(0, "evolution", "a", TRIAL)
        with closing(sqlite3.connect(path)) as other, other:
            other.execute(change)
        with Ledger(path) as ledger, pytest.raises(LossevoError, match=r"ledger\.sqlite: .*damaged"):
            query(ledger)

    def test_one_that_is_there_is_not_made_again(self, path):
        Ledger(path, create=True).close()
        with pytest.raises(LossevoError, match=r"ledger\.sqlite: exists already; nothing is overwritten"):
            Ledger(path, create=True)

    @pytest.mark.parametrize("ending", ["", "-wal", "-shm"])
    def test_a_link_is_not_written_through(self, path, ending, tmp_path):
        target = tmp_path / "somebody's"
        Ledger(target, create=True).close()
        if ending:
            Ledger(path, create=True).close()
        path.with_name(path.name + ending).symlink_to(target)
        with pytest.raises(LossevoError, match=f"ledger.sqlite{ending}: a symbolic link"):
            Ledger(path)

    def test_tables_that_are_gone(self, path):
        Ledger(path, create=True).close()
        with sqlite3.connect(path) as other:
            other.execute("DROP TABLE trials")
        with Ledger(path) as ledger, pytest.raises(LossevoError, match="no such table"):
            ledger.submit(0, "evolution", "a", TRIAL)


def outcome_as_nobody(action: Callable[[], object], answer: Connection) -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        answer.send(action())
    except LossevoError as problem:
        answer.send(str(problem))


@pytest.mark.skipif(sys.platform == "win32", reason="rights of POSIX")
class TestReadOnlyFolder:
    """Opened by somebody who may read only; root may do anything, so a fork of this process becomes nobody."""

    @staticmethod
    def as_nobody(action: Callable[[], object]) -> object:
        process_of = multiprocessing.get_context("fork")
        receiver, sender = process_of.Pipe(duplex=False)
        process = process_of.Process(target=outcome_as_nobody, args=(action, sender))
        process.start()
        assert receiver.poll(30)
        answer = receiver.recv()
        process.join()
        return answer

    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "shared"
        folder.mkdir()
        with Ledger(folder / "ledger.sqlite", create=True) as ledger:
            ledger.submit(0, "evolution", "a", TRIAL)
        for parent in (tmp_path, *tmp_path.parents):
            if Path(tempfile.gettempdir()) in parent.parents:  # never that folder itself, which belongs to all
                parent.chmod(0o755)
        (folder / "ledger.sqlite").chmod(0o444)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)

    def test_it_can_be_read(self, folder):
        assert self.as_nobody(lambda: len(reopened(folder / "ledger.sqlite"))) == 1

    def test_it_cannot_be_written(self, folder):
        said = self.as_nobody(lambda: Ledger(folder / "ledger.sqlite").submit(1, "evolution", "a", TRIAL))
        assert "ledger.sqlite: cannot be opened, read or written" in said

    def test_none_can_be_made(self, folder):
        said = self.as_nobody(lambda: Ledger(folder / "new.sqlite", create=True))
        assert "new.sqlite: cannot be opened, read or written" in said

    def test_it_cannot_be_locked(self, folder):
        said = self.as_nobody(lambda: locked(folder).__enter__())
        assert f"{folder}: cannot be written" in said
