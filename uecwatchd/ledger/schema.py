"""The ledger's SQLite file: its schema with migrations, and SQLite's errors as sentences."""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from uecwatchd.errors import Deferred, Halted
from uecwatchd.intake.spool.safe_open import KIND_WORDS, kind_of
from uecwatchd.ledger.api import LedgerDamaged
from uecwatchd.ledger.migrations import MIGRATIONS
from uecwatchd.ledger.state_folder import TAKE_A_LOCAL_DISK, make_folder, translate_folder_errors
from uecwatchd.system import failpoints
from uecwatchd.system.disk_space import free_space, reason_too_full
from uecwatchd.system.mounts import file_system_of, is_shared

FILE_NAME = "ledger.sqlite"
# How long a statement waits for another process (`status`, or a daemon that is ending) to finish writing.
BUSY_SECONDS = 10.0
BUSY_PAUSE_SECONDS = 0.05
# An extended result code of SQLite has the plain one in its lowest byte.
PLAIN_CODE = 0xFF
# SQLite's codes for a damaged file. All others are temporary: a lock, a full disk, a lost mount.
DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
HINTS: Mapping[int, str] = {
    sqlite3.SQLITE_FULL: "Free some space in the state directory; work resumes by itself.",
    sqlite3.SQLITE_BUSY: "Another process is writing to it; work resumes by itself once that has ended.",
    sqlite3.SQLITE_READONLY: "Let the service's user write to the state directory and all that is in it.",
    sqlite3.SQLITE_CANTOPEN: "Let the service's user write to the state directory and all that is in it.",
    sqlite3.SQLITE_IOERR: "Look at the disk of the state directory; work resumes by itself.",
}
# Codes that may mean a disk without inodes, or one that has become read-only.
VAGUE = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY})
# SQLite's codes if there are no locks or no shared memory, after it has waited for a lock in vain.
UNSHARED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL})
OTHER_HINT = "Nothing is lost, and work resumes by itself; if that goes on, look at the state directory."


