"""The ledger: one SQLite file per run that holds every training asked for and every outcome, written before anyone
uses it.

A run that was killed at any moment loses at most the trainings in flight. What was asked for is in the ledger, with
how many outcomes were known when it was decided. So a run that is resumed follows its own decisions as far as they are
on record, with the outcomes of then, and decides anew from there.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lossevo.cluster import Outcome, Status
from lossevo.errors import LossevoError
from lossevo.experiment.ledger_values import Place
from lossevo.training.trial import identity_of

SCHEMA = 4

_TABLES = """
CREATE TABLE splits (id TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT;
CREATE TABLE trials (
    ticket INTEGER PRIMARY KEY, phase TEXT NOT NULL, candidate TEXT NOT NULL, identity TEXT NOT NULL, trial TEXT NOT
    NULL, split TEXT NOT NULL, submitted REAL NOT NULL, status TEXT, measurement TEXT, error TEXT, seconds REAL, worker
    TEXT, attempts INTEGER, finished REAL, after INTEGER NOT NULL DEFAULT 0, note TEXT
) STRICT;
CREATE INDEX trials_by_identity ON trials (identity);
CREATE TABLE measured (hash TEXT PRIMARY KEY, failed TEXT NOT NULL, fingerprint TEXT NOT NULL) STRICT;
CREATE TABLE candidates (id TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT;
CREATE TABLE facts (name TEXT PRIMARY KEY, value REAL NOT NULL) STRICT;
CREATE TABLE texts (name TEXT PRIMARY KEY, text TEXT NOT NULL) STRICT;
CREATE TABLE set_aside (
    identity TEXT PRIMARY KEY, status TEXT NOT NULL, measurement TEXT, error TEXT, seconds REAL, worker TEXT, attempts
    INTEGER
) STRICT;
"""

MAY_BRANCH = "may_branch"
"""The fact that the course of the run may leave what is on record: it got more budget, or failures are tried again."""
BLAMELESS = (Status.DIED, Status.TIMEOUT, Status.OUT_OF_MEMORY, Status.ERROR)
"""Failures that another try may not repeat. A training that diverges does so again."""


@dataclass(frozen=True, slots=True)
class Record:
    """A row of the ledger: which trial was asked for (:meth:`lossevo.training.Trial.to_payload`), for which candidate
    in which phase, and the outcome if it is known.

    ``after`` is how many outcomes had been used when it was decided, and ``note`` what whoever decided wrote down.
    """

    ticket: int
    phase: str
    candidate: str
    trial: Mapping[str, Any]
    outcome: Outcome | None
    after: int = 0
    note: Mapping[str, Any] | None = None


class Ledger:
    """An open ledger. Use as a context manager, or call :meth:`close`.

    Raises:
        LossevoError: the file is not a ledger, is damaged, belongs to a newer lossevo, is used by another process, or
            cannot be written.
    """

    def __init__(self, path: Path, *, create: bool = False, read_only: bool = False) -> None:
        self.path = path
        self._read_only = read_only
        if not create and not path.is_file():
            raise LossevoError(f"{path}: no ledger there; give the folder of a run that lossevo made")
        if create and path.exists():
            raise LossevoError(f"{path}: exists already; nothing is overwritten")
        if not read_only:
            self._refuse_links()
        mode = "ro" if read_only else "rwc" if create else "rw"
        if read_only and not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists():
            mode += "&immutable=1"  # else SQLite would make an index of the WAL, which it cannot in this folder
        with self._explaining():
            self._connection = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=30.0
            )
            try:
                self._check(create=create)
                if not read_only:
                    self._connection.execute("PRAGMA synchronous=FULL")
            except BaseException:
                self._connection.close()
                raise

    def _refuse_links(self) -> None:
        """A folder may come from somebody else: nothing is written through a symbolic link."""
        for ending in ("", "-wal", "-shm", "-journal"):
            file = self.path.with_name(self.path.name + ending)
            if file.is_symlink():
                raise LossevoError(f"{file}: a symbolic link, which nothing is written through; remove it")

    def _check(self, *, create: bool) -> None:
        """Look at the version of the schema, and whether the file is whole; a new file gets a schema."""
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if create and version == 0:
            self._connection.executescript(
                f"PRAGMA journal_mode=WAL; BEGIN; {_TABLES} PRAGMA user_version={SCHEMA}; COMMIT;"
            )
            version = SCHEMA
        if version > SCHEMA:
            raise LossevoError(
                f"{self.path}: written by a newer lossevo (ledger schema {version}, this reads {SCHEMA}); "
                "upgrade lossevo"
            )
        if version < 1:
            raise LossevoError(f"{self.path}: not a lossevo ledger (schema {version}, expected {SCHEMA})")
        if version < SCHEMA:
            raise LossevoError(
                f"{self.path}: written by an older lossevo (ledger schema {version}, this reads {SCHEMA}); use the "
                "version that made it, or start a new run"
            )
        page_bytes = self._connection.execute("PRAGMA page_size").fetchone()[0]
        if self.path.stat().st_size % page_bytes:
            problem = "it ends inside a page"  # SQLite itself would fill it up with zeros
        else:
            problem = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise LossevoError(f"{self.path}: damaged ({' '.join(problem.split())}); put a copy in its place")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """Say what the user can do about what SQLite cannot do."""
        try:
            yield
        except sqlite3.OperationalError as problem:
            if getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_ERROR) == sqlite3.SQLITE_ERROR:  # of what it holds
                raise LossevoError(f"{self.path}: not a lossevo ledger, or damaged ({problem})") from None
            raise LossevoError(
                f"{self.path}: cannot be opened, read or written ({problem}); free space or rights, then resume the run"
            ) from None
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as problem:
            raise LossevoError(f"{self.path}: not a lossevo ledger, or damaged ({problem})") from None

    def _write(self, statement: str, *rows: tuple[Any, ...]) -> None:
        """Execute a statement for each row, all of them or none."""
        with self._transaction() as connection:
            connection.executemany(statement, rows)

    @contextmanager
    def together(self) -> Iterator[None]:
        """All that is written inside is written, or nothing of it."""
        with self._transaction():
            yield

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Statements that are executed all or none; those of an outer transaction with it."""
        if self._connection.in_transaction:
            yield self._connection
            return
        with self._explaining():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.rollback()
                raise

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._explaining():
            return self._connection.execute(query, values).fetchall()

    # Trials

    def record(self, ticket: int) -> Record | None:
        """The trial with this number, or None if it was never asked for."""
        rows = self._rows(f"{_SELECT} WHERE ticket = ?", ticket)
        return self._record(rows[0]) if rows else None

    def records(self) -> list[Record]:
        """All trials in the order in which they were asked for."""
        return [self._record(row) for row in self._rows(f"{_SELECT} ORDER BY ticket")]

    def subjects_used(self) -> tuple[frozenset[str], frozenset[str]]:
        """Everybody whom any trial on record was to be trained on, and everybody to be validated on.

        Raises:
            LossevoError: a trial on record does not say.
        """
        rows = self._rows("SELECT DISTINCT split, document FROM trials LEFT JOIN splits ON split = id")
        splits = [self._split(id_, document) for id_, document in rows]
        trained, validated = (
            frozenset(name for split in splits for name in split[side]) for side in ("train", "validate")
        )
        return trained, validated

    def has_trial_of(self, candidate: str) -> bool:
        """Whether a training of a candidate was ever asked for."""
        return bool(self._rows("SELECT 1 FROM trials WHERE candidate = ? LIMIT 1", candidate))

    def submit(
        self,
        ticket: int,
        phase: str,
        candidate: str,
        trial: Mapping[str, Any],
        *,
        after: int = 0,
        note: Mapping[str, Any] | None = None,
    ) -> None:
        """Record that a training is asked for; see :class:`Record`."""
        split = _dump(trial["split"])
        id_ = hashlib.sha256(split.encode()).hexdigest()[:16]
        with self._transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO splits VALUES (?, ?)", (id_, split))
            connection.execute(
                "INSERT INTO trials (ticket, phase, candidate, identity, trial, split, submitted, after, note) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    ticket,
                    phase,
                    candidate,
                    identity_of(trial),
                    _dump({**trial, "split": id_}),
                    id_,
                    time.time(),
                    after,
                    _dump(note) if note else None,
                ),
            )

    def finish(self, ticket: int, outcome: Outcome) -> None:
        """Record the outcome of a trial."""
        self._write(
            "UPDATE trials SET status = ?, measurement = ?, error = ?, seconds = ?, worker = ?, attempts = ?, "
            "finished = ? WHERE ticket = ?",
            (
                outcome.status.value,
                None if outcome.value is None else _dump(outcome.value),
                outcome.error,
                outcome.seconds,
                outcome.worker,
                outcome.attempts,
                time.time(),
                ticket,
            ),
        )

    def set_aside_from(self, ticket: int) -> None:
        """Take the trials from this one on off the record, and keep their outcomes for :meth:`known_outcome`."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO set_aside SELECT identity, status, measurement, error, seconds, worker, "
                "attempts FROM trials WHERE ticket >= ? AND status IS NOT NULL",
                (ticket,),
            )
            connection.execute("DELETE FROM trials WHERE ticket >= ?", (ticket,))

    def known_outcome(self, identity: str) -> Outcome | None:
        """The outcome of a trial of this identity, if one has ended, be it on record or set aside."""
        columns = "status, measurement, error, seconds, worker, attempts"
        for table, more in (("trials", "AND status IS NOT NULL ORDER BY ticket LIMIT 1"), ("set_aside", "")):
            rows = self._rows(f"SELECT {columns} FROM {table} WHERE identity = ? {more}", identity)
            if rows:
                return _outcome(Place(self.path, table, identity), *rows[0])
        return None

    def forget_failures(self) -> int:
        """Let the trainings that failed without a fault of their loss be done again; returns how many.

        See :data:`BLAMELESS`. What was trained after them depends on them, so the course of the run may change.
        """
        marks = ", ".join("?" for _ in BLAMELESS)
        with self._transaction() as connection:
            connection.execute(f"DELETE FROM set_aside WHERE status IN ({marks})", BLAMELESS)
            forgotten = connection.execute(
                "UPDATE trials SET status = NULL, measurement = NULL, error = NULL, seconds = NULL, worker = NULL, "
                f"attempts = NULL, finished = NULL WHERE status IN ({marks})",
                BLAMELESS,
            ).rowcount
            if forgotten:
                connection.execute("INSERT OR REPLACE INTO facts VALUES (?, 1)", (MAY_BRANCH,))
        return forgotten

    # Facts

    def fact(self, name: str) -> float | None:
        """A number that was recorded under this name, if any."""
        rows = self._rows("SELECT value FROM facts WHERE name = ?", name)
        return float(rows[0][0]) if rows else None

    def record_fact(self, name: str, value: float | None) -> None:
        """Record or replace a number; None removes it."""
        if value is None:
            self._write("DELETE FROM facts WHERE name = ?", (name,))
        else:
            self._write("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def text(self, name: str) -> str | None:
        """A text that was recorded under this name, if any."""
        rows = self._rows("SELECT text FROM texts WHERE name = ?", name)
        return rows[0][0] if rows else None

    def record_text(self, name: str, text: str) -> None:
        """Record or replace a text."""
        self._write("INSERT OR REPLACE INTO texts VALUES (?, ?)", (name, text))

    # Screening results and candidates

    def measured(self) -> list[tuple[str, str, str]]:
        """What the numeric checks found: (hash, failed check or "", fingerprint) of each expression that they saw."""
        return self._rows("SELECT hash, failed, fingerprint FROM measured ORDER BY rowid")

    def remember_measured(self, rows: list[tuple[str, str, str]]) -> None:
        """Keep what the numeric checks found."""
        self._write("INSERT OR IGNORE INTO measured VALUES (?, ?, ?)", *rows)

    def remember_candidate(self, id_: str, document: Mapping[str, Any]) -> None:
        """Keep a candidate that is about to be trained."""
        self._write(
            "INSERT INTO candidates VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET document = excluded.document "
            "WHERE document != excluded.document",  # else a replay would write for nothing
            (id_, _dump(document)),
        )

    def candidate(self, id_: str) -> dict[str, Any] | None:
        """The candidate's document, if there is one."""
        rows = self._rows("SELECT document FROM candidates WHERE id = ?", id_)
        return Place(self.path, "candidates", id_).document(rows[0][0]) if rows else None

    def _record(self, row: tuple[Any, ...]) -> Record:
        ticket, phase, candidate, trial, split, document, after, note, *outcome = row
        place = Place(self.path, "trials", ticket)
        return Record(
            ticket,
            phase,
            candidate,
            trial={**place.trial(trial), "split": self._split(split, document)},
            outcome=None if outcome[0] is None else _outcome(place, *outcome),
            after=after,
            note=None if note is None else place.note(note),
        )

    def _split(self, id_: str, document: str | None) -> dict[str, Any]:
        return Place(self.path, "splits", id_).split(document)


_SELECT = (
    "SELECT ticket, phase, candidate, trial, split, document, after, note, status, measurement, error, seconds, "
    "worker, attempts FROM trials LEFT JOIN splits ON split = id"
)


def _outcome(
    place: Place, status: str, measurement: str | None, error: str, seconds: float, worker: str, attempts: int
) -> Outcome:
    result = None if measurement is None else place.measurement(measurement)
    return Outcome(place.status(status, measurement), result, error, seconds, worker, attempts)


def _dump(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True)
