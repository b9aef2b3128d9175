"""The memory of the service: where every set and every bundle stands, written before the next step is taken.

One SQLite file in the state directory, readable by the service's user alone because it holds the keys of
bundles under way. Four kinds of record:

- a *set*: one per name in a spool folder: its state, what it was made of, the ids it got;
- a *bundle*: one per content and role on a cloud: where it lies, how far it has come. Sets that share a
  kernel share its bundle. The row is written before the effect it announces: `planned` before the first part
  goes up, `registering` before RegisterImage is asked;
- a *digest*: the SHA-256 of a file as long as its stamp stands, so that nothing unchanged is read twice;
- a *cloud*: which generation it was found to be, for as long as it cannot be asked.
"""

import fcntl
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from uecwatchd.bundle.names import manifest_name
from uecwatchd.cloud.recognise import Remembered
from uecwatchd.cloud.upload import Stored
from uecwatchd.errors import Deferred, Halted, NotPermitted
from uecwatchd.image import Role
from uecwatchd.spool import Stamp

State = Literal["waiting", "queued", "working", "done", "rejected", "deferred", "halted"]
BundleState = Literal["planned", "uploaded", "registering", "registered"]

FILE_NAME = "ledger.sqlite"
LOCK_NAME = "lock"
# How long a statement waits for another process (`status`, a second daemon's last gasp) to finish writing.
BUSY_SECONDS = 10.0

