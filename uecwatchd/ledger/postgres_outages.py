"""The outages of clouds in PostgreSQL; see `outages` for the rules."""

import time
from collections.abc import Callable, Mapping, Sequence

from psycopg.rows import DictRow

from uecwatchd.ledger.outages import OVERDUE_SECONDS, TURN_SECONDS, Outage
from uecwatchd.ledger.postgres_connections import TimedConnection
from uecwatchd.ledger.postgres_store import PostgresStore
from uecwatchd.system import failpoints

Rows = Callable[..., Sequence[DictRow]]  # executes one statement with its values

READ = """
SELECT cloud, what, why, hint, found_by, coalesce(host, '') AS prober,
    coalesce(session = $1 AND host IS NOT NULL, false) AS is_ours,
    extract(epoch FROM probe_at - clock_timestamp())::float8 AS probe_in
FROM outages LEFT JOIN sessions ON id = session AND ended IS NULL
"""
# The host after this one, among those that are alive and probe the cloud; this one if there is no other.
NEXT = """(
    SELECT session FROM cloud_uses JOIN sessions ON id = session
    WHERE cloud = $1::text AND use = 'probes' AND ended IS NULL AND lease_until > clock_timestamp()
    ORDER BY session <= $2::bigint, session LIMIT 1
)"""
REPORT = f"""
INSERT INTO outages (cloud, session, probe_at, what, why, hint, found_by)
VALUES ($1::text, coalesce({NEXT}, $2::bigint), clock_timestamp() + $3 * interval '1 second', $4, $5, $6, $7)
ON CONFLICT DO NOTHING RETURNING session = $2::bigint AS is_ours
"""  # noqa: S608 (a constant)
POSTPONE = f"""
UPDATE outages SET probe_at = clock_timestamp() + $3 * interval '1 second',
    session = CASE WHEN is_over THEN coalesce({NEXT}, session) ELSE session END,
    taken_at = CASE WHEN is_over THEN clock_timestamp() ELSE taken_at END
FROM (
    SELECT taken_at < clock_timestamp() - interval '{TURN_SECONDS} seconds' AS is_over
    FROM outages WHERE cloud = $1::text
) AS turn
WHERE cloud = $1::text AND session = $2::bigint RETURNING session = $2::bigint AS is_ours
"""  # noqa: S608 (constants)
TAKE_OVER = f"""
UPDATE outages SET session = $2, probe_at = least(probe_at, clock_timestamp()), taken_at = clock_timestamp()
WHERE cloud = $1 AND (
    probe_at < clock_timestamp() - interval '{OVERDUE_SECONDS} seconds'
    OR NOT EXISTS (SELECT 1 FROM sessions WHERE id = session AND ended IS NULL)
) RETURNING cloud
"""  # noqa: S608 (a constant)
END = "DELETE FROM outages WHERE cloud = $1"


class PostgresOutages:
    """The outages of one database, for the session of this host. Usable from several threads."""

    def __init__(self, store: PostgresStore, rows: Rows) -> None:
        self._store = store
        self._rows = rows
        self.read_at = float("-inf")
        self.current: Mapping[str, Outage] = {}

    def read(self, connection: TimedConnection) -> None:
        """Look at the outages, as a part of a beat."""
        self.read_at = time.monotonic()
        self.current = _outages(connection.execute(READ, [self._store.session]).fetchall())

    def report(self, cloud: str, words: tuple[str, str, str], *, probe_in: float) -> bool:
        values = (cloud, self._store.session, probe_in, *words, self._store.host)
        with failpoints.effect("report an outage"):
            return any(row["is_ours"] for row in self._rows(REPORT, *values))

    def postpone(self, cloud: str, *, probe_in: float) -> bool:
        return any(row["is_ours"] for row in self._rows(POSTPONE, cloud, self._store.session, probe_in))

    def take_over(self, cloud: str) -> bool:
        return bool(self._rows(TAKE_OVER, cloud, self._store.session))

    def end(self, cloud: str) -> None:
        with failpoints.effect("end an outage"):
            self._rows(END, cloud)

    def probers(self) -> Mapping[str, str]:
        rows = self._rows(READ, self._store.session)
        return {cloud: one.prober for cloud, one in _outages(rows).items() if one.prober}


def _outages(rows: Sequence[DictRow]) -> Mapping[str, Outage]:
    return {row.pop("cloud"): Outage(**row) for row in rows}
