"""Several hosts with one ledger, in figures. By hand: `python -m tests.bench.fleet [--sets N] [--rows N]`.

PostgreSQL, the embedded cloud and all hosts share this machine, so more hosts can only be faster as long as
processors are free. The database has sets of other hosts, as many as `--rows` says.
"""

import argparse
import contextlib
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.postgres import DatabaseServer, run_server
from tests.support.waiting import until
from uecwatchd.sandbox.server import Sandbox

CONFIGURATION = """\
[spool]
folders = ["{folder}/spool"]
settle = 0.3
[state]
dir = "{folder}/state"
[defaults]
bucket = "images"
[fleet]
dsn = "{dsn}"
host = "{host}"
[cloud.default]
dialect = "sandbox"
eucarc = "{eucarc}"
"""
NAME = "fleet"
ALONE = 'kernel = "none"\nconvert = "keep"\n'
SMALL_BYTES = 64 * 1024
IDLE_SECONDS = 30.0
PATIENCE_SECONDS = 600.0
OTHER_SETS = """
INSERT INTO sets
    (host, folder, name, stamp, state, stage, attempt, since, reason, arch, deferrals, members, cloud)
SELECT 'other' || n % 10, '/srv/images', 'set' || n, 's' || n, 'done', '', 1, 0, '', '', 0,
    '[{"sha256": "' || md5(n::text) || '"}]', 'default'
FROM generate_series(1, :rows) AS n
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=120, help="sets that are dropped in all (120)")
    parser.add_argument("--rows", type=int, default=300_000, help="sets of other hosts (300000)")
    arguments = parser.parse_args()
    say("command", " ".join(sys.orig_argv[1:]))
    say("machine", f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {platform.release()}")
    alone = 0.0
    for hosts in (1, 2, 3):
        with fleet(arguments.rows) as bench:
            rate, statements, idle = bench.work(hosts, arguments.sets)
        alone = alone or rate
        say(
            f"{hosts} hosts",
            f"{rate:.1f} sets/s ({rate / alone:.2f} of one host), {statements:.1f}"
            f" statements per set, {idle:.2f} per second and host when idle",
        )
    with fleet(0) as bench:
        say("take-over", bench.take_over())


def say(what: str, figures: str) -> None:
    sys.stdout.write(f"{what:<12}{figures}\n")
    sys.stdout.flush()


class FleetBench:
    """A database that counts statements, a cloud, and a folder for hosts."""

    def __init__(self, folder: Path, server: DatabaseServer, cloud: Sandbox) -> None:
        self._folder, self._server, self._cloud = folder, server, cloud
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, host: str) -> Path:
        """Start a host, and return its spool folder."""
        folder = self._folder / host
        spool = folder / "spool"
        spool.mkdir(parents=True, exist_ok=True)
        config = folder / "uecwatchd.toml"
        dsn = self._server.dsn(NAME)
        config.write_text(CONFIGURATION.format(folder=folder, dsn=dsn, host=host, eucarc=self._cloud.eucarc))
        environ = {**os.environ, "UECWATCHD_CONFIG": str(config)}
        with (folder / "journal").open("wb") as journal:
            self._running[host] = subprocess.Popen(
                [sys.executable, "-m", "uecwatchd", "run"], env=environ, stderr=journal
            )
        until(lambda: b"Watching" in (folder / "journal").read_bytes(), f"the start of {host}")
        return spool

    def end(self) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            process.wait(60)

    def work(self, hosts: int, number: int) -> tuple[float, float, float]:
        """Return sets per second, statements per set, and statements per second and host without work."""
        spools = [self.start(f"host{n}") for n in range(hosts)]
        before, began = self._statements(), time.monotonic()
        time.sleep(IDLE_SECONDS)
        idle = (self._statements() - before) / (time.monotonic() - began) / hosts
        for n in range(number):
            drop(spools[n % hosts], f"s{n:04}", random.Random(n).randbytes(SMALL_BYTES), ALONE)  # noqa: S311
        before, began = self._statements(), time.monotonic()
        done = 0
        while done < number:
            done = sum(len(list(spool.glob("*.emi"))) for spool in spools)
            time.sleep(0.05)
        seconds = time.monotonic() - began
        idling = idle * hosts * seconds
        return number / seconds, (self._statements() - before - idling) / number, idle

    def take_over(self) -> str:
        """Return the time from the death of a host, in an upload, to the image of another host."""
        first, second = self.start("first"), self.start("second")
        noise = random.Random(0).randbytes(1 << 20)  # noqa: S311
        self._cloud.faults.arm("slow", 2.0)  # each answer, so that the upload takes a while
        drop(first, "karmic", noise, ALONE)
        until(lambda: self._claims() > 0, "a claim of the first host")
        self._running["first"].send_signal(signal.SIGKILL)
        died = time.monotonic()
        drop(second, "karmic", noise, ALONE)
        until((second / "karmic.emi").exists, "the other host", patience=PATIENCE_SECONDS)
        images = len(self._cloud.images)
        return f"{time.monotonic() - died:.0f} s, images at the location: {images}"

    def _claims(self) -> int:
        return int(self._server.execute("SELECT count(*) FROM claims", database=NAME)[0][0])

    def _statements(self) -> int:
        query = "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat%'"
        return int(self._server.execute(query, database=NAME)[0][0])


def drop(folder: Path, name: str, data: bytes, sidecar: str) -> None:
    (folder / f"{name}.toml").write_text(sidecar)
    (folder / f"{name}.img").write_bytes(data)


@contextlib.contextmanager
def fleet(rows: int) -> Iterator[FleetBench]:
    """Run a server, whose ledger has so many sets of other hosts, and a cloud."""
    with (
        tempfile.TemporaryDirectory(prefix="pg") as place,
        tempfile.TemporaryDirectory() as folder,
        run_server(Path(place)) as server,
        Sandbox(Path(folder) / "cloud") as cloud,
    ):
        server.execute("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'")
        server.stop(signal.SIGINT)
        server.start()
        server.make_template(Path(folder) / "template")
        with server.database() as made:
            server.execute(f"ALTER DATABASE {made} RENAME TO {NAME}")
            server.execute("CREATE EXTENSION pg_stat_statements", database=NAME)
            if rows:
                server.execute(OTHER_SETS.replace(":rows", str(rows)), "ANALYZE", database=NAME)
            bench = FleetBench(Path(folder), server, cloud)
            try:
                yield bench
            finally:
                bench.end()
                server.execute(f"ALTER DATABASE {NAME} RENAME TO {made}")


if __name__ == "__main__":
    main()
