"""The ledger in a PostgreSQL database."""

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from uecwatchd.config.records import FleetSettings
from uecwatchd.errors import Rejected
from uecwatchd.ledger.key_seal import KeySeal, find_seal, seal_of
from uecwatchd.ledger.postgres_connections import DatabasePlace, connect, place_of
from uecwatchd.ledger.postgres_others import PostgresOtherHosts
from uecwatchd.ledger.postgres_schema import examine, home_of, is_readable, prepare
from uecwatchd.ledger.postgres_sessions import PostgresSessions
from uecwatchd.ledger.postgres_sharing import PostgresSharing
from uecwatchd.ledger.postgres_store import PostgresStore
from uecwatchd.ledger.sessions import boot_time
from uecwatchd.ledger.sql_ledger import SqlLedger
from uecwatchd.ledger.state_folder import make_folder, name_of_home, translate_folder_errors


def open_ledger(
    fleet: FleetSettings,
    folder: Path,
    *,
    shares: Iterable[Path] = (),
    clock: Callable[[], float] = boot_time,
) -> SqlLedger:
    """Open the ledger; create or migrate it if needed. Raises NotPermitted, Halted, Deferred.

    `folder` is the state directory that the rows of this host belong to. It has the lock of the daemon.
    `shares` are its shared folders. `clock` is the one that leases are counted by.
    """
    with translate_folder_errors(folder):
        make_folder(folder)
        seal = seal_of(folder)
    place, home = place_of(fleet, shares=shares), name_of_home(folder)
    with closing(connect(place)) as connection:
        prepare(connection, place, home=home)
    return _ledger(place, home, seal, clock)


def read_ledger(fleet: FleetSettings, folder: Path, *, shares: Iterable[Path] = ()) -> SqlLedger | None:
    """Open the ledger for reading; None if there is none yet. Raises as `open_ledger` does."""
    place, home = place_of(fleet, reading=True, shares=shares), name_of_home(folder)
    with closing(connect(place)) as connection:
        there = is_readable(connection, place, home=home)
    return _ledger(place, home, find_seal(folder)) if there else None


def open_host(fleet: FleetSettings, folder: Path, *, host: str) -> SqlLedger:
    """Open the ledger as another host has it, for a verb of this one. `folder` is the state directory here.

    Raises Rejected if there is none of this name, and what `read_ledger` does.
    """
    place = place_of(fleet)
    with closing(connect(place)) as connection:
        is_there = is_readable(connection, place, home=name_of_home(folder))
        home = home_of(connection, place, host) if is_there else None
    if home is None:
        why = "no host of this name has had the ledger"
        raise Rejected(f"there is no host named {host}", why, "`uecwatchd fleet` lists them.")
    return _ledger(replace(place, host=host), home, find_seal(folder))


def _ledger(
    place: DatabasePlace, home: str, seal: KeySeal | None, clock: Callable[[], float] = boot_time
) -> SqlLedger:
    store = PostgresStore(place, home=home)
    return SqlLedger(
        store,
        PostgresSessions(store, clock=clock),
        others=PostgresOtherHosts(store),
        sharing=PostgresSharing(store),
        seal=seal,
    )


def examine_database(fleet: FleetSettings, folder: Path) -> str:
    """Return the database in words, if it can be used. Raises as `open_ledger` does, and changes nothing."""
    place = place_of(fleet)
    with closing(connect(place)) as connection:
        examine(connection, place, home=name_of_home(folder))
    return place.words
