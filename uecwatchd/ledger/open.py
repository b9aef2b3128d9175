"""The ledger that the configuration names."""

from collections.abc import Callable
from types import ModuleType

from uecwatchd.config.records import Settings
from uecwatchd.config.sharing import shared_folders
from uecwatchd.errors import Halted
from uecwatchd.ledger import sqlite
from uecwatchd.ledger.api import Ledger


def open_ledger(settings: Settings, *, lost: Callable[[str], None] | None = None) -> Ledger:
    """Open the ledger; create or migrate it if needed. Raises NotPermitted, Halted, LedgerDamaged, Deferred.

    With `lost`, as at the start of a service, a damaged ledger file is replaced by a new one. `lost` is then
    called with a sentence about this.
    """
    if settings.fleet.dsn:
        opened: Ledger = _postgres().open_ledger(
            settings.fleet, settings.state.dir, shares=shared_folders(settings.spool)
        )
        return opened
    return sqlite.open_ledger(settings.state.dir, lost=lost)


def open_host(settings: Settings, host: str) -> Ledger:
    """Open the ledger as another host with the same one has it. Raises Rejected, and as `read_ledger`.

    What a verb asks for there is found by the service of that host.
    """
    opened: Ledger = _postgres().open_host(settings.fleet, settings.state.dir, host=host)
    return opened


def read_ledger(settings: Settings) -> Ledger | None:
    """Open the ledger for reading; None if there is none yet. Raises as `open_ledger` does."""
    if settings.fleet.dsn:
        opened: Ledger | None = _postgres().read_ledger(
            settings.fleet, settings.state.dir, shares=shared_folders(settings.spool)
        )
        return opened
    return sqlite.read_ledger(settings.state.dir)


def examine_store(settings: Settings) -> str:
    """Return where the ledger is, in words. Raises as `open_ledger` does if a database cannot be used."""
    if settings.fleet.dsn:
        return f"ledger: {_postgres().examine_database(settings.fleet, settings.state.dir)}"
    return f"state directory: {settings.state.dir}"


def _postgres() -> ModuleType:
    """Load what only a fleet needs: its packages are an extra, and take a tenth of a second."""
    try:
        from uecwatchd.ledger import postgres
    except ImportError as error:
        raise Halted(
            "dsn under [fleet]: cannot use a database",
            f"there is no psycopg ({error})",
            "Install uecwatchd with the extra fleet, or the package python3-psycopg.",
        ) from error
    return postgres
