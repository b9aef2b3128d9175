"""One SQLite file of the cloud, checked for its version, and used by one thread at a time."""

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from uecwatchd.errors import Halted


class Database:
    """A connection that request threads share in turn."""

    def __init__(
        self, path: Path, *, schema: str, version: int, upgrades: Mapping[int, str] | None = None
    ) -> None:
        """Open the file. `schema` is a script of CREATE statements for a new one.

        `upgrades` are scripts from a version to the next one. Raises `Halted`: if the file has another
        version.
        """
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        try:
            scripts = {**(upgrades or {}), 0: schema}
            found = _prepare(self._connection, scripts=scripts, version=version)
        except sqlite3.Error as error:
            self._connection.close()
            raise _unusable(path, str(error)) from error
        if found != version:
            self._connection.close()
            raise _unusable(path, f"it has version {found}, this program knows {version}")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the block as one transaction, while no other thread reads or writes."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def close(self) -> None:
        with self._lock:
            self._connection.close()


def _prepare(connection: sqlite3.Connection, *, scripts: Mapping[int, str], version: int) -> int:
    """Run the schema on a new file, or the upgrades of an older one, and return the file's version."""
    connection.execute("PRAGMA foreign_keys = ON")
    # Losing the last second in a power cut is all right for a test cloud; waiting for the disk is not.
    connection.execute("PRAGMA synchronous = OFF")
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    while found < version and found in scripts:
        reached = found + 1 if found else version
        connection.executescript(f"BEGIN; {scripts[found]}; PRAGMA user_version = {reached}; COMMIT;")
        found = reached
    return found


def _unusable(path: Path, why: str) -> Halted:
    return Halted(f"{path}: cannot use it", why, "Give the sandbox another folder, or an empty one.")
