"""Several hosts with one ledger while the database, the network or a host is away for some time, in daemons.

Each test ends with the same looks: all sets are done, there is one image at each location, every bundle
opens, nothing is left behind, and the outage was told once. They last as long as the outages do.
"""

import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.daemon import daemon_process, daemon_thread, stop_daemon, wait_for_line
from tests.support.fleet import Fleet
from tests.support.host import Host
from tests.support.listener import Recorder
from tests.support.postgres import DatabaseServer
from tests.support.program_runs import Run
from tests.support.relay import Relay, relay_to
from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.config.load import load
from uecwatchd.demo.material import RealSet
from uecwatchd.ledger.open import open_ledger
from uecwatchd.ledger.sessions import LEASE_SECONDS
from uecwatchd.service.daemon import Service
from uecwatchd.system.clocks import Clocks

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(600)]

BUCKET = "uec-images"
KERNELS = 3
SLOW_SECONDS = 1.0  # before each answer of the cloud
# One lease, and some beats of the host that notices its end.
TAKEOVER_SECONDS = 240.0
SIDECAR = 'kernel = "k{}.vmlinuz"\nramdisk = "none"\nconvert = "keep"\n'
AWAY = ("cannot connect to it", "cannot use it")


@pytest.fixture
def fleet(database_server: DatabaseServer, tmp_path: Path) -> Iterator[Fleet]:
    with database_server.database() as name:
        yield Fleet(database_server, name, tmp_path)


@pytest.fixture
def hosts(fleet: Fleet, make_host: Callable[..., Host]) -> list[Host]:
    return [fleet.join(make_host(name), name) for name in "abc"]


def drop_sets(hosts: Sequence[Host], made: RealSet, number: int) -> list[str]:
    """Drop small disks, the same on each host, some of them with one kernel; return the names."""
    kernel, names = made.kernel.read_bytes(), [f"d{one:02}" for one in range(number)]
    for host in hosts:
        for one in range(KERNELS):
            (host.spool / f"k{one}.vmlinuz").write_bytes(kernel + bytes(one))
        for one, name in enumerate(names):
            (host.spool / f"{name}.toml").write_text(SIDECAR.format(one % KERNELS))
            noise = random.Random(one).randbytes(4096)  # noqa: S311 (only not to be all alike)
            (host.spool / f"{name}.img").write_bytes(noise)
    return names


@contextmanager
def daemons(hosts: Sequence[Host]) -> Iterator[list[Run]]:
    with ExitStack() as ends:
        yield [ends.enter_context(daemon_process(host)) for host in hosts]


def await_all(hosts: Sequence[Host], names: Sequence[str], *, seconds: float = TAKEOVER_SECONDS) -> None:
    def missing() -> str:
        return " ".join(
            f"{host.folder.name}/{name}"
            for host in hosts
            for name in names
            if not (host.spool / f"{name}.emi").exists()
        )

    until(lambda: not missing(), "all are done", patience=seconds, detail=missing)


def check_cloud(hosts: Sequence[Host], names: Sequence[str]) -> None:
    """Check that each file is registered once, opens, and is all that there is."""
    images = hosts[0].cloud.images
    assert max(Counter(image.location for image in images).values()) == 1
    prefixes = tuple({image.location.partition("/")[2].removesuffix("manifest.xml") for image in images})
    assert [one.key for one in hosts[0].cloud.objects(BUCKET) if not one.key.startswith(prefixes)] == []
    for name in names:
        data, talk = hosts[0].ask("verify", f"{hosts[0].spool}/{name}")
        assert "equal" in data + talk, data + talk
    for host in hosts[1:]:
        for name in names:
            assert (host.spool / f"{name}.emi").read_text() == (hosts[0].spool / f"{name}.emi").read_text()


def test_three_daemons_work_on_sixty_sets_with_three_kernels(hosts: list[Host], small_set: RealSet) -> None:
    names = drop_sets(hosts, small_set, 20)
    with daemons(hosts) as runs:
        await_all(hosts, names)
        for run in runs:
            stop_daemon(run)
    check_cloud(hosts, names)
    assert Counter(image.type for image in hosts[0].cloud.images) == {"machine": 20, "kernel": KERNELS}


@pytest.mark.parametrize("seconds", [5, 20, 90])
def test_a_database_that_crashes_and_is_away_counts_against_no_set(
    fleet: Fleet, hosts: list[Host], small_set: RealSet, seconds: int
) -> None:
    names = drop_sets(hosts, small_set, 8)
    with daemons(hosts) as runs:
        until(lambda: len(hosts[0].cloud.images) >= KERNELS, "they are at work")
        with fleet.server.away():
            time.sleep(seconds)  # its length is what is tried
        await_all(hosts, names)
        talks = [stop_daemon(run) for run in runs]
    check_cloud(hosts, names)
    for talk in talks:
        assert told_outages(talk) <= 1, talk
    with closing(fleet.open("d")) as book:
        records = book.sets_of_fleet()
    assert {(record.state, record.deferrals, record.first_failure) for record in records} == {
        ("done", 0, None)
    }


