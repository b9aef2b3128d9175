"""The ledger that the configuration names. Another kind of store would be chosen here."""

from collections.abc import Callable

from uecwatchd.config.records import StateSettings
from uecwatchd.ledger import sqlite
from uecwatchd.ledger.api import Ledger


def open_ledger(state: StateSettings, *, lost: Callable[[str], None] | None = None) -> Ledger:
    """Open the ledger; create or migrate it if needed. Raises NotPermitted, Halted, LedgerDamaged, Deferred.

    With `lost`, as at the start of a service, a damaged ledger is replaced by a new one. `lost` is then
    called with a sentence about this.
    """
    return sqlite.open_ledger(state.dir, lost=lost)


def read_ledger(state: StateSettings) -> Ledger | None:
    """Open the ledger for reading; None if there is none yet. Raises as `open_ledger` does."""
    return sqlite.read_ledger(state.dir)
