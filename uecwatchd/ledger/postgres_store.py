"""One open PostgreSQL database: reading and writing in transactions, for all tables of the ledger.

Threads read at the same time and write one after the other, as in the other store. If the connection ends
while a transaction is being committed, the operation fails, although it may have happened: all that the
ledger writes may be written again.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, LiteralString

import psycopg
from psycopg.rows import DictRow

from uecwatchd.errors import Deferred, Overtaken
from uecwatchd.ledger.api import LedgerAway
from uecwatchd.ledger.postgres_connections import (
    ANSWER_SECONDS,
    DatabaseConnections,
    DatabasePlace,
    TimedConnection,
)
from uecwatchd.ledger.postgres_errors import RESUMES, translate_database_errors
from uecwatchd.ledger.postgres_sql import to_postgres
from uecwatchd.ledger.rows import OF_SHARE, replace_rows
from uecwatchd.ledger.sql_store import MOST_WAITING, Record, SqlTransaction, Statement, TableRow
from uecwatchd.system import failpoints

# A commit that is not waited for is on the disk within a second, and before each later one.
BEGIN: Mapping[bool, LiteralString] = {True: "BEGIN", False: "BEGIN; SET LOCAL synchronous_commit = off"}
# The owner of the rows of this host comes with the same answer.
OWNER = "SELECT home FROM hosts WHERE host = current_setting('uecwatchd.host')"
# None if its session was buried. The lock keeps others from burying it during the transaction.
OWNER_IN_SESSION = """
SELECT home FROM sessions JOIN hosts USING (host) WHERE id = {} AND ended IS NULL FOR SHARE OF sessions
"""


class PostgresTransaction:
    """A transaction under way, for statements in the SQL of SQLite."""

    def __init__(self, connection: TimedConnection) -> None:
        self.connection = connection

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> object:
        return self.connection.execute(to_postgres(statement).encode(), storable_values(values))

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> None:
        cursor = self.connection.cursor()
        cursor.executemany(to_postgres(statement).encode(), [storable_values(row) for row in rows])


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
        self._lock = threading.Lock()  # guards _waiting
        self._waiting: deque[Statement] = deque(maxlen=MOST_WAITING)

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
        with self._transaction(lasting=False):
            pass

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
        with failpoints.effect(moment), self._transaction(lasting=lasting) as transaction:
            yield transaction

    def write_later(self, statement: str, *values: object) -> None:
        with self._lock:
            self._waiting.append((statement, values))

    def flush(self) -> None:
        if self._waiting:
            with self._transaction(lasting=False):
                pass

    @contextmanager
    def in_session(self) -> Iterator[TimedConnection]:
        """Write in one transaction, in the SQL of PostgreSQL."""
        with self._transaction(lasting=True) as transaction:
            yield transaction.connection

    @contextmanager
    def _transaction(self, *, lasting: bool) -> Iterator[PostgresTransaction]:
        owner = OWNER if self.session is None else OWNER_IN_SESSION.format(self.session)
        begin = f"{BEGIN[lasting]}; {owner}"
        with (
            self._turn_to_write(),
            self.used(),
            self._connections.borrow(lambda one: last_row(one.execute(begin.encode()))) as (connection, row),
        ):
            self._check_home(row)
            transaction = PostgresTransaction(connection)
            with self._waiting_taken() as statements:
                for statement, values in statements:
                    transaction.execute(statement, values)
                yield transaction
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

    @contextmanager
    def _waiting_taken(self) -> Iterator[tuple[Statement, ...]]:
        """Take what waits for a transaction; it waits again if that fails."""
        with self._lock:
            taken = tuple(self._waiting)
            self._waiting.clear()
        try:
            yield taken
        except BaseException:
            with self._lock:
                self._waiting = deque([*taken, *self._waiting], maxlen=MOST_WAITING)
            raise

    def _check_home(self, row: DictRow | None) -> None:
        """Refuse to write once the rows were given to another machine, even while this one goes on."""
        if row is None and self.session is not None:
            raise self.overtaken()
        home = row["home"] if row else ""
        if home != self._home:
            raise Deferred(
                f"{self.place.words}: its host {self.host} is not this machine any more",
                f"it is {home}" if home else "its rows were given away, and nobody has taken them yet",
                "Stop uecwatchd on the machine that is to leave.",
            )

    def replace(self, moment: str, table: str, row: Mapping[str, object], *, lasting: bool = True) -> None:
        with self.writing(moment, lasting=lasting) as transaction:
            replace_rows(transaction, table, [row])

    def forget_for_good(self) -> None:
        """Do nothing: what was deleted stays in the database's log and backups for as long as these do."""


def last_row(cursor: psycopg.Cursor[DictRow]) -> DictRow | None:
    """Return the first row of the last of several statements."""
    while cursor.nextset():
        pass
    return cursor.fetchone()


def storable_values(values: Sequence[Any]) -> Sequence[Any]:
    """Return the values of a statement; a zero byte in a text, which PostgreSQL refuses, is replaced."""
    return [value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in values]
