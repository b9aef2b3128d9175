"""The ledger in the tables of a database; see `api` for its operations."""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypedDict

from uecwatchd.ledger.api import CHECK_SECONDS
from uecwatchd.ledger.boots import Boots
from uecwatchd.ledger.history import History
from uecwatchd.ledger.key_seal import KeySeal
from uecwatchd.ledger.other_hosts import NoOtherHosts, OtherHosts
from uecwatchd.ledger.outbox import Outbox
from uecwatchd.ledger.records import BundleRecord, LeavingFile, ProgressRecord, Request, SetRecord
from uecwatchd.ledger.rows import (
    KEYS_BY_BUILD,
    KEYS_BY_CLOUD,
    KEYS_BY_CONTENT,
    KEYS_BY_IMAGE,
    OF_SET,
    SELECT_SETS,
    bundle_from,
    bundle_row,
    leaving_from,
    leaving_row,
    maker_words,
    progress_from,
    progress_row,
    replace_rows,
    replace_sets,
    request_from,
    select_sets_of,
    set_from,
)
from uecwatchd.ledger.sessions import Claim, OneHost, Sessions
from uecwatchd.ledger.sharing import NothingShared, Sharing
from uecwatchd.ledger.sql_boots import SqlBoots
from uecwatchd.ledger.sql_history import SqlHistory
from uecwatchd.ledger.sql_outbox import SqlOutbox
from uecwatchd.ledger.sql_store import SqlStore
from uecwatchd.ledger.sql_versions import SqlVersions
from uecwatchd.ledger.versions import Versions
from uecwatchd.types import ContentDigest, DetectedCloud, DigestOf, FileStamp, Role, SetId

OF_STAMP = "device = ? AND inode = ? AND size = ? AND ctime_ns = ?"


class OurRows(TypedDict):
    """Names of this host in the rows for all hosts."""

    host: str
    shares: Collection[str]


