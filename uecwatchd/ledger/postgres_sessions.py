"""The sessions of hosts in PostgreSQL; see `sessions` for the rules.

They have connections of their own, so that a renewal never waits for the writes of sets.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version

from psycopg.rows import DictRow

from uecwatchd.errors import Deferred
from uecwatchd.ledger.postgres_connections import DatabaseConnections, TimedConnection
from uecwatchd.ledger.postgres_errors import RESUMES
from uecwatchd.ledger.postgres_migrations import SCHEMA
from uecwatchd.ledger.postgres_outages import PostgresOutages
from uecwatchd.ledger.postgres_slots import PostgresSlots
from uecwatchd.ledger.postgres_store import PostgresStore
from uecwatchd.ledger.sessions import (
    LEASE_SECONDS,
    MARGIN_SECONDS,
    SETTLE_SECONDS,
    Claim,
    HostSession,
    boot_time,
)
from uecwatchd.system import failpoints

CHECK_SECONDS = 1.0
LEASE = f"clock_timestamp() + interval '{LEASE_SECONDS} seconds'"
# What an earlier session of this host has left: the lock of its state directory proves that it is over.
END_EARLIER = (
    "DELETE FROM claims WHERE session IN (SELECT id FROM sessions WHERE host = $1)",
    "UPDATE sessions SET ended = clock_timestamp() WHERE host = $1 AND ended IS NULL",
    "DELETE FROM sessions WHERE host = $1 AND ended < clock_timestamp() - interval '30 days'",
)
DROP_SETTLED = "DELETE FROM claims WHERE session IS NULL AND settled_at < clock_timestamp()"
BEGIN_SESSION = f"""
INSERT INTO sessions (host, version, steps, lease_until) VALUES ($1, $2, $3, {LEASE}) RETURNING id
"""  # noqa: S608
DRAINED = "SELECT drained FROM hosts WHERE host = $1"
RENEWED = "RETURNING (SELECT drained FROM hosts WHERE hosts.host = sessions.host) AS drained"
RENEW = f"UPDATE sessions SET lease_until = {LEASE} WHERE id = $1 AND ended IS NULL {RENEWED}"  # noqa: S608
# A session that is in the middle of a transaction has locked its row. It is buried later.
BURY = """
UPDATE sessions SET ended = clock_timestamp() WHERE id IN (
    SELECT id FROM sessions WHERE ended IS NULL AND lease_until < clock_timestamp() FOR UPDATE SKIP LOCKED
)
"""
LOOK = """
SELECT claims.session, sessions.host, sessions.ended IS NOT NULL AS over, sessions.lease_until
FROM claims LEFT JOIN sessions ON id = session WHERE claim = $1 FOR UPDATE OF claims
"""
# The session is read with a lock, so that it cannot be buried in between.
TAKE_FREE = """
INSERT INTO claims (claim, session) SELECT $1, id FROM sessions WHERE id = $2 AND ended IS NULL FOR SHARE
ON CONFLICT DO NOTHING RETURNING claim
"""
TAKE_OVER = """
UPDATE claims SET session = sessions.id, settled_at = greatest(settled_at, $3)
FROM (SELECT id FROM sessions WHERE id = $2 AND ended IS NULL FOR SHARE) AS sessions WHERE claim = $1
RETURNING coalesce(extract(epoch FROM settled_at - clock_timestamp()), 0)::float8 AS settles_in
"""
# The dead host may still send parts: those of another generation have other names, and another key.
NEXT_GENERATION = """
UPDATE bundles SET generation = generation + 1 WHERE cloud = $1 AND identity = $2 AND state = 'planned'
"""
RELEASE = """
DELETE FROM claims WHERE claim = $1 AND session = $2
    AND (settled_at IS NULL OR settled_at < clock_timestamp()) RETURNING claim
"""
RELEASE_UNSETTLED = "UPDATE claims SET session = NULL WHERE claim = $1 AND session = $2 RETURNING claim"
HOSTS = """
SELECT hosts.host, drained AS is_drained, extract(epoch FROM clock_timestamp())::float8 AS now, version,
    (SELECT count(*) FROM advances WHERE advances.host = hosts.host) AS working,
    (SELECT count(*) FROM claims WHERE session = last.id) AS claims,
    extract(epoch FROM began)::float8 AS began, extract(epoch FROM ended)::float8 AS ended,
    coalesce(extract(epoch FROM lease_until), 0)::float8 AS lease_until
