"""One open PostgreSQL database: reading and writing in transactions, for all tables of the ledger.

Threads read at the same time and write one after the other, as in the other store. If the connection ends
while a transaction is being committed, the operation fails, although it may have happened: all that the
ledger writes may be written again.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.rows import DictRow

from uecwatchd.errors import Deferred, Overtaken
from uecwatchd.ledger.api import LedgerAway
from uecwatchd.ledger.changes import RowChange, Statement, WaitingChanges, change_of, steps_of
from uecwatchd.ledger.postgres_connections import (
    ANSWER_SECONDS,
    DatabaseConnections,
    DatabasePlace,
    TimedConnection,
)
from uecwatchd.ledger.postgres_errors import RESUMES, translate_database_errors
from uecwatchd.ledger.postgres_sql import in_one, to_postgres
from uecwatchd.ledger.rows import OF_SHARE
from uecwatchd.ledger.sql_store import Record, SqlTransaction, TableRow
from uecwatchd.system import failpoints

# Who owns the rows of this host: nobody, as far as it is concerned, once its session was buried.
OWNER = "SELECT home FROM hosts WHERE host = current_setting('uecwatchd.host')"
OWNER_IN_SESSION = "SELECT home FROM sessions JOIN hosts USING (host) WHERE id = {} AND ended IS NULL"
# Ends with an error unless the rows are those of this host, so that the whole statement does nothing.
# The lock keeps others from burying the session before the transaction has ended.
CHECKED = "SELECT 1 / count(*) AS checked{} FROM ({} AND home = ?{}) AS owner"
LOCKED = " FOR SHARE OF sessions"
# A commit that is not waited for is on the disk within a second, and before each later one.
NOT_LASTING = ", set_config('synchronous_commit', 'off', true)"


class PostgresTransaction:
    """The statements of a transaction, in the SQL of SQLite."""

    def __init__(self) -> None:
        self.changes: list[RowChange] = []

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> None:
        self.changes.append(change_of(statement, values))

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> None:
        for row in rows:
            self.execute(statement, row)


class PostgresStore:
    """An open database. Usable from several threads; each call is one transaction."""

    def __init__(self, place: DatabasePlace, *, home: str) -> None:
        self.host = place.host
        self.shares = place.shares
        self.place = place
        self.session: int | None = None  # of this host, while a service has one
        self._overtaken: Overtaken | None = None
        self.is_away = False  # since the last operation
        self._home = home
        self._connections = DatabaseConnections(place)
        self._writing = threading.Lock()  # held for a whole transaction, so never waited for without end
        self._waiting = WaitingChanges()

    def close(self) -> None:
        with suppress(Deferred):
            self.flush()
        self._connections.close()

    def check(self) -> None:
        """Raise the first Overtaken of any thread again. A damaged database is its administrator's matter."""
        if self._overtaken:
            raise self._overtaken

    def check_owner(self) -> None:
        """Raise Overtaken or Deferred if this host may not write any more."""
        self._write((), lasting=False)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Translate the errors of the database, and note if it is away."""
        try:
            with translate_database_errors(self.place.words):
                yield
        except LedgerAway:
            self.is_away = True
            raise
        self.is_away = False

    def overtaken(self) -> Overtaken:
        """Return the error for a session that another host has ended, and keep it."""
        self._overtaken = self._overtaken or Overtaken(
            f"{self.place.words}: another host has ended the session of {self.host}",
            "its lease was not renewed in time",
            "The service begins again by itself. If that goes on, look at the network and the load.",
        )
        return self._overtaken

    def read(self, statement: str, *values: object) -> list[DictRow]:
        return self._read(to_postgres(statement), values)

    def _read(self, statement: str, values: Sequence[object]) -> list[DictRow]:
        query = statement.encode()
        with (
            self.used(),
            self._connections.borrow(lambda one: one.execute(query, storable_values(values)).fetchall()) as (
                _,
                rows,
            ),
        ):
            return rows

    def records(
        self, convert: Callable[[TableRow], Record], statement: str, *values: object
    ) -> tuple[Record, ...]:
        return self._converted(convert, self.read(statement, *values))

    def records_of_fleet(
        self, convert: Callable[[TableRow], Record], statement: str, *values: object
    ) -> tuple[Record, ...]:
        rows = self.rows_of_fleet(statement, *values)
        for row in rows:
            host = row.pop("host")
            if host.startswith(OF_SHARE):
                host = self.host if row["folder"] in self.shares else OF_SHARE
            if host != self.host:
                row["folder"] = f"{host}:{row['folder']}"
        # Again, because the statement has ordered them without their hosts.
        return self._converted(convert, sorted(rows, key=lambda row: (row["folder"], row["name"])))

    def rows_of_fleet(self, statement: str, *values: object) -> list[DictRow]:
        """Return the rows of a query in the tables themselves, which have the host of each row."""
        return self._read(to_postgres(statement, of_fleet=True), values)

    def _converted(self, convert: Callable[[TableRow], Record], rows: list[DictRow]) -> tuple[Record, ...]:
        try:
            return tuple(map(convert, rows))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            what, why = f"{self.place.words}: cannot use it", f"a row of it makes no sense: {error}"
            raise Deferred(what, why, "Restore the last backup of the database.") from error

    def write(self, moment: str, statement: str, *values: object, lasting: bool = True) -> None:
        with self.writing(moment, lasting=lasting) as transaction:
            transaction.execute(statement, values)

    @contextmanager
    def writing(self, moment: str, *, lasting: bool = True) -> Iterator[SqlTransaction]:
        with failpoints.effect(moment):
            transaction = PostgresTransaction()
            yield transaction
            self._write(transaction.changes, lasting=lasting)

    def put(self, moment: str, *changes: RowChange, lasting: bool = True) -> None:
        with failpoints.effect(moment):
            self._write(changes, lasting=lasting)

    def put_later(self, change: RowChange) -> None:
        self._waiting.add(change)

    @contextmanager
    def in_session(self) -> Iterator[TimedConnection]:
        """Write in one transaction, in the SQL of PostgreSQL, after what waits for one."""
        self.flush()
        statement, values = in_one((self._check(lasting=True),))
        with (
            self._turn_to_write(),
            self.used(),
            self._connections.borrow(lambda one: one.execute("BEGIN")) as (connection, _),
        ):
            try:
                connection.execute(statement.encode(), storable_values(values))
            except psycopg.DataError:
                self._check_home()
                raise
            yield connection
            connection.execute("COMMIT")

    def first_row(self, statement: str, *values: object) -> DictRow | None:
        """Execute a statement in the SQL of PostgreSQL, after what waits, and return its first row."""
        self.flush()
        query = statement.encode()
        with (
            self.used(),
            self._connections.borrow(lambda one: one.execute(query, values).fetchone()) as (_, row),
        ):
            return row

    def flush(self, table: str = "") -> None:
        if self._waiting.has(table):
            self._write((), lasting=False)

    def _write(self, changes: Sequence[RowChange], *, lasting: bool) -> None:
        """Write changes, with those that wait, by one statement as far as their order makes no difference."""
        with self._turn_to_write(), self._waiting.taken(changes) as waiting, self.used():
            steps = steps_of((*waiting, *changes)) or ((),)
            check = self._check(lasting=lasting)
            try:
                if len(steps) == 1:
                    self._execute(*in_one((*steps[0], check)))
                else:
                    self._execute_all([in_one((*steps[0], check)), *map(in_one, steps[1:])])
            except (psycopg.DataError, psycopg.ProgrammingError):  # its tables may have gone with its session
                self._check_home()
                raise

    def _check(self, *, lasting: bool) -> Statement:
        """Return the last part of a writing statement: the check if this host still may write."""
        how = "" if lasting else NOT_LASTING
        if self.session is None:
            return CHECKED.format(how, OWNER, ""), (self._home,)
        return CHECKED.format(how, OWNER_IN_SESSION.format(self.session), LOCKED), (self._home,)

    def _execute(self, statement: str, values: Sequence[object]) -> None:
        query, stored = statement.encode(), storable_values(values)
        with self._connections.borrow(lambda one: one.execute(query, stored)):
            """It is done with the first answer."""

    def _execute_all(self, statements: Iterable[Statement]) -> None:
        with self._connections.borrow(lambda one: one.execute("BEGIN")) as (connection, _):
            for statement, values in statements:
                connection.execute(statement.encode(), storable_values(values))
            connection.execute("COMMIT")

    @contextmanager
    def _turn_to_write(self) -> Iterator[None]:
        if not self._writing.acquire(timeout=ANSWER_SECONDS):
            why = "another thread has been writing for too long"
            raise Deferred(f"{self.place.words}: cannot use it", why, RESUMES)
        try:
            yield
        finally:
            self._writing.release()

    def _check_home(self) -> None:
        """Raise the reason why this host may not write any more, also while it goes on."""
        owner = OWNER if self.session is None else OWNER_IN_SESSION.format(self.session)
        row = next(iter(self._read(owner, ())), None)
        if row is None and self.session is not None:
            raise self.overtaken()
        home = row["home"] if row else ""
        if home != self._home:
            raise Deferred(
                f"{self.place.words}: its host {self.host} is not this machine any more",
                f"it is {home}" if home else "its rows were given away, and nobody has taken them yet",
                "Stop uecwatchd on the machine that is to leave.",
            )

    def forget_for_good(self) -> None:
        """Do nothing: what was deleted stays in the database's log and backups for as long as these do."""


def storable_values(values: Sequence[Any]) -> Sequence[Any]:
    """Return the values of a statement; a zero byte in a text, which PostgreSQL refuses, is replaced."""
    return [value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in values]
