"""Several hosts that share the limits of one cloud, which they reach through a proxy that counts."""

import json
import random
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.counting_proxy import PUT, REGISTER, CountingProxy, counting_proxy
from tests.support.daemon import daemon_process, wait_for_line
from tests.support.fleet import Fleet
from tests.support.host import Host
from tests.support.postgres import DatabaseServer
from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.demo.material import RealSet
from uecwatchd.sandbox.server import Sandbox

pytestmark = pytest.mark.exhaustive

MakeHost = Callable[..., Host]
PART = 10 << 20


@pytest.fixture
def fleet(database_server: DatabaseServer, tmp_path: Path) -> Iterator[Fleet]:
    with database_server.database() as name:
        yield Fleet(database_server, name, tmp_path)


@pytest.fixture
def proxy(embedded_cloud: Sandbox) -> Iterator[CountingProxy]:
    with counting_proxy(embedded_cloud) as proxy:
        yield proxy


@pytest.fixture
def member(fleet: Fleet, proxy: CountingProxy, make_host: Callable[..., Host]) -> MakeHost:
    """Makes a host of the fleet, with more lines in the table of its cloud."""

    def make(name: str, limits: str = "") -> Host:
        host = make_host(name)
        proxy.configure(host)
        dsn = fleet.server.dsn(fleet.name)
        host.configure(f'{host.config.read_text()}{limits}\n[fleet]\nhost = "{name}"\ndsn = "{dsn}"\n')
        return host

    return make


