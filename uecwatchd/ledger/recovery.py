"""What becomes of a ledger that is damaged, or gone.

It is never mended: what half of it says may be wrong. It is set aside, and a new one is begun. That costs
time and no more, because the new one is filled from where the truth is as well: the images are on the clouds'
lists, under locations that follow from their content, and are adopted; the files lie in the spool.
What people asked for is nowhere else, and is taken over as far as it can be read.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from urllib.parse import quote

from uecwatchd.ledger.schema import FILE_NAME, STATE_LOCK, folder_trouble, lock_state, sync_folder
from uecwatchd.system import failpoints, lockfile

# What SQLite puts beside its file. They go first: a log that stayed would be read into the new file.
COMPANIONS = ("-wal", "-shm")
WISHES = ("requests", "holds")


def is_gone(folder: Path) -> bool:
    """Whether there has been a daemon here, and its ledger is not: each run leaves a lock's file behind."""
    # Not exists() of a Path, which raises where a folder above is closed.
    return os.path.exists(folder / STATE_LOCK.name) and not os.path.exists(folder / FILE_NAME)  # noqa: PTH110


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """No daemon may be at work on a ledger that is set aside. Raises Deferred when one is."""
    lock = lock_state(folder)
    try:
        yield
    finally:
        lockfile.release(lock)


def set_aside(folder: Path) -> Path:
    """Give the ledger another name, under which nothing looks for it; that name."""
    path = folder / FILE_NAME
    aside = _free_name(folder)
    with folder_trouble(folder), failpoints.effect("set the ledger aside"):
        for ending in (*COMPANIONS, ""):
            with suppress(FileNotFoundError):
                os.rename(f"{path}{ending}", f"{aside}{ending}")  # noqa: PTH104 (names with endings are no paths)
        sync_folder(folder)
    return aside


def _free_name(folder: Path) -> Path:
    plain = f"{FILE_NAME}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    names = chain([plain], (f"{plain}-{number}" for number in count(2)))
    return next(folder / name for name in names if not (folder / name).exists())


def salvaged(aside: Path) -> Iterator[tuple[str, tuple[object, ...]]]:
    """The rows of what people asked for, each with its table, as far as they can be read."""
    for table in WISHES:
        with (
            suppress(sqlite3.DatabaseError),
            closing(
                sqlite3.connect(f"file:{quote(os.fsencode(aside))}?mode=ro&immutable=1", uri=True)
            ) as connection,
        ):
            for row in connection.execute(f"SELECT * FROM {table}"):  # noqa: S608 (one of two constants)
                yield table, tuple(row)