def told_outages(talk: str) -> int:
    return sum(any(words in line for words in AWAY) for line in talk.splitlines())


@pytest.fixture
def relay(fleet: Fleet) -> Iterator[Relay]:
    with relay_to(fleet.server.socket) as relay:
        yield relay


def lead_over(relay: Relay, host: Host, fleet: Fleet) -> None:
    """Let a host reach its database by a relay."""
    over_tcp = f"host=127.0.0.1 port={relay.port} dbname={fleet.name} user=admin"
    host.configure(host.config.read_text().replace(fleet.server.dsn(fleet.name), over_tcp))


@pytest.mark.parametrize("way", ["block", "cut"])
@pytest.mark.parametrize("seconds", [20, LEASE_SECONDS + 20])
def test_a_host_whose_way_to_the_database_ends_goes_on_later(
    fleet: Fleet, hosts: list[Host], relay: Relay, small_set: RealSet, way: str, seconds: float
) -> None:
    a, b = hosts[:2]
    lead_over(relay, a, fleet)
    names = drop_sets((a, b), small_set, 6)
    with daemons([a]) as (run,):
        until(lambda: a.cloud.images, "it is at work")
        getattr(relay, way)()
        with daemons([b]) as (other,):
            time.sleep(seconds)  # its length is what is tried
            relay.restore()
            if seconds > LEASE_SECONDS and run_has_ended(run):
                assert run.returncode == 75  # and systemd starts it again
                assert a.run("once").returncode == 0
            await_all((a, b), names)
            stop_daemon(other)
        if run.returncode is None:
            assert told_outages(stop_daemon(run)) <= 1
    check_cloud([a, b], names)


def test_systemd_hears_that_a_service_lives_while_its_database_gives_no_answer(
    fleet: Fleet, hosts: list[Host], relay: Relay, small_set: RealSet
) -> None:
    a = hosts[0]
    lead_over(relay, a, fleet)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(PATIENCE_SECONDS)
        systemd.bind(str(a.folder / "notify"))
        run = a.start("run", environ={"NOTIFY_SOCKET": str(a.folder / "notify"), "WATCHDOG_USEC": "60000000"})
        try:
            await_notice(systemd, b"READY=1")
            relay.block()
            (name,) = drop_sets([a], small_set, 1)
            wait_for_line(run, AWAY[1])
            forget_notices(systemd)
            for _ in range(2):
                await_notice(systemd, b"WATCHDOG=1")
            relay.restore()
            await_all([a], [name])
            assert "The ledger can be used again" in stop_daemon(run)
        finally:
            run.kill()
    check_cloud([a], [name])


def forget_notices(systemd: socket.socket) -> None:
    systemd.settimeout(0)
    with suppress(BlockingIOError):
        while systemd.recv(65536):
            pass
    systemd.settimeout(PATIENCE_SECONDS)


def await_notice(systemd: socket.socket, words: bytes) -> None:
    while words not in systemd.recv(65536):
        pass


def run_has_ended(run: Run) -> bool:
    """Wait a while for the end of a daemon that was taken for dead, if it was at work."""
    with suppress(AssertionError):
        until(lambda: run.poll() is not None, "it finds that out", patience=LEASE_SECONDS)
    return run.returncode is not None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_the_work_of_a_host_is_taken_over_after_its_lease(
    fleet: Fleet, hosts: list[Host], small_set: RealSet, number: int
) -> None:
    a, b = hosts[:2]
    names = drop_sets((a, b), small_set, 6)
    a.cloud.faults.arm("slow", SLOW_SECONDS)
    with daemons([a]) as (run,):
        until(lambda: a.cloud.calls("PutObject"), "an upload is under way")
        os.kill(run.pid, number)
        a.cloud.faults.clear()
        with daemons([b]) as (other,):
            await_all([b], names)
            stop_daemon(other)
        if number == signal.SIGSTOP:
            os.kill(run.pid, signal.SIGCONT)
            assert run.wait(60) == 75
            assert "another host has ended the session of a" in run.communicate()[1]
    assert a.run("once").returncode == 0
    check_cloud([a, b], names)


@pytest.mark.parametrize("hours", [-1, 1])
def test_hosts_whose_clocks_differ_by_an_hour_work_together(
    hosts: list[Host], small_set: RealSet, hours: int
) -> None:
    a, b = hosts[:2]
    names = drop_sets((a, b), small_set, 6)
    wrong = Clocks(now=lambda: time.time() + 3600 * hours)
    with running(a, wrong), running(b, Clocks()):
        await_all((a, b), names)
    check_cloud([a, b], names)


@contextmanager
def running(host: Host, clocks: Clocks) -> Iterator[Service]:
    settings = load(host.config, environ={})
    with closing(open_ledger(settings)) as book:
        service = Service(settings, listener=Recorder([]), ledger=book, clocks=clocks)
        with daemon_thread(service):
            yield service
