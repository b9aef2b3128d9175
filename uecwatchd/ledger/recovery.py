"""Recovery from a damaged or missing ledger.

A damaged ledger is never repaired, because half of it may be wrong. It is set aside, and a new one is
started. This costs only time, because the new one is filled from other sources: the images are in the lists
of the clouds, at locations that follow from their content, and are adopted; the files are in the spool.
Requests, holds and test boots are nowhere else, so they are copied if they can be read.
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from urllib.parse import quote

from uecwatchd.ledger.schema import FILE_NAME
from uecwatchd.ledger.state_folder import STATE_LOCK, lock_state, translate_folder_errors
from uecwatchd.system import failpoints, lockfile
from uecwatchd.system.made_files import sync_folder

# Files of SQLite beside its database. They are renamed first: an old log would be read into the new file.
COMPANIONS = ("-wal", "-shm")
COPIED_TABLES = ("requests", "holds", "cloud_holds", "boots", "booted")


def is_gone(folder: Path) -> bool:
    """Return True if there was a daemon here, and its ledger is missing.

    Each run leaves the file of its lock behind.
    """
    # Not exists() of a Path, which raises where a folder above is closed.
    return os.path.exists(folder / STATE_LOCK.name) and not os.path.exists(folder / FILE_NAME)  # noqa: PTH110


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the state directory while a ledger is set aside. Raises Deferred if a daemon runs."""
    lock = lock_state(folder)
    try:
        yield
    finally:
        lockfile.release(lock)


def set_aside(folder: Path) -> Path:
    """Rename the ledger, and return the new name."""
    path = folder / FILE_NAME
    aside = _free_name(folder)
    with translate_folder_errors(folder), failpoints.effect("set the ledger aside"):
        for ending in (*COMPANIONS, ""):
            with suppress(FileNotFoundError):
                os.rename(f"{path}{ending}", f"{aside}{ending}")  # noqa: PTH104 (names with endings are no paths)
        sync_folder(folder)
    return aside


def _free_name(folder: Path) -> Path:
    plain = f"{FILE_NAME}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    names = chain([plain], (f"{plain}-{number}" for number in count(2)))
    return next(folder / name for name in names if not (folder / name).exists())


def salvage(aside: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield the readable rows of the copied tables, by column, each with its table."""
    for table in COPIED_TABLES:
        with (
            suppress(sqlite3.DatabaseError),
            closing(
                sqlite3.connect(f"file:{quote(os.fsencode(aside))}?mode=ro&immutable=1", uri=True)
            ) as connection,
        ):
            connection.row_factory = sqlite3.Row
            for row in connection.execute(f"SELECT * FROM {table}"):  # noqa: S608 (a constant)
                yield table, dict(row)
