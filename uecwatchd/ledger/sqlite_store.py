"""One open SQLite file: reading and writing in transactions, for all tables of the ledger."""

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from uecwatchd.errors import Deferred
from uecwatchd.ledger.api import LedgerDamaged
from uecwatchd.ledger.changes import RowChange, WaitingChanges
from uecwatchd.ledger.schema import FILE_NAME, damaged, empty_log, translate_errors
from uecwatchd.ledger.sql_store import Record, SqlTransaction, TableRow
from uecwatchd.system import failpoints


class SqliteStore:
    """An open file. Usable from several threads; each call is one transaction."""

    host = ""
    shares: tuple[str, ...] = ()

    def __init__(self, connection: sqlite3.Connection, folder: Path) -> None:
        self._connection = connection
        self._folder = folder
        self._lock = threading.RLock()  # guards the connection
        self._waiting = WaitingChanges()
        self._damage: LedgerDamaged | None = None

    def close(self) -> None:
        with self._lock:
            with suppress(Deferred):
                self.flush()
            self._connection.close()

    def check(self) -> None:
        """Raise the first LedgerDamaged of any thread again."""
        if self._damage:
            raise self._damage

    def read(self, statement: str, *values: object) -> list[sqlite3.Row]:
        with self._lock, self._errors_noted():
            return list(self._connection.execute(statement, values))

    def records(
        self, convert: Callable[[TableRow], Record], statement: str, *values: object
    ) -> tuple[Record, ...]:
        rows = self.read(statement, *values)
        with self._errors_noted(), self._content_checked():
            return tuple(map(convert, rows))

    def records_of_fleet(
        self, convert: Callable[[TableRow], Record], statement: str, *values: object
    ) -> tuple[Record, ...]:
        return self.records(convert, statement, *values)

    def check_rows(self, convert: Callable[[TableRow], object], statement: str) -> None:
        """Convert each row once, and keep none. Raises LedgerDamaged for one that is damaged."""
        with self._lock, self._errors_noted(), self._content_checked():
            for row in self._connection.execute(statement):
                convert(row)

    def write(self, moment: str, statement: str, *values: object, lasting: bool = True) -> None:
        with self.writing(moment, lasting=lasting) as connection:
            connection.execute(statement, values)

    @contextmanager
    def writing(self, moment: str, *, lasting: bool = True) -> Iterator[SqlTransaction]:
        """Write in one transaction; with `lasting`, it also survives a power cut.

        Other writes are on the disk before any later lasting write.
        """
        with self._effect(moment, lasting=lasting), self._transaction() as connection:
            yield connection

    def put(self, moment: str, *changes: RowChange, lasting: bool = True) -> None:
        with self._effect(moment, lasting=lasting), self._transaction(changes):
            pass

    def put_later(self, change: RowChange) -> None:
        self._waiting.add(change)

    def flush(self, table: str = "") -> None:
        """Write all waiting changes if there is one of this table. No failpoint: no work depends on it."""
        with self._lock, self._errors_noted():
            if self._waiting.has(table):
                with self._transaction():
                    pass

    @contextmanager
    def _effect(self, moment: str, *, lasting: bool) -> Iterator[None]:
        with self._lock, self._errors_noted(), failpoints.effect(moment):
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if lasting else 'NORMAL'}")
            yield

    @contextmanager
    def _transaction(self, changes: Sequence[RowChange] = ()) -> Iterator[SqlTransaction]:
        with self._waiting.taken(changes) as waiting, self._connection:
            self._execute(waiting)
            self._execute(changes)
            yield self._connection

    def _execute(self, changes: Iterable[RowChange]) -> None:
        for change in changes:
            for statement, values in change.statements:
                self._connection.execute(statement, values)

    def forget_for_good(self) -> None:
        """Empty the log: deleted keys are zeroed in the file, but not in the log."""
        with self._lock, self._errors_noted(), failpoints.effect("empty the ledger's log"):
            empty_log(self._connection)

    @contextmanager
    def _errors_noted(self) -> Iterator[None]:
        """Remember damage, because the caller may not be the thread that can end the process."""
        try:
            with translate_errors(self._folder):
                yield
        except LedgerDamaged as damage:
            self._damage = self._damage or damage
            raise

    @contextmanager
    def _content_checked(self) -> Iterator[None]:
        """Translate errors of converted rows: SQLite's own check does not cover their content."""
        try:
            yield
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise damaged(self._folder / FILE_NAME, f"a row of it makes no sense: {error}") from error
