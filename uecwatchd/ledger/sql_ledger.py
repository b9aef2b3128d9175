"""The ledger in the tables of a database; see `api` for its operations."""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from uecwatchd.ledger.api import CHECK_SECONDS, FileReading
from uecwatchd.ledger.boots import Boots
from uecwatchd.ledger.changes import RowChange
from uecwatchd.ledger.history import History
from uecwatchd.ledger.other_hosts import NoOtherHosts, OtherHosts
from uecwatchd.ledger.outbox import Outbox
from uecwatchd.ledger.records import (
    Asked,
    BegunBundles,
    BundleRecord,
    LeavingFile,
    ProgressRecord,
    Request,
    SetRecord,
)
from uecwatchd.ledger.rows import (
    ASKED,
    BEGUN,
    DIGESTS,
    KEYS_BY_BUILD,
    KEYS_BY_CLOUD,
    KEYS_BY_CONTENT,
    KEYS_BY_IMAGE,
    OF_SET,
    SELECT_SETS,
    STAMP,
    bundle_from,
    bundle_row,
    drop_change,
    leaving_from,
    leaving_row,
    maker_words,
    progress_from,
    progress_row,
    replace_rows,
    request_from,
    select_sets_of,
    set_change,
    set_from,
)
from uecwatchd.ledger.sessions import Claim, OneHost, Sessions
from uecwatchd.ledger.sharing import NothingShared, Sharing
from uecwatchd.ledger.sql_boots import SqlBoots
from uecwatchd.ledger.sql_history import SqlHistory
from uecwatchd.ledger.sql_outbox import SqlOutbox
from uecwatchd.ledger.sql_store import SqlStore, TableRow
from uecwatchd.ledger.sql_versions import SqlVersions
from uecwatchd.ledger.versions import Versions
from uecwatchd.types import ContentDigest, DetectedCloud, DigestOf, FileStamp, Role, SetId