def open_file(folder: Path, *, busy: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Open the ledger; create or migrate it if needed. Raises NotPermitted, Halted, LedgerDamaged, Deferred.

    `busy` is how long it waits for another process, in seconds.
    """
    path = folder / FILE_NAME
    with translate_folder_errors(folder):
        make_folder(folder)
        _check_regular_file(path)
        # Created here first, because SQLite would make it readable for everybody.
        made = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _check_locks(made)
        finally:
            os.close(made)
    with translate_errors(folder):
        connection = _connect(path, mode="rw", busy=busy)
        try:
            _enable_wal(connection, busy)
            # Nothing that is reported to be on disk may be lost in a power cut.
            connection.execute("PRAGMA synchronous = FULL")
            # Deleted keys must not stay in free pages.
            connection.execute("PRAGMA secure_delete = ON")
            _check_integrity(connection, path)
            _migrate(connection, path)
            empty_log(connection)
        except BaseException:
            connection.close()
            raise
    return connection


def read_file(folder: Path) -> sqlite3.Connection | None:
    """Open the ledger for reading; None if there is none yet. Raises as `open_file` does."""
    path = folder / FILE_NAME
    with translate_folder_errors(folder):
        _check_regular_file(path)
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            return None
    with translate_errors(folder):
        connection = _connect(path, mode=_reading_mode(folder))
        try:
            _check_integrity(connection, path)
            # In this order: another process may be just creating it, and be done in between.
            objects = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            version = _version(connection)
            if version == 0 and objects == 0:
                connection.close()
                return None
            if version != len(MIGRATIONS):
                raise _other_version(path, version)
        except BaseException:
            connection.close()
            raise
    return connection


def _check_regular_file(path: Path) -> None:
    """Check that the ledger is a regular file. A link may lead to somebody else's file, or a wrong disk."""
    with suppress(FileNotFoundError):
        kind = kind_of(path.lstat().st_mode)
        if kind != "file":
            raise Halted(
                f"{path}: this is no ledger",
                f"it is {KIND_WORDS[kind]}, and the ledger is a regular file in the state directory itself",
                "Move it away, and name another place by dir under [state] if the ledger must be there.",
            )


def _reading_mode(folder: Path) -> str:
    """Return SQLite's mode for reading.

    It needs to write beside its file, except on a read-only file system.
    """
    frozen = os.statvfs(folder).f_flag & os.ST_RDONLY and not (folder / f"{FILE_NAME}-wal").exists()
    return "ro&immutable=1" if frozen else "ro"


def empty_log(connection: sqlite3.Connection) -> None:
    """Copy the log into the file itself, if readers and the disk allow it."""
    with suppress(sqlite3.OperationalError):  # it will be copied later
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _connect(path: Path, *, mode: str, busy: float = BUSY_SECONDS) -> sqlite3.Connection:
    where = f"file:{quote(os.fsencode(path.absolute()))}?mode={mode}"
    connection = sqlite3.connect(where, uri=True, timeout=busy, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    # No other host can have a claim. Those of this process are known to it.
    connection.create_function("is_claimed", 2, lambda _cloud, _identity: False)
    return connection


def _check_locks(opened: int) -> None:
    """Raise OSError if there are no locks: SQLite would take that for a lock of another process."""
    try:
        fcntl.lockf(opened, fcntl.LOCK_SH | fcntl.LOCK_NB, 1)
    except BlockingIOError:  # another process has one, so there are locks
        return


def _enable_wal(connection: sqlite3.Connection, busy: float) -> None:
    """Switch to a write-ahead log.

    If several processes create the ledger at once, SQLite does not wait for the others here, despite its
    timeout; in other places it does.
    """
    end = time.monotonic() + busy
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            locked = error.sqlite_errorcode & PLAIN_CODE == sqlite3.SQLITE_BUSY
            if not locked or time.monotonic() >= end:
                raise
        time.sleep(BUSY_PAUSE_SECONDS)


def _check_integrity(connection: sqlite3.Connection, path: Path) -> None:
    """Check all pages, so that an overwritten page is found now, and not during the work on a set."""
    found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    if found != "ok":
        raise damaged(path, found)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Migrate in one transaction, so that other processes see the old or the new version."""
    version = _version(connection)
    if version > len(MIGRATIONS):
        raise _other_version(path, version)
    if version < 0:
        raise damaged(path, f"its version is {version}")
    if version == len(MIGRATIONS):
        return
    statements = " ".join(MIGRATIONS[version:])
    script = f"BEGIN IMMEDIATE; {statements} PRAGMA user_version = {len(MIGRATIONS)}; COMMIT;"
    try:
        with failpoints.effect("bring the ledger up to date"):
            connection.executescript(script)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        connection.rollback()
        if _version(connection) != len(MIGRATIONS):  # or another process was quicker
            # Its tables do not match its version: it is another program's, or the version was lost.
            raise damaged(path, str(error)) from error


def _other_version(path: Path, version: int) -> Halted:
    return Halted(
        f"{path}: this ledger is of version {version}",
        f"this uecwatchd reads version {len(MIGRATIONS)}",
        "Start the newer uecwatchd once as the service's user; never delete the ledger to get around this.",
    )


def damaged(path: Path | None, why: str) -> LedgerDamaged:
    return LedgerDamaged(
        f"{path or 'the ledger'}: it is damaged",
        " ".join(why.split()),
        "Restart the service: it sets the ledger aside, begins a new one, and finds what is registered in the"
        " clouds again. Then look at the disk that it is on.",
    )


@contextmanager
def translate_errors(folder: Path) -> Iterator[None]:
    """Translate SQLite's errors: a full disk and a lock are temporary, a damaged file is not."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & PLAIN_CODE
        if code in DAMAGE:
            raise damaged(None, str(error)) from error
        why, hint = str(error), HINTS.get(code, OTHER_HINT)
        space = free_space(folder) if code in VAGUE else None
        if space and any(lack := reason_too_full(space)):
            why, hint = f"{error}, and {lack[0]}", f"{lack[1]}; work resumes by itself."
        if code in UNSHARED and is_shared(kind := file_system_of(folder)):
            why, hint = f"{why}, and the state directory is on {kind}", TAKE_A_LOCAL_DISK
        raise Deferred("the ledger: cannot use it", why, hint) from error
