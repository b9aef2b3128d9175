"""Several hosts with one ledger, in figures. By hand: `python -m tests.bench.fleet [--sets N] [--rows N]`.

PostgreSQL, the embedded cloud and all hosts share this machine, so more hosts can only be faster as long as
processors are free. The database has sets of other hosts, as many as `--rows` says.
"""

import argparse
import contextlib
import gzip
import os
import platform
import random
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.guest_images import bzimage
from tests.support.postgres import DatabaseServer, run_server
from tests.support.waiting import until
from uecwatchd.demo.material import RAMDISK_INIT
from uecwatchd.install.cpio import cpio
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
TOGETHER = 'kernel = "{name}.vmlinuz"\nramdisk = "{name}.initrd"\nconvert = "keep"\n'
VERSION = "6.1.0-9-cloud-amd64"
KERNEL = bzimage(VERSION)
RAMDISK = gzip.compress(b"".join(cpio([("init", stat.S_IFREG | 0o755, RAMDISK_INIT.encode())])), mtime=0)
SMALL_BYTES = 64 * 1024
IDLE_SECONDS = 30.0
REST_SECONDS = 3.0  # what comes after the id
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
            work = bench.work(hosts, arguments.sets)
        alone = alone or work.rate
        say(
            f"{hosts} hosts",
            f"{work.rate:.1f} sets/s ({work.rate / alone:.2f} of one host), {work.each:.1f} statements per"
            f" set ({work.first:.0f} for the first with its kernel), {work.idle:.2f} per second and host"
            " when idle",
        )
    with fleet(0) as bench:
        say("take-over", bench.take_over())


def say(what: str, figures: str) -> None:
    sys.stdout.write(f"{what:<12}{figures}\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class Work:
    """Sets per second, statements of the first set and of each other one, and per second and host if idle."""

    rate: float
    first: float
    each: float
    idle: float


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

    def work(self, hosts: int, number: int) -> Work:
        spools = [self.start(f"host{n}") for n in range(hosts)]
        before, began = self._statements(), time.monotonic()
        time.sleep(IDLE_SECONDS)
        idle = (self._statements() - before) / (time.monotonic() - began) / hosts
        first = self._first(spools[0], idle * hosts)
        for n in range(number):
            drop_together(spools[n % hosts], f"s{n:04}", random.Random(n).randbytes(SMALL_BYTES))  # noqa: S311
        before, began = self._statements(), time.monotonic()
        done = 0
        while done < number:
            done = sum(len(list(spool.glob("s*.emi"))) for spool in spools)
            time.sleep(0.05)
        seconds = time.monotonic() - began
        idling = idle * hosts * seconds
        return Work(number / seconds, first, (self._statements() - before - idling) / number, idle)

    def _first(self, spool: Path, idle: float) -> float:
        """Return the statements for a set whose kernel and ramdisk are new. `idle` are those per second."""
        before, began = self._statements(), time.monotonic()
        drop_together(spool, "first", random.Random("first").randbytes(SMALL_BYTES))  # noqa: S311
        until((spool / "first.emi").exists, "the first set")
        time.sleep(REST_SECONDS)
        return self._statements() - before - idle * (time.monotonic() - began)

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
        return self._server.count_statements(NAME)


def drop_together(folder: Path, name: str, data: bytes) -> None:
    """Drop a set with copies of the one kernel and the one ramdisk."""
    (folder / f"{name}.vmlinuz").write_bytes(KERNEL)
    (folder / f"{name}.initrd").write_bytes(RAMDISK)
    drop(folder, name, data, TOGETHER.format(name=name))


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
        server.make_template(Path(folder) / "template")
        with server.database() as made:
            server.execute(f"ALTER DATABASE {made} RENAME TO {NAME}")
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
