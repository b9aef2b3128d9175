"""Connections to a PostgreSQL database, which are kept and used again.

A thread borrows one for each transaction. A connection that has ended meanwhile, as after a restart of the
database, is replaced without an error. No connection is waited for in the background: an operation fails at
once, with the database's own reason. That is why these are not those of psycopg's pool, which also starts
threads for each verb.

Nothing waits for longer than a time-out, also not on a network that has stopped to answer, because the loop
of the service waits for the ledger.
"""

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import DictRow, dict_row
from psycopg.types.string import TextLoader

from uecwatchd.config.records import FleetSettings
from uecwatchd.errors import Deferred, Halted, words_of
from uecwatchd.ledger.api import LedgerAway
from uecwatchd.ledger.postgres_errors import cannot_connect, wrong_dsn
from uecwatchd.ledger.rows import OF_SHARE

Result = TypeVar("Result")

# Per address of the server. libpq takes whole seconds, and 2 at least.
CONNECT_SECONDS = 3
# As long as a statement waits for another process in the other store; a statement takes milliseconds.
STATEMENT_SECONDS = 10
# The server ends a statement itself. Its answer is overdue when that must have arrived, too.
ANSWER_SECONDS = STATEMENT_SECONDS + 3.0
# A network without an answer is noticed within 20 seconds, also between two statements.
KEEPALIVES: Mapping[str, Any] = {"keepalives_idle": 10, "keepalives_interval": 3, "keepalives_count": 3}
# The server ends the transaction of a host that has stopped in the middle of one, because it has locks.
IDLE_SECONDS = 60
# From the beginning of a slow try to connect that failed to the next one, as a multiple of its time.
REFUSED_TIMES = 4
SLOW_SECONDS = 1.0
# One writes, and the others read.
MOST_CONNECTIONS = 3

SESSION = (
    f"SET statement_timeout = '{STATEMENT_SECONDS}s';"
    f" SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'"
)


# By these settings, the views of the tables have the rows of one host, and of the folders that it shares.
AS_HOST = (
    "SELECT set_config('uecwatchd.host', $1, false), set_config('uecwatchd.hosts', $2, false),"
    " set_config('uecwatchd.shares', $3, false)"
)


class NoAnswer(psycopg.OperationalError):
    """The database has not answered in time."""


class TimedConnection(psycopg.Connection[DictRow]):
    """A connection whose answers are waited for only so long."""

    answer_seconds = ANSWER_SECONDS

    def wait(self, gen: PQGen[Result], interval: float = 0.1, timeout: float | None = None) -> Result:
        try:
            return super().wait(gen, interval, timeout or self.answer_seconds)
        except psycopg.OperationalError as error:
            if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise
            self.close()  # an answer that comes later would be taken for that of another statement
            raise NoAnswer(f"it has not answered for {self.answer_seconds:g} seconds") from error


@dataclass(frozen=True, slots=True)
class DatabasePlace:
    """The address of a database. `words` are for people, and have no password."""

    words: str
    parameters: Mapping[str, Any] = field(repr=False)
    host: str  #: name of this host among those that use the database
    reading: bool = False  #: it is only read
    shares: tuple[str, ...] = ()  #: folders that this host shares with others
    answer_seconds: float = ANSWER_SECONDS


def place_of(fleet: FleetSettings, *, reading: bool = False, shares: Iterable[Path] = ()) -> DatabasePlace:
    """Return the configured database, for a host with these shared folders.

    Raises Halted for a malformed text.
    """
    dsn = fleet.dsn.get_secret_value() if fleet.dsn else ""
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise wrong_dsn(error) from None  # its message might show a password
    if fleet.password:
        given["password"] = fleet.password.get_secret_value()
    name, host = given.get("dbname"), given.get("host") or given.get("hostaddr")
    words = " ".join(["database", *([str(name)] if name else []), *([f"on {host}"] if host else [])])
    if not name and not host and "service" in given:
        words = f"database of service {given['service']}"
    parameters = {"connect_timeout": CONNECT_SECONDS, **given}
    shared = tuple(map(str, shares))
    return DatabasePlace(words, parameters, fleet.host or socket.gethostname(), reading, shared)