FROM hosts LEFT JOIN LATERAL (
    SELECT * FROM sessions WHERE sessions.host = hosts.host ORDER BY id DESC LIMIT 1
) AS last ON true ORDER BY hosts.host
"""
SET_DRAINED = "UPDATE hosts SET drained = $2 WHERE host = $1 RETURNING host"


class PostgresSessions:
    """The sessions of the hosts of one database, and the one of this host. Usable from several threads."""

    is_shared = True
    is_drained = False

    def __init__(self, store: PostgresStore, *, clock: Callable[[], float] = boot_time) -> None:
        self.host = store.host
        self._store = store
        self._clock = clock
        self._connections = DatabaseConnections(store.place)
        self.slots = PostgresSlots(store, self._rows)
        self.outages = PostgresOutages(store, self._rows)
        self._sure_until = self._contact_since = float("-inf")
        self._lock = threading.Lock()  # guards _unreleased
        self._unreleased: set[str] = set()  # claims that could not be ended when their work was

    def close(self) -> None:
        self._connections.close()

    @property
    def is_away(self) -> bool:
        return self._store.is_away

    def begin(self) -> None:
        asked = self._clock()
        with failpoints.effect("begin a session"), self._transaction() as connection:
            for statement in END_EARLIER:
                connection.execute(statement, [self._store.host])
            connection.execute(DROP_SETTLED)
            self.slots.begin(connection)
            values = [self._store.host, version("uecwatchd"), len(SCHEMA.steps)]
            row = connection.execute(BEGIN_SESSION, values).fetchone()
            host = connection.execute(DRAINED, [self._store.host]).fetchone()
        self.is_drained = bool(host and host["drained"])
        self._store.session = row["id"] if row else None
        self._contact_since, self._sure_until = asked, asked + LEASE_SECONDS - MARGIN_SECONDS

    def beat(self) -> None:
        if self._store.session is None:
            return
        asked = self._clock()
        since, self._contact_since = self._contact_since, float("inf")
        if asked >= self._sure_until + MARGIN_SECONDS:  # it has slept, or could not renew: no contact either
            since = asked
        values = [self._store.session]
        with (
            self._store.used(),
            self._connections.borrow(lambda one: one.execute(RENEW, values).fetchone()) as (
                connection,
                renewed,
            ),
        ):
            self.slots.read(connection)
            self.outages.read(connection)
        if not renewed:
            raise self._store.overtaken()
        self.is_drained = bool(renewed["drained"])
        if asked - since >= LEASE_SECONDS:
            self._execute(BURY)
        self._contact_since = min(since, asked)
        self._sure_until = asked + LEASE_SECONDS - MARGIN_SECONDS
        with self._lock:
            while self._unreleased:
                self._release(next(iter(self._unreleased)))
                self._unreleased.pop()

    def end(self) -> None:
        if self._store.session is not None:
            with failpoints.effect("end the session"), self._transaction() as connection:
                for statement in END_EARLIER[:2]:
                    connection.execute(statement, [self._store.host])
            self._store.session = None

    def sure(self) -> None:
        self._store.check_owner()
        self.check_lease()

    def check_lease(self) -> None:
        self._store.check()
        if self._store.session is not None and self._clock() >= self._sure_until:
            why = "this host has not renewed its lease in time, and another one may have taken its work over"
            raise Deferred(f"{self._store.place.words}: cannot go on", why, RESUMES)

    @contextmanager
    def claimed(self, bundle: str, *, check: Callable[[], None]) -> Iterator[Claim]:
        if self._store.session is None:  # a verb beside the service of this host
            yield Claim()
            return
        while not (claim := self._claim(bundle)):
            check()
            threading.Event().wait(CHECK_SECONDS)
        try:
            yield claim
        finally:
            try:
                self._release(bundle)
            except Deferred:
                with self._lock:
                    self._unreleased.add(bundle)

    def _claim(self, bundle: str) -> Claim | None:
        """Try to claim a bundle; None if a host that is alive has it."""
        with self._lock:  # a late release would end this claim
            self._unreleased.discard(bundle)
        with failpoints.effect("claim a bundle"):
            if self._row(TAKE_FREE, bundle, self._store.session):
                return Claim()
            with self._transaction() as connection:
                found = connection.execute(LOOK, [bundle]).fetchone()
                is_taken = found and found["session"] not in (None, self._store.session) and not found["over"]
                claim = self._take_over(connection, bundle, found) if found and not is_taken else None
        if claim is None:  # somebody else has it, or this host may have none
            self._store.check_owner()
        return claim

    def _take_over(self, connection: TimedConnection, bundle: str, found: DictRow) -> Claim | None:
        """Take the claim of a dead host, or a free one with requests that are not settled."""
        settled = None
        if found["over"]:
            connection.execute(NEXT_GENERATION, list(bundle.split("/", 1)))
            query = f"SELECT $1::timestamptz + interval '{SETTLE_SECONDS} seconds' AS at"
            row = connection.execute(query.encode(), [found["lease_until"]]).fetchone()
            settled = row and row["at"]
        taken = connection.execute(TAKE_OVER, [bundle, self._store.session, settled]).fetchone()
        former = found["host"] if found["over"] else ""
        return Claim(former, max(0.0, taken["settles_in"])) if taken else None

    def _release(self, bundle: str) -> None:
        with failpoints.effect("release a bundle"):
            if not self._row(RELEASE, bundle, self._store.session):
                self._row(RELEASE_UNSETTLED, bundle, self._store.session)

    def same_cloud(self, name: str, place: str) -> str:
        query = "SELECT place FROM fleet_clouds WHERE name = $1"
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO fleet_clouds VALUES ($1, $2) ON CONFLICT DO NOTHING", [name, place]
            )
            row = connection.execute(query, [name]).fetchone()
        return str(row["place"]) if row else place

    def hosts(self) -> tuple[HostSession, ...]:
        return tuple(HostSession(**row) for row in self._rows(HOSTS))

    def set_drained(self, host: str, *, is_drained: bool) -> None:
        with failpoints.effect("drain a host"):
            self._row(SET_DRAINED, host, is_drained)

    def _row(self, query: str, *values: object) -> DictRow | None:
        """Execute one statement, and return its first row."""
        return next(iter(self._rows(query, *values)), None)

    def _rows(self, query: str, *values: object) -> list[DictRow]:
        """Execute one statement, and return its rows."""

        def execute(connection: TimedConnection) -> list[DictRow]:
            cursor = connection.execute(query.encode(), values)
            return cursor.fetchall() if cursor.description else []

        with self._store.used(), self._connections.borrow(execute) as (_, rows):
            return rows

    def _execute(self, statement: str) -> None:
        with self._store.used(), self._connections.borrow(lambda one: one.execute(statement.encode())):
            """It is done with the first answer."""

    @contextmanager
    def _transaction(self) -> Iterator[TimedConnection]:
        with (
            self._store.used(),
            self._connections.borrow(lambda one: one.execute("BEGIN")) as (connection, _),
        ):
            yield connection
            connection.execute("COMMIT")
