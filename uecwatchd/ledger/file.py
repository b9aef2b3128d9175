"""The ledger's file: its schema and the ways from older ones, and SQLite's errors in our words."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uecwatchd.errors import Deferred, Halted, NotPermitted

FILE_NAME = "ledger.sqlite"
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
    # Requests and holds are tables of their own, since another process writes them while a daemon runs.
    """
    CREATE TABLE requests (
        number INTEGER PRIMARY KEY AUTOINCREMENT, folder TEXT NOT NULL, name TEXT NOT NULL, verb TEXT NOT NULL
    ) STRICT;
    CREATE TABLE holds (
        folder TEXT NOT NULL, name TEXT NOT NULL, since REAL NOT NULL, PRIMARY KEY (folder, name)
    ) STRICT;
    CREATE TABLE advances (
        folder TEXT NOT NULL, name TEXT NOT NULL, stage TEXT NOT NULL, file TEXT NOT NULL,
        done INTEGER NOT NULL, total INTEGER NOT NULL, part INTEGER NOT NULL,
        began REAL NOT NULL, moment REAL NOT NULL, PRIMARY KEY (folder, name)
    ) STRICT;
    """,
)


def open_file(folder: Path) -> sqlite3.Connection:
    """Open the ledger, making or migrating it. Raises NotPermitted, Halted or Deferred with what to do."""
    path = folder / FILE_NAME
    with folder_trouble(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Made by hand first, since SQLite would make it readable by everyone.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    with trouble():
        connection = _connect(path)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # A power cut may not lose what was announced to be on disk.
            connection.execute("PRAGMA synchronous = FULL")
            _migrate(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def read_file(folder: Path) -> sqlite3.Connection | None:
    """Open the ledger for looking only; None when there is none yet. Raises as `open_file` does."""
    path = folder / FILE_NAME
    with folder_trouble(folder):
        if not path.is_file():
            return None
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    with trouble():
        connection = _connect(path)
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version != len(MIGRATIONS):
            connection.close()
            raise _other_version(path, version)
        connection.execute("PRAGMA query_only = ON")
    return connection


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
def folder_trouble(folder: Path) -> Iterator[None]:
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
def trouble() -> Iterator[None]:
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