class SqlLedger:
    """The ledger in an open store. Usable from several threads; each call is one transaction.

    `seal` is for a store that does not forget keys.
    """

    def __init__(
        self,
        store: SqlStore,
        sessions: Sessions | None = None,
        *,
        others: OtherHosts | None = None,
        sharing: Sharing | None = None,
        seal: KeySeal | None = None,
    ) -> None:
        self._store = store
        self._seal = seal
        self._who = OurRows(host=store.host, shares=store.shares)
        self.sessions: Sessions = sessions or OneHost()
        self.others: OtherHosts = others or NoOtherHosts()
        self.sharing: Sharing = sharing or NothingShared()
        self._lock = threading.Lock()  # guards _claims
        self._claims: dict[str, threading.Lock] = {}
        self.history: History = SqlHistory(self._store)
        self.outbox: Outbox = SqlOutbox(self._store)
        self.boots: Boots = SqlBoots(self._store)
        self.versions: Versions = SqlVersions(self._store)

    def close(self) -> None:
        self.sessions.close()
        self._store.close()

    def check(self) -> None:
        self._store.check()

    def set(self, set_id: SetId) -> SetRecord | None:
        return next(iter(self._sets(f"WHERE {OF_SET}", *set_id)), None)

    def sets(self, folder: Path | None = None) -> tuple[SetRecord, ...]:
        where, values = ("WHERE folder = ?", (str(folder),)) if folder else ("", ())
        return self._sets(f"{where} ORDER BY folder, name", *values)

    def count_sets(self) -> int:
        return int(self._store.read("SELECT count(*) AS number FROM sets")[0]["number"])

    def sets_of_fleet(self) -> tuple[SetRecord, ...]:
        return self._store.records_of_fleet(set_from, f"{SELECT_SETS} ORDER BY folder, name")

    def sets_named(self, name: str) -> tuple[SetRecord, ...]:
        return self._sets("WHERE name = ? ORDER BY folder", name)

    def sets_on(self, cloud: str) -> tuple[SetRecord, ...]:
        return self._store.records(set_from, select_sets_of(KEYS_BY_CLOUD), cloud)

    def sets_with_image(self, cloud: str, image_id: str) -> tuple[SetRecord, ...]:
        return self._store.records_of_fleet(set_from, select_sets_of(KEYS_BY_IMAGE), cloud, image_id)

    def sets_with_build(self, key: str) -> tuple[SetRecord, ...]:
        return self._store.records(set_from, select_sets_of(KEYS_BY_BUILD), key)

    def sets_with_content(self, digest: ContentDigest) -> tuple[SetRecord, ...]:
        return self._store.records_of_fleet(set_from, select_sets_of(KEYS_BY_CONTENT), digest)

    def _sets(self, rest: str, *values: object) -> tuple[SetRecord, ...]:
        return self._store.records(set_from, f"{SELECT_SETS} {rest}", *values)

    def put_set(self, record: SetRecord) -> SetRecord:
        # After a power cut, the stage is found again.
        name = f"note set {record.state}: {record.stage}" if record.stage else f"note set {record.state}"
        with self._store.writing(name, lasting=record.state != "working") as connection:
            replace_sets(connection, [record])
        return record

    def put_sets(self, records: Iterable[SetRecord]) -> None:
        """Write all of them or none, in about the time of one."""
        if together := list(records):
            with self._store.writing(f"note {'a set' if len(together) == 1 else 'sets'}") as connection:
                replace_sets(connection, together)

    def drop_set(self, set_id: SetId) -> None:
        with self._store.writing("forget set") as connection:
            for table in ("images", "targets", "sets"):
                connection.execute(f"DELETE FROM {table} WHERE {OF_SET}", set_id)  # noqa: S608 (constants)

    def put_owners(self, folder: Path, owners: Mapping[str, int], *, proven: Collection[str]) -> None:
        """Write the owners of sets without one; for the `proven` ones also those of their bundles."""
        made = [(owners[name], self._maker(SetId(str(folder), name))) for name in proven]
        with self._store.writing("note owners") as connection:
            connection.executemany(
                "UPDATE sets SET owner = ? WHERE folder = ? AND name = ? AND owner IS NULL",
                [(uid, str(folder), name) for name, uid in owners.items()],
            )
            connection.executemany("UPDATE bundles SET owner = ? WHERE made_for = ? AND owner IS NULL", made)

    def bundle(self, cloud: str, identity: str) -> BundleRecord | None:
        return next(iter(self._bundles("WHERE cloud = ? AND identity = ?", cloud, identity)), None)

    def bundles(self, cloud: str) -> tuple[BundleRecord, ...]:
        return self._bundles("WHERE cloud = ? ORDER BY prefix", cloud)

    def all_bundles(self) -> tuple[BundleRecord, ...]:
        return self._bundles("ORDER BY cloud, prefix")

    def _bundles(self, rest: str, *values: object) -> tuple[BundleRecord, ...]:
        query = f"SELECT * FROM bundles {rest}"  # noqa: S608 (constants)
        return self._store.records(partial(bundle_from, **self._who, seal=self._seal), query, *values)

    def _maker(self, set_id: SetId) -> str:
        return maker_words(set_id, **self._who)

    def put_bundle(self, record: BundleRecord) -> BundleRecord:
        row = bundle_row(record, **self._who, seal=self._seal)
        self._store.replace(f"note bundle {record.state}", "bundles", row)
        if record.secret_key is None:
            self._store.forget_for_good()
        return record

    def drop_bundle(self, record: BundleRecord) -> None:
        statement = "DELETE FROM bundles WHERE cloud = ? AND identity = ?"
        self._store.write("forget bundle", statement, record.cloud, record.identity)
        self._store.forget_for_good()

    def unfinished(
        self, cloud: str, *, made_for: SetId, role: Role | None = None
    ) -> tuple[BundleRecord, ...]:
        where = "cloud = ?1 AND made_for = ?2 AND state != 'registered' AND (?3 IS NULL OR role = ?3)"
        return self._bundles(f"WHERE {where}", cloud, self._maker(made_for), role)

    def unpublished(self, cloud: str, *, made_for: SetId, role: Role) -> tuple[BundleRecord, ...]:
        where = "cloud = ? AND made_for = ? AND (state != 'registered' OR on_trial) AND role = ?"
        return self._bundles(f"WHERE {where}", cloud, self._maker(made_for), role)

    def bundle_of(self, cloud: str, image_id: str) -> BundleRecord | None:
        where = "cloud = ? AND image_id = ? AND state = 'registered'"
        return next(iter(self._bundles(f"WHERE {where}", cloud, image_id)), None)

    def content(self, cloud: str, image_id: str) -> ContentDigest | None:
        where = "cloud = ? AND image_id = ? AND state = 'registered'"
        rows = self._store.read(f"SELECT sha256 FROM bundles WHERE {where}", cloud, image_id)  # noqa: S608 (constant)
        return ContentDigest(rows[0]["sha256"]) if rows else None

    def machines(self, cloud: str, *, digest: ContentDigest) -> Mapping[str, BundleRecord]:
        found = self._bundles("WHERE cloud = ? AND sha256 = ? AND role = 'machine'", cloud, digest)
        return {bundle.identity: bundle for bundle in found}

    def predecessor(
        self, image_id: str, *, cloud: str, made_for: SetId, owner: int | None = None
    ) -> BundleRecord | None:
        """Return the machine image that this host registered for a set before this one, if not replaced.

        With `owner`, only images of that owner's sets.
        """
        found = self._bundles(
            "WHERE cloud = ?1 AND made_for = ?2 AND role = 'machine'"
            " AND state = 'registered' AND registered IS NOT NULL AND image_id != ?3"
            " AND (?4 IS NULL OR owner = ?4)"
            " ORDER BY registered DESC LIMIT 1",
            cloud,
            self._maker(made_for),
            image_id,
            owner,
        )
        return next(iter(found), None)

    def clouds(self) -> Mapping[str, DetectedCloud]:
        rows = self._store.read("SELECT * FROM clouds")
        return {str(row["name"]): DetectedCloud(str(row["dialect"]), str(row["address"])) for row in rows}

    def put_cloud(self, name: str, found: DetectedCloud) -> None:
        self._store.replace("note cloud", "clouds", {"name": name, **asdict(found)})

    def made_buckets(self, cloud: str) -> frozenset[str]:
        rows = self._store.read("SELECT bucket FROM made_buckets WHERE cloud = ?", cloud)
        return frozenset(str(row["bucket"]) for row in rows)

    def put_made_bucket(self, cloud: str, bucket: str) -> None:
        self._store.replace("note made bucket", "made_buckets", {"cloud": cloud, "bucket": bucket})

    def drop_made_bucket(self, cloud: str, bucket: str) -> None:
        statement = "DELETE FROM made_buckets WHERE cloud = ? AND bucket = ?"
        self._store.write("forget made bucket", statement, cloud, bucket)

    def digest(self, stamp: FileStamp, of: DigestOf) -> ContentDigest | None:
        query = f"SELECT sha256 FROM digests WHERE {OF_STAMP} AND reading = ?"  # noqa: S608 (constant)
        rows = self._store.read(query, *stamp, of)
        return ContentDigest(rows[0]["sha256"]) if rows else None

    def put_digest(self, stamp: FileStamp, of: DigestOf, digest: ContentDigest) -> None:
        names = ("device", "inode", "size", "ctime_ns")
        self._store.replace(
            "note digest",
            "digests",
            {**dict(zip(names, stamp, strict=True)), "reading": of, "sha256": digest},
            lasting=False,
        )

    def drop_digests(self, stamp: FileStamp) -> None:
        self._store.write("forget digests", "DELETE FROM digests WHERE device = ? AND inode = ?", *stamp[:2])

    def leaving(self, folder: Path) -> tuple[LeavingFile, ...]:
        """Return the files that are about to leave a folder, or were when the power failed."""
        return self._store.records(
            leaving_from, "SELECT * FROM leaving WHERE folder = ? ORDER BY path", str(folder)
        )

    def put_leaving(self, files: Iterable[LeavingFile]) -> None:
        """Write all these files or none: half a set would be left behind."""
        rows = [leaving_row(one) for one in files]
        with self._store.writing("note what leaves") as connection:
            replace_rows(connection, "leaving", rows)

    def drop_leaving(self, folder: Path) -> None:
        self._store.write("forget what left", "DELETE FROM leaving WHERE folder = ?", str(folder))

    # --- what people ask for, also while a daemon runs -----------------------------------------------------

    def requests(self) -> tuple[Request, ...]:
        rows = self._store.read("SELECT * FROM requests ORDER BY number")
        return tuple(map(request_from, rows))

    def put_request(self, request: Request) -> None:
        values = (*request.set_id, request.verb, request.cloud, request.image_id, request.due)
        names = "folder, name, verb, cloud, image_id, due"
        statement = f"INSERT INTO requests ({names}) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608 (constant)
        self._store.write("note request", statement, *values)

    def drop_request(self, request: Request) -> None:
        self._store.write("forget request", "DELETE FROM requests WHERE number = ?", request.number)

    def holds(self) -> Mapping[SetId, float]:
        return {
            SetId(row["folder"], row["name"]): row["since"] for row in self._store.read("SELECT * FROM holds")
        }

    def cloud_holds(self) -> Mapping[SetId, Mapping[str, float]]:
        found: dict[SetId, dict[str, float]] = {}
        for row in self._store.read("SELECT * FROM cloud_holds ORDER BY cloud"):
            found.setdefault(SetId(row["folder"], row["name"]), {})[row["cloud"]] = row["since"]
        return found

    def put_hold(self, set_id: SetId, *, since: float, cloud: str = "") -> None:
        table, key = ("cloud_holds", (*set_id, cloud)) if cloud else ("holds", tuple(set_id))
        marks = ", ".join("?" * (len(key) + 1))
        statement = f"INSERT OR IGNORE INTO {table} VALUES ({marks})"  # noqa: S608 (constants)
        self._store.write("note hold", statement, *key, since)

    def drop_hold(self, set_id: SetId, *, cloud: str = "") -> None:
        if cloud:
            statement = f"DELETE FROM cloud_holds WHERE {OF_SET} AND cloud = ?"  # noqa: S608 (constant)
            self._store.write("forget hold", statement, *set_id, cloud)
        else:
            self._store.write("forget hold", f"DELETE FROM holds WHERE {OF_SET}", *set_id)  # noqa: S608 (constant)

    def progress(self) -> Mapping[SetId, ProgressRecord]:
        return {one.set_id: one for one in self._store.records(progress_from, "SELECT * FROM advances")}

    def put_progress(self, progress: ProgressRecord) -> None:
        self._store.replace("note progress", "advances", progress_row(progress), lasting=False)

    def drop_progress(self, set_id: SetId) -> None:
        self._store.write(
            "forget progress",
            f"DELETE FROM advances WHERE {OF_SET}",  # noqa: S608 (constant)
            *set_id,
            lasting=False,
        )

    def probes(self) -> Mapping[str, float]:
        return {str(row["cloud"]): row["moment"] for row in self._store.read("SELECT * FROM probes")}

    def put_probes(self, moments: Mapping[str, float]) -> None:
        """Write these times in place of all others."""
        with self._store.writing("note probes", lasting=False) as connection:
            connection.execute("DELETE FROM probes")
            connection.executemany("INSERT INTO probes VALUES (?, ?)", moments.items())

    # --- shared by all operations ------------------------------------------------------------------------

    @contextmanager
    def claim(self, identity: str, *, check: Callable[[], None]) -> Iterator[Claim]:
        """Lock one bundle for this thread: of two sets with one kernel, the second waits.

        `check` is called while it waits, and may raise to end the wait. The lock of this process comes first,
        because all its threads have one session.
        """
        with self._lock:
            lock = self._claims.setdefault(identity, threading.Lock())
        while not lock.acquire(timeout=CHECK_SECONDS):
            check()
        try:
            with self.sessions.claimed(identity, check=check) as claim:
                yield claim
        finally:
            lock.release()