def drop_disk(host: Host, name: str, parts: int) -> None:
    """Drop a set of one disk that nothing compresses."""
    (host.spool / f"{name}.toml").write_text('kernel = "none"\nconvert = "keep"\n')
    noise = random.Random(name).randbytes(parts * PART - PART // 2)  # noqa: S311 (only not to be alike)
    (host.spool / f"{name}.img").write_bytes(noise)


def detail(host: Host, name: str) -> str:
    """Return what `status` says of a set."""
    return next(
        (one["detail"] for one in json.loads(host.ask("status", "--json")[0]) if one["name"] == name), ""
    )


def waits_for_slot(host: Host, name: str) -> bool:
    return "waits for" in detail(host, name)


def has_image(host: Host, name: str) -> bool:
    return (host.spool / f"{name}.emi").exists()


def test_hosts_together_send_as_many_parts_at_once_as_the_limit_says(
    member: MakeHost, proxy: CountingProxy
) -> None:
    hosts = {name: member(name, "uploads = 2\n") for name in "abc"}
    proxy.hold(PUT)
    for name, host in hosts.items():
        drop_disk(host, f"disk-{name}", 4)
    with ExitStack() as ends:
        for host in hosts.values():
            ends.enter_context(daemon_process(host))
        proxy.await_under_way(PUT, 2)
        until(lambda: any(waits_for_slot(host, f"disk-{name}") for name, host in hosts.items()), pause=1)
        (waiting,) = [
            found for name, host in hosts.items() if "waits" in (found := detail(host, f"disk-{name}"))
        ]
        assert "waits for one of the 2 uploads to cloud default that other hosts have" in waiting
        proxy.let_all(PUT)
        until(lambda: all(has_image(host, f"disk-{name}") for name, host in hosts.items()))
    assert proxy.most[PUT] == 2


def test_hosts_together_ask_for_as_many_registrations_at_once_as_the_limit_says(
    member: MakeHost, proxy: CountingProxy, small_set: RealSet
) -> None:
    hosts = {name: member(name, "registrations = 1\n") for name in "ab"}
    proxy.hold(REGISTER)
    for name, host in hosts.items():
        drop_disk(host, f"disk-{name}", 1)
        drop_disk(host, f"more-{name}", 1)
    with ExitStack() as ends:
        for host in hosts.values():
            ends.enter_context(daemon_process(host))
        proxy.await_under_way(REGISTER, 1)
        until(
            lambda: any(
                "waits for the one registration at cloud default that another host has"
                in detail(host, f"disk-{name}")
                for name, host in hosts.items()
            ),
            pause=1,
        )
        proxy.let_all(REGISTER)
        until(
            lambda: all(
                has_image(host, f"{kind}-{name}") for name, host in hosts.items() for kind in ("disk", "more")
            )
        )
    assert proxy.most[REGISTER] == 1
    assert proxy.all[REGISTER] == 4


def test_what_a_killed_host_had_is_free_when_it_is_taken_for_dead(
    fleet: Fleet, member: MakeHost, proxy: CountingProxy
) -> None:
    a, b = member("a", "uploads = 1\n"), member("b", "uploads = 1\n")
    proxy.hold(PUT)
    drop_disk(a, "disk-a", 2)
    drop_disk(b, "disk-b", 1)
    with daemon_process(a) as first:
        proxy.await_under_way(PUT, 1)
        with daemon_process(b):
            until(lambda: waits_for_slot(b, "disk-b"), pause=1)
            first.send_signal(signal.SIGKILL)
            first.communicate(timeout=PATIENCE_SECONDS)
            assert len(proxy.paths) == 1
            fleet.bury("a")
            until(lambda: any("disk-b" in path for path in proxy.paths))
            proxy.let_all(PUT)
            until(lambda: has_image(b, "disk-b"))
            with daemon_process(a):
                until(lambda: has_image(a, "disk-a"))


def sender(proxy: CountingProxy) -> str:
    """Return the set whose part was sent last."""
    return next(name for name in ("disk-a", "disk-b") if name in proxy.paths[-1])


def await_beats(fleet: Fleet) -> None:
    """Wait until each host has renewed its lease."""

    def leases() -> list[tuple]:
        return fleet.execute("SELECT lease_until FROM sessions ORDER BY host")

    before = leases()
    until(lambda: all(new > old for new, old in zip(leases(), before, strict=True)), "two beats", pause=0.5)


def test_a_host_with_a_long_upload_lets_others_have_their_turn(
    fleet: Fleet, member: MakeHost, proxy: CountingProxy
) -> None:
    a, b = member("a", "uploads = 1\n"), member("b", "uploads = 1\n")
    proxy.hold(PUT)
    drop_disk(a, "disk-a", 8)
    drop_disk(b, "disk-b", 8)
    waiting = "SELECT host FROM cloud_uses JOIN sessions ON id = session WHERE waits_since IS NOT NULL"
    with daemon_process(a), daemon_process(b):
        proxy.await_under_way(PUT, 1)
        until(lambda: fleet.execute(waiting), "one of them to wait")
        first = sender(proxy)
        for is_first in (True, False):
            while (sender(proxy) == first) is is_first:
                await_beats(fleet)
                sent = len(proxy.paths)
                proxy.let(PUT)
                until(lambda sent=sent: len(proxy.paths) > sent)
        assert not has_image(a, "disk-a")
        assert not has_image(b, "disk-b")
        proxy.let_all(PUT)
        until(lambda: has_image(a, "disk-a") and has_image(b, "disk-b"))
    assert proxy.most[PUT] == 1


def test_a_service_whose_set_waits_for_a_slot_stops_at_once(member: MakeHost, proxy: CountingProxy) -> None:
    a, b = member("a", "uploads = 1\n"), member("b", "uploads = 1\n")
    proxy.hold(PUT)
    drop_disk(a, "disk-a", 1)
    drop_disk(b, "disk-b", 1)
    with daemon_process(a):
        proxy.await_under_way(PUT, 1)
        with daemon_process(b) as process:
            until(lambda: waits_for_slot(b, "disk-b"), pause=1)
            process.terminate()
            process.communicate(timeout=PATIENCE_SECONDS / 4)
            assert process.returncode == 0
        proxy.let_all(PUT)
        until(lambda: has_image(a, "disk-a"))
    log = (b.spool / "disk-b.uec.log").read_text()
    assert log.count("waits for the one upload to cloud default that another host has") == 1


def test_a_host_with_a_larger_number_says_once_that_it_does_not_count(member: MakeHost) -> None:
    with daemon_process(member("a", "uploads = 2\nregistrations = 1\n")) as first:
        wait_for_line(first, "Watching")
        run = member("b", "uploads = 3\n").run("once")
    assert run.returncode == 0
    assert "Cloud default: host a has uploads = 2; 3 here is more, and does not count" in run.stderr
    assert (
        "Cloud default: host a has registrations = 1; here there is none, and it counts here too"
        in run.stderr
    )


@pytest.mark.parametrize(
    ("limits", "statements"), [("", 0), ("uploads = 4\n", 2), ("registrations = 2\n", 2)]
)
def test_a_set_costs_two_statements_for_a_limit(
    fleet: Fleet, member: MakeHost, small_set: RealSet, limits: str, statements: int
) -> None:
    host = member("a", limits)
    assert host.run("once").returncode == 0
    fleet.execute(f"ALTER DATABASE {fleet.name} SET log_statement = 'all'")
    log = fleet.server.folder / "log"
    before = log.stat().st_size
    host.drop_set(small_set)
    assert host.run("once").returncode == 0
    with log.open() as file:
        file.seek(before)
        said = file.read()
    assert len(re.findall(r"UPDATE (?:slots|cloud_uses) SET", said)) == statements
