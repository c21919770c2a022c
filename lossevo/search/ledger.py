"""The ledger: one SQLite file per run that holds every training asked for and every outcome, written before anyone
uses it.

A search is a deterministic function of its configuration and of the outcomes of its trainings. So resuming replays it
from the start: whatever the ledger knows is looked up instead of computed, and the first thing it does not know is
where work goes on. No state of a generator or of CMA-ES needs saving, and a kill at any moment loses at most the
trainings in flight.
"""

from __future__ import annotations

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

from lossevo.cluster import Outcome
from lossevo.errors import LossevoError
from lossevo.search.ledger_values import Place

SCHEMA = 1

_TABLES = """
CREATE TABLE trainings (
    ticket INTEGER PRIMARY KEY, phase TEXT NOT NULL, subject TEXT NOT NULL, request TEXT NOT NULL, submitted REAL NOT
    NULL, status TEXT, value TEXT, error TEXT, seconds REAL, worker TEXT, attempts INTEGER, finished REAL
) STRICT;
CREATE TABLE measured (hash TEXT PRIMARY KEY, failed TEXT NOT NULL, fingerprint TEXT NOT NULL) STRICT;
CREATE TABLE simplified (hash TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT;
CREATE TABLE candidates (id TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Training:
    """A row of the ledger: what was asked, for which candidate (``subject``) in which phase, and the outcome if it is
    known.
    """

    ticket: int
    phase: str
    subject: str
    request: Mapping[str, Any]
    outcome: Outcome | None


class Ledger:
    """An open ledger. Use as a context manager, or call :meth:`close`.

    Raises:
        LossevoError: the file is not a ledger, belongs to a newer lossevo, is used by another process, or cannot be
        written.
    """

    def __init__(self, path: Path, *, create: bool = False, read_only: bool = False) -> None:
        self.path = path
        if not create and not path.is_file():
            raise LossevoError(f"{path}: no ledger there; give the folder of a run that lossevo made")
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

    def _check(self, *, create: bool) -> None:
        """Look at the version of the schema; a new file gets one."""
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
        if version < SCHEMA:
            raise LossevoError(f"{self.path}: not a lossevo ledger (schema {version}, expected {SCHEMA})")

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
            raise LossevoError(
                f"{self.path}: cannot be opened, read or written ({problem}); free space or rights, then resume the run"
            ) from None
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as problem:
            raise LossevoError(f"{self.path}: not a lossevo ledger, or damaged ({problem})") from None

    def _write(self, statement: str, *rows: tuple[Any, ...]) -> None:
        """Execute a statement for each row, all of them or none."""
        with self._explaining():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(statement, rows)
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.rollback()
                raise

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._explaining():
            return self._connection.execute(query, values).fetchall()

    # Trainings

    def training(self, ticket: int) -> Training | None:
        """The training with this number, or None if it was never asked for."""
        rows = self._rows(f"SELECT {_COLUMNS} FROM trainings WHERE ticket = ?", ticket)
        return self._training(rows[0]) if rows else None

    def trainings(self) -> list[Training]:
        """All trainings in the order in which they were asked for."""
        return [self._training(row) for row in self._rows(f"SELECT {_COLUMNS} FROM trainings ORDER BY ticket")]

    def submit(self, ticket: int, phase: str, subject: str, request: Mapping[str, Any]) -> None:
        """Record that a training is asked for."""
        self._write(
            "INSERT INTO trainings (ticket, phase, subject, request, submitted) VALUES (?, ?, ?, ?, ?)",
            (ticket, phase, subject, _dump(request), time.time()),
        )

    def finish(self, ticket: int, outcome: Outcome) -> None:
        """Record the outcome of a training."""
        self._write(
            "UPDATE trainings SET status = ?, value = ?, error = ?, seconds = ?, worker = ?, attempts = ?, "
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

    # Screening results and candidates

    def measured(self, hash_: str) -> tuple[str, str] | None:
        """What the numeric checks found for an expression (failed check or "", fingerprint), if they ever ran."""
        rows = self._rows("SELECT failed, fingerprint FROM measured WHERE hash = ?", hash_)
        return (Place(self.path, "measured", hash_).check(rows[0][0]), rows[0][1]) if rows else None

    def remember_measured(self, rows: list[tuple[str, str, str]]) -> None:
        """Keep what the numeric checks found: (hash, failed check or "", fingerprint)."""
        self._write("INSERT OR IGNORE INTO measured VALUES (?, ?, ?)", *rows)

    def simplified(self, hash_: str) -> dict[str, Any] | None:
        """What an expression was simplified to, if it ever was: an expression document."""
        rows = self._rows("SELECT document FROM simplified WHERE hash = ?", hash_)
        return Place(self.path, "simplified", hash_).document(rows[0][0]) if rows else None

    def remember_simplified(self, hash_: str, document: Mapping[str, Any]) -> None:
        """Keep what an expression was simplified to."""
        self._write("INSERT OR IGNORE INTO simplified VALUES (?, ?)", (hash_, _dump(document)))

    def remember_candidate(self, id_: str, document: Mapping[str, Any]) -> None:
        """Keep a candidate that is about to be trained."""
        self._write("INSERT OR IGNORE INTO candidates VALUES (?, ?)", (id_, _dump(document)))

    def candidate(self, id_: str) -> dict[str, Any] | None:
        """The candidate's document, if there is one."""
        rows = self._rows("SELECT document FROM candidates WHERE id = ?", id_)
        return Place(self.path, "candidates", id_).document(rows[0][0]) if rows else None

    def _training(self, row: tuple[Any, ...]) -> Training:
        ticket, phase, subject, request, status, value, error, seconds, worker, attempts = row
        place, outcome = Place(self.path, "trainings", ticket), None
        if status is not None:
            outcome = Outcome(
                status=place.status(status, value),
                value=None if value is None else place.value(value),
                error=error,
                seconds=seconds,
                worker=worker,
                attempts=attempts,
            )
        return Training(ticket, phase, subject, place.request(request), outcome)


_COLUMNS = "ticket, phase, subject, request, status, value, error, seconds, worker, attempts"


def _dump(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True)
