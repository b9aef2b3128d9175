"""The slots of hosts in PostgreSQL; see `slots` for the rules.

A slot is a row with the session that has it. One statement takes some, and locks only those: no two hosts get
the same one, and none waits for the other.
"""

from collections.abc import Callable, Mapping, Sequence

from psycopg.rows import DictRow

from uecwatchd.ledger.postgres_connections import TimedConnection
from uecwatchd.ledger.postgres_store import PostgresStore
from uecwatchd.ledger.slots import USES, Limits, SlotKey, SlotLimit
from uecwatchd.system import failpoints

Rows = Callable[..., Sequence[DictRow]]  # executes one statement with its values

# The use of a host that probes clouds, among those with a limit.
PROBES = "probes"
FORGET_ENDED = (
    "DELETE FROM cloud_uses USING sessions WHERE id = session AND ended IS NOT NULL",
    # A cloud that was away when the last service ended may be back.
    """
    DELETE FROM outages WHERE NOT EXISTS (
        SELECT 1 FROM cloud_uses JOIN sessions ON id = session
        WHERE cloud_uses.cloud = outages.cloud AND ended IS NULL
    )
    """,
)
ANNOUNCE = """
WITH gone AS (
    DELETE FROM cloud_uses WHERE session = $1
        AND (cloud, use) NOT IN (SELECT * FROM unnest($2::text[], $3::text[]))
), added AS (
    INSERT INTO slots SELECT cloud, use, generate_series(1, most)
    FROM unnest($2::text[], $3::text[], $4::bigint[]) AS own (cloud, use, most) ON CONFLICT DO NOTHING
)
INSERT INTO cloud_uses (session, cloud, use, most)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::bigint[])
ON CONFLICT (session, cloud, use) DO UPDATE SET most = excluded.most
"""
READ = """
SELECT cloud, use, min(most) AS most, (array_agg(host ORDER BY most, host))[1] AS host,
    count(waits_since) FILTER (WHERE session <> $1) AS waiting,
    count(*) FILTER (WHERE held > 0 OR waits_since IS NOT NULL) AS sharing, sum(held)::bigint AS taken
FROM cloud_uses JOIN sessions ON id = session AND ended IS NULL CROSS JOIN LATERAL (
    SELECT count(*) AS held FROM slots
    WHERE slots.session = id AND slots.cloud = cloud_uses.cloud AND slots.use = cloud_uses.use
) AS theirs
WHERE EXISTS (SELECT 1 FROM slots WHERE slots.cloud = cloud_uses.cloud AND slots.use = cloud_uses.use)
GROUP BY cloud, use HAVING min(most) IS NOT NULL
"""
# Half of what is free and not wanted by hosts that have waited longer. A row that another host takes at the
# same moment is left out.
TAKE = """
WITH hosts AS (
    SELECT session, most, waits_since FROM cloud_uses JOIN sessions ON id = session AND ended IS NULL
    WHERE cloud = $1 AND use = $2
), free AS (
    SELECT count(*) AS number FROM slots LEFT JOIN sessions ON id = session
    WHERE cloud = $1 AND use = $2 AND number <= (SELECT min(most) FROM hosts)
        AND (session IS NULL OR ended IS NOT NULL)
), before AS (
    SELECT count(*) AS number FROM hosts WHERE session <> $3
        AND waits_since < coalesce((SELECT waits_since FROM hosts WHERE session = $3), 'infinity')
), chosen AS (
    SELECT number FROM slots LEFT JOIN sessions ON id = session
    WHERE cloud = $1 AND use = $2 AND number <= (SELECT min(most) FROM hosts)
        AND (session IS NULL OR ended IS NOT NULL)
    ORDER BY number
    LIMIT (SELECT greatest(0, least($4, (free.number - before.number + 1) / 2)) FROM free, before)
    FOR UPDATE OF slots SKIP LOCKED
)
UPDATE slots SET session = own.id
FROM chosen, (SELECT id FROM sessions WHERE id = $3 AND ended IS NULL FOR SHARE) AS own
WHERE cloud = $1 AND use = $2 AND slots.number = chosen.number RETURNING slots.number
"""
WAIT = """
UPDATE cloud_uses SET waits_since = coalesce(waits_since, clock_timestamp())
FROM sessions WHERE cloud = $1 AND use = $2 AND session = $3 AND id = session AND ended IS NULL
RETURNING cloud
"""
WAIT_NO_MORE = """
UPDATE cloud_uses SET waits_since = NULL WHERE cloud = $1 AND use = $2 AND session = $3 RETURNING cloud
"""
GIVE_BACK = """
UPDATE slots SET session = NULL FROM unnest($2::text[], $3::text[], $4::bigint[]) AS gone (cloud, use, number)
WHERE session = $1 AND slots.cloud = gone.cloud AND slots.use = gone.use AND slots.number = gone.number
RETURNING slots.number
"""


class PostgresSlots:
    """The slots of the hosts of one database, for the session of this host. Usable from several threads."""

    def __init__(self, store: PostgresStore, rows: Rows) -> None:
        self._store = store
        self._rows = rows
        self.limits: Limits = {}

    def begin(self, connection: TimedConnection) -> None:
        """Forget what ended sessions have left, as a part of the beginning of one."""
        for statement in FORGET_ENDED:
            connection.execute(statement)

    def read(self, connection: TimedConnection) -> None:
        """Look at the limits, as a part of a beat."""
        self.limits = _limits(connection.execute(READ, [self._store.session]).fetchall())

    def announce(self, clouds: Sequence[str], own: Mapping[SlotKey, int], *, probes: bool) -> None:
        uses: list[tuple[str, str, int | None]]
        uses = [(cloud, use, own.get(SlotKey(cloud, use))) for cloud in clouds for use in USES]
        if probes:
            uses += [(cloud, PROBES, None) for cloud in clouds]
        columns = map(list, zip(*uses, strict=True)) if uses else ([], [], [])
        with failpoints.effect("announce the clouds"):
            self._rows(ANNOUNCE, self._store.session, *columns)
        self.limits = _limits(self._rows(READ, self._store.session))

    def take(self, key: SlotKey, most: int, *, waits: bool) -> tuple[int, ...]:
        with failpoints.effect("take slots"):
            taken = tuple(row["number"] for row in self._rows(TAKE, *key, self._store.session, most))
        if waits and not taken and not self._rows(WAIT, *key, self._store.session):
            self._store.check_owner()
        return taken

    def wait_no_more(self, key: SlotKey) -> None:
        self._rows(WAIT_NO_MORE, *key, self._store.session)

    def give_back(self, taken: Mapping[SlotKey, Sequence[int]]) -> None:
        gone = [(*key, number) for key, numbers in taken.items() for number in numbers]
        with failpoints.effect("give slots back"):
            self._rows(GIVE_BACK, self._store.session, *map(list, zip(*gone, strict=True)))


def _limits(rows: Sequence[DictRow]) -> Limits:
    found = ((SlotKey(row.pop("cloud"), row.pop("use")), row) for row in rows)
    return {key: SlotLimit(**row) for key, row in found}
