"""The ledger in an SQLite file of the state directory."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from uecwatchd.errors import Deferred
from uecwatchd.ledger.api import LedgerDamaged
from uecwatchd.ledger.recovery import is_gone, locked, salvage, set_aside
from uecwatchd.ledger.rows import SELECT_SETS, bundle_from, insert_into, set_from
from uecwatchd.ledger.schema import FILE_NAME, open_file, read_file
from uecwatchd.ledger.sql_ledger import SqlLedger
from uecwatchd.ledger.sqlite_store import SqliteStore

FOUND_AGAIN = "what is registered is found again in the clouds, and nothing is registered twice"


def open_ledger(folder: Path, *, lost: Callable[[str], None] | None = None) -> SqlLedger:
    """Open the ledger; create or migrate it if needed. Raises NotPermitted, Halted, LedgerDamaged, Deferred.

    If `lost` is given, as at the start of a service, all rows are checked, and a damaged ledger is set aside
    and a new one is started. `lost` is called with a sentence about this, or about a missing ledger.
    Otherwise a damaged row is found by the operation that reads it.
    """
    if lost is None:
        return SqlLedger(SqliteStore(open_file(folder), folder))
    gone = is_gone(folder)
    try:
        ledger = _open_checked(folder)
    except LedgerDamaged:
        return _replace_damaged(folder, lost)
    if gone:
        lost(f"{folder / FILE_NAME}: the ledger was gone, and a new one is started; {FOUND_AGAIN}")
    return ledger


def _replace_damaged(folder: Path, lost: Callable[[str], None]) -> SqlLedger:
    with locked(folder):
        try:
            return _open_checked(folder)  # another process may have been quicker
        except LedgerDamaged as damage:
            why = damage.why
        aside = set_aside(folder)
        store = SqliteStore(open_file(folder), folder)
        _restore_rows(store, salvage(aside))
    lost(f"{folder / FILE_NAME}: the ledger was damaged ({why}) and is now {aside.name}; {FOUND_AGAIN}")
    return SqlLedger(store)


def _restore_rows(store: SqliteStore, rows: Iterable[tuple[str, Mapping[str, object]]]) -> None:
    """Write requests, holds and test boots from another ledger, by column: an older one has fewer."""
    for table, row in rows:
        with suppress(Deferred):  # an invalid row
            store.write("take over a row", insert_into(table, row, "OR IGNORE"), *row.values())


def _open_checked(folder: Path) -> SqlLedger:
    """Open the ledger with all its rows checked, so that only later damage can stop the work."""
    store = SqliteStore(open_file(folder), folder)
    try:
        # Each set and bundle is converted once, and none is kept.
        store.check_rows(set_from, SELECT_SETS)
        store.check_rows(bundle_from, "SELECT * FROM bundles")
    except BaseException:
        store.close()
        raise
    return SqlLedger(store)


def read_ledger(folder: Path) -> SqlLedger | None:
    """Open the ledger for reading; None if there is none yet. Raises as `open_ledger` does."""
    connection = read_file(folder)
    return SqlLedger(SqliteStore(connection, folder)) if connection else None
