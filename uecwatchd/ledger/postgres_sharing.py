"""Shared folders in PostgreSQL; see `sharing` for the rules.

The queue of the host that scans is a table. Hosts take rows from it by SKIP LOCKED, as job queues on
PostgreSQL do. It is no second truth: each scan makes it again from the sets and the files.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from uecwatchd.ledger.postgres_connections import TimedConnection
from uecwatchd.ledger.postgres_migrations import SHARED_TABLES, TABLES_OF_HOSTS
from uecwatchd.ledger.postgres_store import PostgresStore
from uecwatchd.ledger.sharing import Offer, Share
from uecwatchd.system import failpoints
from uecwatchd.types import SetId

FREE = "session IS NULL OR EXISTS (SELECT FROM sessions WHERE id = session AND ended IS NOT NULL)"
NAME_SHARE = "INSERT INTO shares (folder, id) VALUES ($1, $2) ON CONFLICT DO NOTHING"
SHARE = "SELECT id, is_marked FROM shares WHERE folder = $1"
NOTE_MARKED = "UPDATE shares SET is_marked = true WHERE folder = $1"
SCAN = f"UPDATE shares SET session = $2 WHERE folder = $1 AND (session = $2 OR {FREE}) RETURNING folder"  # noqa: S608 (constants)
# Also what this host has taken without an answer, as in an outage: it does not work on that.
TAKE_BACK = f"""
DELETE FROM offers WHERE folder = $1 AND ({FREE} OR (session = $2 AND folder || '/' || name <> ALL ($3)))
"""  # noqa: S608 (constant)
ELSEWHERE = "SELECT name FROM offers WHERE folder = $1 AND session <> $2"
LEAVE = "UPDATE shares SET session = NULL WHERE folder = $1 AND session = $2"
OFFER = """
INSERT INTO offers (folder, name, stamp, size, is_kept)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::boolean[]) ON CONFLICT DO NOTHING
"""
TAKE = """
UPDATE offers SET session = $3 WHERE folder = $1 AND name = $2 AND session IS NULL RETURNING folder
"""
# One statement, because a host without work asks again and again. What it has taken without an answer is
# dropped.
TAKE_NEXT = """
WITH own AS (
    SELECT id FROM sessions WHERE id = $1 AND ended IS NULL FOR SHARE
), unknown AS (
    DELETE FROM offers WHERE session = $1 AND folder || '/' || name <> ALL ($4)
), next AS (
    SELECT folder, name FROM offers
    WHERE session IS NULL AND NOT is_kept AND folder = ANY ($2) AND folder || '/' || name <> ALL ($3)
    ORDER BY size, folder, name LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE offers SET session = own.id FROM own, next
WHERE offers.folder = next.folder AND offers.name = next.name
RETURNING offers.folder, offers.name, stamp, size
"""
RELEASE = "DELETE FROM offers WHERE folder = $1 AND name = $2 AND session = $3"
# Of a folder that was not shared before. A row that the share has already stays as it is there.
DROP_DOUBLE = """
DELETE FROM {table} AS mine WHERE host = $1 AND folder = $2
    AND EXISTS (SELECT FROM {table} AS theirs WHERE theirs.host = '*' || $2 AND {same})
"""
GIVE_ROWS = "UPDATE {table} SET host = '*' || $2 WHERE host = $1 AND folder = $2"
GIVE_BUNDLES = """
UPDATE bundles SET made_for = '*:' || substr(made_for, length($1::text) + 2)
WHERE starts_with(made_for, $1 || ':' || $2 || '/')
    AND strpos(substr(made_for, length($1 || $2) + 3), '/') = 0
"""


class PostgresSharing:
    """The shared folders of a fleet, and the part of this host in them. Usable from several threads."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._shares: dict[str, Share] = {}

    def share_of(self, folder: Path) -> Share:
        place = str(folder)
        if place not in self._store.shares:
            return Share("")
        if place not in self._shares or not self._shares[place].is_marked:
            with self._change("name a share") as connection:
                connection.execute(NAME_SHARE, [place, uuid4().hex])
                row = connection.execute(SHARE, [place]).fetchone()
                self._give(connection, place)
            self._shares[place] = Share(row["id"], row["is_marked"]) if row else Share("")
        return self._shares[place]

    def note_marked(self, folder: Path) -> None:
        with self._change("note the mark of a share") as connection:
            connection.execute(NOTE_MARKED, [str(folder)])

    def _give(self, connection: TimedConnection, folder: str) -> None:
        """Make the rows of this host for a folder those of the share."""
        host = self._store.host
        for table in SHARED_TABLES:
            if key := TABLES_OF_HOSTS[table]:
                same = " AND ".join(f"mine.{name} = theirs.{name}" for name in key.split(", "))
                connection.execute(DROP_DOUBLE.format(table=table, same=same).encode(), [host, folder])
            connection.execute(GIVE_ROWS.format(table=table).encode(), [host, folder])
        connection.execute(GIVE_BUNDLES, [host, folder])

    def begin_scan(self, folder: Path, taken: Collection[SetId] = ()) -> frozenset[SetId] | None:
        place, session = str(folder), self._store.session
        with self._change("scan a shared folder") as connection:
            if not connection.execute(SCAN, [place, session]).fetchone():
                return None
            connection.execute(TAKE_BACK, [place, session, [*map(str, taken)]])
            rows = connection.execute(ELSEWHERE, [place, session]).fetchall()
        return frozenset(SetId(place, row["name"]) for row in rows)

    def leave(self, folder: Path) -> None:
        with self._change("leave a shared folder") as connection:
            connection.execute(LEAVE, [str(folder), self._store.session])

    def offer(self, offers: Iterable[Offer]) -> None:
        rows = [(*one.set_id, one.stamp, one.size, one.is_kept) for one in offers]
        if rows:
            with self._change("offer sets") as connection:
                connection.execute(OFFER, [list(column) for column in zip(*rows, strict=True)])

    def take(self, set_id: SetId) -> bool:
        with self._change("take a set") as connection:
            return connection.execute(TAKE, [*set_id, self._store.session]).fetchone() is not None

    def take_next(
        self, folders: Collection[Path], but: Collection[SetId] = (), taken: Collection[SetId] = ()
    ) -> Offer | None:
        lists = [[*map(str, folders)], [*map(str, but)], [*map(str, taken)]]
        with failpoints.effect("take a set"):
            row = self._store.first_row(TAKE_NEXT, self._store.session, *lists)
        return Offer(SetId(row["folder"], row["name"]), row["stamp"], row["size"]) if row else None

    def release(self, set_id: SetId) -> None:
        with self._change("release a set") as connection:
            connection.execute(RELEASE, [*set_id, self._store.session])

    @contextmanager
    def _change(self, moment: str) -> Iterator[TimedConnection]:
        """Write in one transaction of this host's session, so that nobody buries it in between."""
        with failpoints.effect(moment), self._store.in_session() as connection:
            yield connection
