"""Ledgers of several hosts in one database, as they are opened in one process."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psycopg
from pydantic import SecretStr

from tests.support.host import Host
from tests.support.newer_tables import bring_up_to_date
from tests.support.postgres import DatabaseServer
from uecwatchd.config.records import FleetSettings
from uecwatchd.ledger.postgres import open_ledger
from uecwatchd.ledger.postgres_migrations import PostgresSchema
from uecwatchd.ledger.sessions import boot_time
from uecwatchd.ledger.sql_ledger import SqlLedger


def fleet_of(server: DatabaseServer, name: str, host: str) -> FleetSettings:
    return FleetSettings(SecretStr(server.dsn(name)), host=host)


@dataclass(frozen=True)
class Fleet:
    """A database, and a folder for the state directories of its hosts."""

    server: DatabaseServer
    name: str
    folder: Path

    def open(
        self, host: str, clock: Callable[[], float] = boot_time, shares: Iterable[Path] = ()
    ) -> SqlLedger:
        settings = fleet_of(self.server, self.name, host)
        return open_ledger(settings, self.folder / host, clock=clock, shares=shares)

    def join(self, host: Host, name: str) -> Host:
        """Give a build host the ledger in this database, and a name."""
        dsn = self.server.dsn(self.name)
        host.configure(f'{host.config.read_text()}\n[fleet]\nhost = "{name}"\ndsn = "{dsn}"\n')
        return host

    def upgrade(self, host: str, schema: PostgresSchema) -> None:
        """Migrate the database, as the service of another version does on a host."""
        bring_up_to_date(fleet_of(self.server, self.name, host), self.folder / host, schema)

    def connection(self) -> "psycopg.Connection":
        return psycopg.connect(self.server.dsn(self.name), autocommit=True)

    def execute(self, statement: str) -> list[tuple]:
        return self.server.execute(statement, database=self.name)

    def expire(self, host: str) -> None:
        """Let the lease of a host end, as if it had not renewed it for some time."""
        self._change(host, "lease_until = clock_timestamp() - interval '1 second'")

    def bury(self, host: str) -> None:
        """End the session of a host, as another one does after its lease."""
        self.expire(host)
        self._change(host, "ended = clock_timestamp()")

    def _change(self, host: str, change: str) -> None:
        where = f"ended IS NULL AND host = '{host}'"
        self.execute(f"UPDATE sessions SET {change} WHERE {where}")  # noqa: S608 (our own words)