if TYPE_CHECKING:  # only a ledger in a database loads it: that takes a while
    from uecwatchd.ledger.key_seal import KeySeal


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
        seal: "KeySeal | None" = None,
    ) -> None:
        self._store = store
        self._seal = seal
        self._who = OurRows(host=store.host, shares=store.shares)
        self.sessions: Sessions = sessions or OneHost()
        self.others: OtherHosts = others or NoOtherHosts()
        self.sharing: Sharing = sharing or NothingShared()
        self._lock = threading.Lock()  # guards _claims and _held
        self._claims: dict[str, threading.Lock] = {}
        self._held: set[str] = set()  # claims of this process
        self._written: dict[SetId, SetRecord] = {}
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
        self._store.put(name, set_change(record), lasting=record.state != "working")
        self._written[record.id] = record
        return record

    def has_written(self, record: SetRecord) -> bool:
        return self._written.pop(record.id, None) == record

    def put_stage(self, record: SetRecord) -> None:
        self._store.put_later(set_change(record))

    def put_sets(self, records: Iterable[SetRecord]) -> None:
        """Write all of them or none, in about the time of one."""
        if together := {record.id: record for record in records}:
            name = f"note {'a set' if len(together) == 1 else 'sets'}"
            self._store.put(name, *map(set_change, together.values()))

    def drop_set(self, set_id: SetId) -> None:
        self._store.put("forget set", drop_change(set_id))

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
        self._store.put(f"note bundle {record.state}", _row_change("bundles", row, ("cloud", "identity")))
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

    def begun(self, cloud: str, digests: Collection[ContentDigest], *, made_for: SetId) -> BegunBundles:
        contents = tuple(dict.fromkeys(digests))
        query = BEGUN.format(", ".join("?" * len(contents)) or "NULL")
        with self._lock:  # before the read: what is not claimed here now is dropped before it, or not at all
            held = frozenset(self._held)
        found = self._store.records(self._begun_from, query, cloud, *contents, cloud, self._maker(made_for))
        claimed = (one.identity for one, is_claimed in found if is_claimed or one.claim in held)
        return BegunBundles(tuple({one.identity: one for one, _ in found}.values()), frozenset(claimed))

    def _begun_from(self, row: TableRow) -> tuple[BundleRecord, bool]:
        return bundle_from(row, **self._who, seal=self._seal), bool(row["is_claimed"])

    def bundle_of(self, cloud: str, image_id: str) -> BundleRecord | None:
        where = "cloud = ? AND image_id = ? AND state = 'registered'"
        return next(iter(self._bundles(f"WHERE {where}", cloud, image_id)), None)

    def bundles_with_image(self, image_id: str) -> tuple[BundleRecord, ...]:
        return self._bundles("WHERE image_id = ? ORDER BY cloud, prefix", image_id)

    def content(self, cloud: str, image_id: str) -> ContentDigest | None:
        where = "cloud = ? AND image_id = ? AND state = 'registered'"
        rows = self._store.read(f"SELECT sha256 FROM bundles WHERE {where}", cloud, image_id)  # noqa: S608 (constant)
        return ContentDigest(rows[0]["sha256"]) if rows else None

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
        row = {"name": name, **asdict(found)}
        self._store.put("note cloud", _row_change("clouds", row, ("name",)))

    def made_buckets(self, cloud: str) -> frozenset[str]:
        rows = self._store.read("SELECT bucket FROM made_buckets WHERE cloud = ?", cloud)
        return frozenset(str(row["bucket"]) for row in rows)

    def put_made_bucket(self, cloud: str, bucket: str) -> None:
        row = {"cloud": cloud, "bucket": bucket}
        self._store.put("note made bucket", _row_change("made_buckets", row, tuple(row)))

    def drop_made_bucket(self, cloud: str, bucket: str) -> None:
        statement = "DELETE FROM made_buckets WHERE cloud = ? AND bucket = ?"
        self._store.write("forget made bucket", statement, cloud, bucket)

    def digests(self, files: Collection[FileReading]) -> Mapping[FileReading, ContentDigest]:
        if not files:
            return {}
        self._store.flush("digests")
        query = DIGESTS.format(", ".join(["(?, ?, ?)"] * len(files)))
        rows = self._store.read(query, *(one for stamp, of in files for one in (*stamp[:2], of)))
        found = {
            (FileStamp(*(row[name] for name in STAMP)), row["reading"]): ContentDigest(row["sha256"])
            for row in rows
        }
        return {one: found[one] for one in files if one in found}

    def digest(self, stamp: FileStamp, of: DigestOf) -> ContentDigest | None:
        return self.digests([(stamp, of)]).get((stamp, of))

    def put_digest(self, stamp: FileStamp, of: DigestOf, digest: ContentDigest) -> None:
        row = {**dict(zip(STAMP, stamp, strict=True)), "reading": of, "sha256": digest}
        self._store.put_later(_row_change("digests", row, ("device", "inode", "reading")))

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
        self._store.put("note what leaves", RowChange("leaving", None, replace_rows("leaving", rows)))

    def drop_leaving(self, folder: Path) -> None:
        self._store.write("forget what left", "DELETE FROM leaving WHERE folder = ?", str(folder))

    # --- what people ask for, also while a daemon runs -----------------------------------------------------

    def asked(self) -> Asked:
        requests: list[Request] = []
        holds: dict[SetId, float] = {}
        cloud_holds: dict[SetId, dict[str, float]] = {}
        for row in self._store.read(ASKED):
            set_id = SetId(row["folder"], row["name"])
            if row["number"]:
                requests.append(request_from(row))
            elif row["cloud"]:
                cloud_holds.setdefault(set_id, {})[row["cloud"]] = row["since"]
            else:
                holds[set_id] = row["since"]
        return Asked(tuple(requests), holds, cloud_holds)

    def requests(self) -> tuple[Request, ...]:
        return self.asked().requests

    def put_request(self, request: Request) -> None:
        values = (*request.set_id, request.verb, request.cloud, request.image_id, request.due)
        names = "folder, name, verb, cloud, image_id, due"
        statement = f"INSERT INTO requests ({names}) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608 (constant)
        self._store.write("note request", statement, *values)

    def drop_request(self, request: Request) -> None:
        self._store.write("forget request", "DELETE FROM requests WHERE number = ?", request.number)

    def holds(self) -> Mapping[SetId, float]:
        return self.asked().holds

    def cloud_holds(self) -> Mapping[SetId, Mapping[str, float]]:
        return self.asked().cloud_holds

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
        self._store.flush("advances")
        return {one.set_id: one for one in self._store.records(progress_from, "SELECT * FROM advances")}

    def put_progress(self, progress: ProgressRecord) -> None:
        change = _row_change("advances", progress_row(progress), ("folder", "name"))
        self._store.put("note progress", change, lasting=False)

    def drop_progress(self, set_id: SetId) -> None:
        statement = f"DELETE FROM advances WHERE {OF_SET}"  # noqa: S608 (constant)
        self._store.put_later(RowChange("advances", set_id, ((statement, tuple(set_id)),)))

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
            with self._lock:
                self._held.add(identity)
            with self.sessions.claimed(identity, check=check) as claim:
                yield claim
        finally:
            with self._lock:
                self._held.discard(identity)
            lock.release()


def _row_change(table: str, row: Mapping[str, object], key: Sequence[str]) -> RowChange:
    """Return the change to one row, in place of the one with its key."""
    return RowChange(table, tuple(row[name] for name in key), replace_rows(table, [row]))
