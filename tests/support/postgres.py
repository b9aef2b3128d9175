"""A PostgreSQL server of the tests: a real one, in a folder of its own, reached by a socket there."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psycopg
from pydantic import SecretStr

from tests.support.host import NOBODY
from tests.support.waiting import until
from uecwatchd.config.records import FleetSettings
from uecwatchd.ledger.postgres import open_ledger

ADMIN = "admin"
TEMPLATE = "ledger_template"
# The disk of a test need not survive a power cut.
SETTINGS = (
    "fsync=off",
    "full_page_writes=off",
    "listen_addresses=",
    "max_connections=40",
    "shared_preload_libraries=pg_stat_statements",
    "shared_buffers=16MB",
)
STATEMENTS = """
SELECT coalesce(sum(calls), 0) FROM pg_stat_statements JOIN pg_database ON pg_database.oid = dbid
WHERE datname = '{}' AND query !~ '{}'
"""
# Of all roles, only one needs its password.
ACCESS = "local all secretive scram-sha-256\nlocal all all trust\n"


def program(name: str) -> str:
    """Return the path of a program of the newest version; Debian has them outside of PATH."""
    there = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    found = str(there[-1]) if there else shutil.which(name)
    assert found, "install the package postgresql"
    return found


@dataclass
class DatabaseServer:
    """A server, which never runs as root: it refuses that."""

    folder: Path
    process: "subprocess.Popen[bytes] | None" = None
    names: Iterator[int] = field(default_factory=count)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def socket(self) -> Path:
        return self.folder / ".s.PGSQL.5432"

    def make(self) -> None:
        if os.geteuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
        options = ["--no-sync", "--no-locale", "-E", "UTF8", "-A", "trust", "-U", ADMIN]
        self._run(program("initdb"), *options, "-D", str(self.data))
        (self.data / "pg_hba.conf").write_text(ACCESS)

    def start(self) -> None:
        options = [word for one in SETTINGS for word in ("-c", one)]
        command = [program("postgres"), "-D", str(self.data), "-k", str(self.folder), *options]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **self._user())
        until(self._answers, "the server answers", detail=(self.folder / "log").read_text)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop at once, as a crash does, or with SIGINT as an administrator would."""
        if self.process:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None

    @contextmanager
    def away(self) -> Iterator[None]:
        """Let the server crash, and start it again at the end."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def dsn(self, name: str, user: str = ADMIN) -> str:
        return f"host={self.folder} dbname={name} user={user}"

    def execute(self, *statements: str, database: str = "postgres") -> list[tuple]:
        """Execute statements as the administrator, and return the rows of the last one."""
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def count_statements(self, database: str, *, but: str = "^$") -> int:
        """Count the statements of a database up to now, as the server does: BEGIN and COMMIT, too.

        `but` is a pattern of those that are left out.
        """
        counting = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements"
        return int(self.execute(counting, STATEMENTS.format(database, but))[0][0])

    def pids(self, database: str) -> list[int]:
        """Return the server's processes for the connections to a database."""
        found = self.execute("SELECT pid, datname FROM pg_stat_activity")
        return [pid for pid, of in found if of == database]

    @contextmanager
    def database(self, *, template: str = TEMPLATE) -> Iterator[str]:
        """Make a database with the tables of a ledger that belongs to no host yet; yield its name."""
        name = f"test_{next(self.names)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield name
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def make_template(self, state: Path) -> None:
        self.execute(f"CREATE DATABASE {TEMPLATE}")
        with closing(open_ledger(FleetSettings(SecretStr(self.dsn(TEMPLATE))), state)):
            self.execute("DELETE FROM hosts", database=TEMPLATE)

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, *command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, **self._user())

    def _user(self) -> dict:
        return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


@contextmanager
def run_server(folder: Path) -> Iterator[DatabaseServer]:
    """Run a server; `folder` has a short path, because sockets have."""
    server = DatabaseServer(folder)
    server.make()
    server.start()
    try:
        yield server
    finally:
        server.stop()
