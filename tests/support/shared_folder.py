"""Hosts of a fleet that share one spool folder, and their daemons."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.fleet import Fleet
from tests.support.host import Host
from tests.support.program_runs import Run
from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.demo.material import RealSet
from uecwatchd.intake.spool.output_files import MARK_NAME

MakeHost = Callable[..., Host]


def at(host: Host, spool: Path) -> Host:
    """Give a host another spool folder."""
    host.configure(host.config.read_text().replace(str(host.spool), str(spool)))
    return replace(host, spool=spool)


@dataclass(frozen=True)
class Sharing:
    """Makes hosts that share one folder."""

    fleet: Fleet
    spool: Path
    make_host: MakeHost

    def host(self, name: str) -> Host:
        made = at(self.make_host(name), self.spool)
        dsn = self.fleet.server.dsn(self.fleet.name)
        policy = f'[spool.policy."{made.spool}"]\nshared = true\n'
        made.configure(f'{made.config.read_text()}\n{policy}[fleet]\nhost = "{name}"\ndsn = "{dsn}"\n')
        return made

    def at_work(self, host: str) -> list[str]:
        """Return the sets that a host has taken."""
        query = "SELECT name FROM offers JOIN sessions ON sessions.id = session WHERE host = '{}'"
        return [name for (name,) in self.fleet.execute(query.format(host))]

    def scans(self) -> str:
        """Return the host that scans the folder; empty if there is none."""
        query = "SELECT host FROM shares JOIN sessions ON sessions.id = session WHERE ended IS NULL"
        found = self.fleet.execute(query)
        return str(found[0][0]) if found else ""


def said(host: Host) -> str:
    """Return what the daemons of a host have said."""
    return (host.folder / "stderr").read_text()


@contextmanager
def running(host: Host) -> Iterator[Run]:
    """Run the daemon of a host, with a file for what it says: nobody has to read that meanwhile."""
    with (host.folder / "stderr").open("a") as file:
        process = host.start("run", stderr=file)
    try:
        until(lambda: "Watching" in said(host), "the daemon watches", detail=lambda: said(host))
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_SECONDS)


def await_sets(hosts: Iterable[Host], names: Iterable[str]) -> None:
    """Wait until these sets are done."""
    hosts, names = list(hosts), list(names)

    def missing() -> list[str]:
        return [name for name in names if not (hosts[0].spool / f"{name}.emi").exists()]

    def state() -> str:
        return "\n".join([f"missing: {missing()}", *(said(host)[-3000:] for host in hosts)])

    until(lambda: not missing(), "all sets", detail=state, patience=3 * PATIENCE_SECONDS)


def write_set(spool: Path, name: str, made: RealSet, number: int) -> None:
    """Drop a set with a machine image of its own; there are three kernels and ramdisks in all."""
    for source, ending in ((made.machine, "img"), (made.kernel, "vmlinuz"), (made.ramdisk, "initrd")):
        mark = number if ending == "img" else number % 3
        (spool / f"{name}.{ending}").write_bytes(source.read_bytes() + bytes([mark]) * 512)


def check_done_once(host: Host, names: Iterable[str]) -> None:
    """Check that each set has its image, each image is there once, and nothing is left behind."""
    images = host.cloud.images
    assert max(Counter(image.location for image in images).values()) == 1
    ids = {image.id for image in images if image.type == "machine"}
    assert {(host.spool / f"{name}.emi").read_text().strip() for name in names} == ids
    assert {host.report(name)["state"] for name in names} == {"done"}
    hidden = [path.name for path in host.spool.iterdir() if path.name[0] == "."]
    assert hidden in ([], [MARK_NAME])


def attempts(host: Host, name: str) -> int:
    """Return how many attempts at a set its log has."""
    return (host.spool / f"{name}.uec.log").read_text().count("--- attempt")