def connect(place: DatabasePlace) -> TimedConnection:
    """Connect to a database. Raises NotPermitted, Halted or Deferred."""
    try:
        with ExitStack() as on_error:
            connection = TimedConnection.connect(
                autocommit=True,  # transactions are begun and ended by statements
                # Another version may add a column, after which a prepared statement fails.
                prepare_threshold=None,
                row_factory=dict_row,
                cursor_factory=psycopg.RawCursor,
                client_encoding="UTF8",
                application_name="uecwatchd",
                **{**KEEPALIVES, **place.parameters},
            )
            on_error.callback(connection.close)
            connection.answer_seconds = place.answer_seconds
            connection.adapters.register_loader("json", TextLoader)  # as the other store returns it
            connection.execute(SESSION)
            hosts = (place.host, OF_SHARE, *(f"{OF_SHARE}{folder}" for folder in place.shares))
            connection.execute(AS_HOST, [place.host, "\n".join(hosts), "\n".join(place.shares)])
            if place.reading:
                connection.execute("SET default_transaction_read_only = on")
            on_error.pop_all()
    except psycopg.Error as error:
        raise cannot_connect(place.words, error) from error
    return connection


class DatabaseConnections:
    """Connections to one database, lent to threads."""

    def __init__(self, place: DatabasePlace) -> None:
        self._place = place
        self._lent = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._refusal: LedgerAway | None = None  # of the last connection
        self._refused_until = float("-inf")
        self._idle: deque[TimedConnection] = deque()  # the last used one first: its server is there

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def borrow(self, first: Callable[[TimedConnection], Result]) -> Iterator[tuple[TimedConnection, Result]]:
        """Lend a connection, with the result of `first`.

        `first` is called again if the connection had ended before.
        """
        if not self._lent.acquire(timeout=ANSWER_SECONDS):
            why = f"other threads have had all its {MOST_CONNECTIONS} connections for too long"
            raise Deferred(f"{self._place.words}: cannot use it", why, "Work resumes by itself.")
        try:
            connection, result = self._started(first)
            try:
                yield connection, result
            finally:
                self._take_back(connection)
        finally:
            self._lent.release()

    def _started(self, first: Callable[[TimedConnection], Result]) -> tuple[TimedConnection, Result]:
        while connection := self._idle_one():
            try:
                return connection, self._try(first, connection)
            except psycopg.OperationalError as error:
                # A database without an answer is not asked twice: the caller may be the service's loop.
                if isinstance(error, NoAnswer) or not connection.closed:
                    raise
        connection = self._connect()
        return connection, self._try(first, connection)

    def _idle_one(self) -> TimedConnection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _try(self, first: Callable[[TimedConnection], Result], connection: TimedConnection) -> Result:
        try:
            return first(connection)
        except BaseException:
            self._take_back(connection)
            raise

    def _connect(self) -> TimedConnection:
        """Connect once more: what is wrong now may pass, because an earlier connection was accepted.

        While a server does not even refuse, most tries fail at once: the service's loop must not stand still.
        """
        began = time.monotonic()
        if self._refusal and began < self._refused_until:
            raise words_of(self._refusal)
        try:
            return connect(self._place)
        except (Halted, LedgerAway) as error:
            took = time.monotonic() - began
            self._refused_until = began + (REFUSED_TIMES * took if took >= SLOW_SECONDS else 0.0)
            self._refusal = LedgerAway(error.what, error.why, error.hint)
            raise self._refusal from error

    def _take_back(self, connection: TimedConnection) -> None:
        """Keep a connection for the next thread, without a transaction."""
        try:
            if connection.pgconn.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
                connection.execute("ROLLBACK")
        except psycopg.Error:
            connection.close()
        if connection.pgconn.transaction_status == TransactionStatus.IDLE:
            self._idle.append(connection)
        else:
            connection.close()