# Each entry takes the schema from its index to the next version; a released entry is never edited.
MIGRATIONS = (
    """
    CREATE TABLE sets (
        folder TEXT NOT NULL, name TEXT NOT NULL, stamp TEXT NOT NULL, state TEXT NOT NULL,
        stage TEXT NOT NULL, attempt INTEGER NOT NULL, since REAL NOT NULL, next_retry REAL,
        reason TEXT NOT NULL, cloud TEXT NOT NULL, bucket TEXT NOT NULL, arch TEXT NOT NULL,
        deferrals INTEGER NOT NULL, first_failure REAL, idle TEXT NOT NULL, members TEXT NOT NULL,
        fingerprint TEXT NOT NULL, remarks TEXT NOT NULL, error TEXT,
        PRIMARY KEY (folder, name)
    ) STRICT;
    CREATE TABLE bundles (
        cloud TEXT NOT NULL, bucket TEXT NOT NULL, identity TEXT NOT NULL, role TEXT NOT NULL,
        sha256 TEXT NOT NULL, prefix TEXT NOT NULL, state TEXT NOT NULL, secret_key BLOB, secret_iv BLOB,
        parts INTEGER NOT NULL, bundled_size INTEGER NOT NULL, image_id TEXT NOT NULL,
        made_for TEXT NOT NULL, registered REAL, objects TEXT NOT NULL,
        PRIMARY KEY (cloud, identity)
    ) STRICT;
    CREATE TABLE clouds (
        name TEXT NOT NULL PRIMARY KEY, dialect TEXT NOT NULL, address TEXT NOT NULL
    ) STRICT;
    CREATE TABLE digests (
        device INTEGER NOT NULL, inode INTEGER NOT NULL, size INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
        sha256 TEXT NOT NULL,
        PRIMARY KEY (device, inode)
    ) STRICT;
    """,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as it is kept and shown. `kind` is rejected, deferred or halted, `exit_code` a command's."""

    kind: str
    what: str
    why: str
    hint: str
    request_id: str = ""
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """A member as it was used. `image_id` and `manifest` ("bucket/key") are empty until there are any."""

    role: Role
    path: str
    size: int
    stamp: Stamp
    sha256: str = ""
    image_id: str = ""
    manifest: str = ""


@dataclass(frozen=True, slots=True)
class SetRecord:
    """Times are seconds of the epoch. `since` is when the state began, `first_failure` when this job's first
    deferral was; `reason` is what a waiting set waits for; `idle` the sidecar keys without effect yet."""

    folder: str
    name: str
    stamp: str
    state: State
    since: float
    stage: str = ""
    attempt: int = 0
    next_retry: float | None = None
    reason: str = ""
    cloud: str = ""
    bucket: str = ""
    arch: str = ""
    deferrals: int = 0  # in a row, since `first_failure`
    first_failure: float | None = None
    idle: tuple[str, ...] = ()
    members: tuple[MemberRecord, ...] = ()
    fingerprint: str = ""  # of all that the ids stand for
    remarks: tuple[str, ...] = ()  # what an image that is registered did not get of what was asked for it
    error: Failure | None = None

    def image_id(self, role: Role) -> str:
        return next((m.image_id for m in self.members if m.role == role), "")


@dataclass(frozen=True, slots=True)
class BundleRecord:
    """`identity` is a digest of all that makes the bundle what it is; `prefix` begins its keys in the bucket.

    The key and the IV are kept until it is registered: the same source then gives the same parts again.
    `made_for` is the folder and name of the set that first wanted it. `registered` is in seconds of the
    epoch, None for one that was found in the cloud. `objects` is what was sent to the bucket.
    """

    cloud: str
    bucket: str
    identity: str
    role: Role
    sha256: str
    prefix: str
    state: BundleState
    secret_key: bytes | None = None
    secret_iv: bytes | None = None
    parts: int = 0
    bundled_size: int = 0
    image_id: str = ""
    made_for: str = ""
    registered: float | None = None
    objects: tuple[Stored, ...] = ()

    def __repr__(self) -> str:
        return f"BundleRecord({self.cloud}, {self.bucket}/{self.prefix}, {self.state}, {self.image_id})"

    @property
    def location(self) -> str:
        return f"{self.bucket}/{manifest_name(self.prefix)}"


class Ledger:
    """The open file. Usable from several threads; each call is one transaction on disk when it returns."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._turn = threading.RLock()
        self._identities: dict[str, threading.Lock] = {}

    def close(self) -> None:
        with self._turn:
            self._connection.close()

    def set(self, folder: Path, name: str) -> SetRecord | None:
        rows = self._read("SELECT * FROM sets WHERE folder = ? AND name = ?", str(folder), name)
        return _set_from(rows[0]) if rows else None

    def sets(self, folder: Path | None = None) -> tuple[SetRecord, ...]:
        rows = self._read("SELECT * FROM sets ORDER BY folder, name")
        return tuple(_set_from(row) for row in rows if folder is None or row["folder"] == str(folder))

    def put_set(self, record: SetRecord) -> SetRecord:
        self._replace("sets", _row_of(record))
        return record

    def drop_set(self, record: SetRecord) -> None:
        self._write("DELETE FROM sets WHERE folder = ? AND name = ?", record.folder, record.name)

    def bundle(self, cloud: str, identity: str) -> BundleRecord | None:
        rows = self._read("SELECT * FROM bundles WHERE cloud = ? AND identity = ?", cloud, identity)
        return _bundle_from(rows[0]) if rows else None

    def bundles(self, cloud: str) -> tuple[BundleRecord, ...]:
        rows = self._read("SELECT * FROM bundles WHERE cloud = ? ORDER BY prefix", cloud)
        return tuple(_bundle_from(row) for row in rows)

    def put_bundle(self, record: BundleRecord) -> BundleRecord:
        row: dict[str, object] = {f.name: getattr(record, f.name) for f in fields(record)}
        row["objects"] = json.dumps([astuple(stored) for stored in record.objects])
        self._replace("bundles", row)
        return record

    def drop_bundle(self, record: BundleRecord) -> None:
        self._write("DELETE FROM bundles WHERE cloud = ? AND identity = ?", record.cloud, record.identity)

    def predecessor(self, image_id: str, *, cloud: str, made_for: str) -> BundleRecord | None:
        """The machine image that this host registered for a set before this one, unless it was replaced."""
        rows = self._read(
            "SELECT * FROM bundles WHERE cloud = ? AND made_for = ? AND role = 'machine'"
            " AND state = 'registered' AND registered IS NOT NULL AND image_id != ?"
            " ORDER BY registered DESC LIMIT 1",
            cloud,
            made_for,
            image_id,
        )
        return _bundle_from(rows[0]) if rows else None

    def clouds(self) -> Mapping[str, Remembered]:
        """What each cloud was found to be, by its name."""
        rows = self._read("SELECT * FROM clouds")
        return {str(row["name"]): Remembered(str(row["dialect"]), str(row["address"])) for row in rows}

    def put_cloud(self, name: str, found: Remembered) -> None:
        self._replace("clouds", {"name": name, **asdict(found)})

    def digest(self, stamp: Stamp) -> str | None:
        where = "device = ? AND inode = ? AND size = ? AND ctime_ns = ?"
        rows = self._read(f"SELECT sha256 FROM digests WHERE {where}", *stamp)  # noqa: S608 (constant)
        return str(rows[0]["sha256"]) if rows else None

    def put_digest(self, stamp: Stamp, sha256: str) -> None:
        names = ("device", "inode", "size", "ctime_ns")
        self._replace("digests", {**dict(zip(names, stamp, strict=True)), "sha256": sha256})

    @contextmanager
    def claim(self, identity: str) -> Iterator[None]:
        """Hold one bundle's work for this thread: two sets of one kernel make it once, the second waits."""
        with self._turn:
            lock = self._identities.setdefault(identity, threading.Lock())
        with lock:
            yield

    def _read(self, statement: str, *values: object) -> list[sqlite3.Row]:
        with self._turn, _trouble():
            return list(self._connection.execute(statement, values))

    def _write(self, statement: str, *values: object) -> None:
        with self._turn, _trouble(), self._connection:
            self._connection.execute(statement, values)

    def _replace(self, table: str, row: Mapping[str, object]) -> None:
        marks = ", ".join("?" for _ in row)
        self._write(f"INSERT OR REPLACE INTO {table} ({', '.join(row)}) VALUES ({marks})", *row.values())  # noqa: S608 (names of our own fields)


def open_ledger(folder: Path) -> Ledger:
    """Open the ledger, making or migrating it. Raises NotPermitted, Halted or Deferred with what to do."""
    path = folder / FILE_NAME
    with _folder_trouble(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Made by hand first, since SQLite would make it readable by everyone.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    with _trouble():
        connection = _connect(path)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # A power cut may not lose what was announced to be on disk.
            connection.execute("PRAGMA synchronous = FULL")
            _migrate(connection, path)
        except BaseException:
            connection.close()
            raise
    return Ledger(connection)


def read_ledger(folder: Path) -> Ledger | None:
    """Open the ledger for looking only; None when there is none yet. Raises as `open_ledger` does."""
    path = folder / FILE_NAME
    with _folder_trouble(folder):
        if not path.is_file():
            return None
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    with _trouble():
        connection = _connect(path)
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version != len(MIGRATIONS):
            connection.close()
            raise _other_version(path, version)
        connection.execute("PRAGMA query_only = ON")
    return Ledger(connection)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise _other_version(path, version)
    for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {statements} PRAGMA user_version = {number}; COMMIT;")


def _other_version(path: Path, version: int) -> Halted:
    return Halted(
        f"{path}: this ledger is of version {version}",
        f"this uecwatchd reads version {len(MIGRATIONS)}",
        "Start the newer uecwatchd once as the service's user; never delete the ledger to get around this.",
    )


@contextmanager
def _folder_trouble(folder: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise NotPermitted(
            f"{folder}: cannot use the state directory",
            "this user may not read and write it",
            f"Run as the service's user, or: chown -R uecwatchd {folder}.",
        ) from error
    except OSError as error:
        raise Deferred(
            f"{folder}: cannot use the state directory",
            error.strerror or str(error),
            "Free some space or mount what it lies on.",
        ) from error


@contextmanager
def _trouble() -> Iterator[None]:
    """SQLite's errors as ours: a full disk and a lock pass by themselves, a damaged file does not."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise Deferred(
            "the ledger: cannot use it",
            str(error),
            "Free some space in the state directory; nothing is lost, and work resumes by itself.",
        ) from error
    except sqlite3.DatabaseError as error:
        raise Halted(
            "the ledger: it is damaged",
            str(error),
            "Stop the service, keep a copy of the state directory, and restore it from a backup.",
        ) from error


def _row_of(record: SetRecord) -> dict[str, object]:
    row: dict[str, object] = {f.name: getattr(record, f.name) for f in fields(record)}
    row["idle"] = json.dumps(record.idle)
    row["remarks"] = json.dumps(record.remarks)
    row["members"] = json.dumps([asdict(member) for member in record.members])
    row["error"] = json.dumps(asdict(record.error)) if record.error else None
    return row


def _set_from(row: sqlite3.Row) -> SetRecord:
    values: dict[str, Any] = dict(row)
    values["idle"], values["remarks"] = (tuple(json.loads(values[key])) for key in ("idle", "remarks"))
    values["members"] = tuple(_member_from(member) for member in json.loads(values["members"]))
    values["error"] = Failure(**json.loads(values["error"])) if values["error"] else None
    return SetRecord(**values)


def _bundle_from(row: sqlite3.Row) -> BundleRecord:
    values: dict[str, Any] = dict(row)
    objects = tuple(Stored(*stored) for stored in json.loads(values["objects"]))
    return BundleRecord(**{**values, "objects": objects})


def _member_from(values: Mapping[str, Any]) -> MemberRecord:
    device, inode, size, ctime_ns = values["stamp"]  # JSON has no tuples
    return MemberRecord(**{**values, "stamp": (device, inode, size, ctime_ns)})


def hold(folder: Path) -> int:
    """Be the only daemon on a state directory; returns the descriptor that holds the lock until it is closed.

    Raises Deferred, naming the process that has it.
    """
    with _folder_trouble(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(folder / LOCK_NAME, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 64, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise Deferred(
            f"{folder}: another uecwatchd is at work here",
            f"process {holder} holds the lock",
            "Let it finish or stop it; one daemon works for all the spool folders.",
        ) from error
    os.ftruncate(descriptor, 0)
    with suppress(OSError):  # on a full disk: the lock holds without a name in it
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
