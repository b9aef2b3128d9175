"""Services of several hosts whose cloud goes away: one of them probes it for all."""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.counting_proxy import OTHER, CountingProxy, counting_proxy
from tests.support.daemon import wait_for_line
from tests.support.fleet import Fleet
from tests.support.host import Host
from tests.support.postgres import DatabaseServer
from tests.support.program_runs import Run
from tests.support.waiting import PATIENCE_SECONDS, until

pytestmark = pytest.mark.exhaustive


@dataclass
class Member:
    """A running service, and its way to the cloud."""

    name: str
    host: Host
    proxy: CountingProxy
    process: Run

    @property
    def asked(self) -> int:
        return self.proxy.all[OTHER]

    def drop(self) -> None:
        (self.host.spool / "disk.toml").write_text('kernel = "none"\nconvert = "keep"\n')
        (self.host.spool / "disk.img").write_bytes(self.name.encode() * 4096)

    def detail(self) -> str:
        rows = json.loads(self.host.ask("status", "--json")[0])
        return next((str(row["detail"]) for row in rows if row["name"] == "disk"), "")

    def is_done(self) -> bool:
        return (self.host.spool / "disk.emi").exists()

    def end(self) -> str:
        self.process.terminate()
        return self.process.communicate(timeout=PATIENCE_SECONDS)[1]

    def close(self) -> None:
        """End the service, unless that was done."""
        if self.process.stderr and not self.process.stderr.closed:
            self.end()


@pytest.fixture
def fleet(database_server: DatabaseServer, tmp_path: Path) -> Iterator[Fleet]:
    with database_server.database() as name:
        yield Fleet(database_server, name, tmp_path)


@pytest.fixture
def members(fleet: Fleet, make_host: Callable[..., Host]) -> Iterator[dict[str, Member]]:
    with ExitStack() as ends:
        found = {}
        for name in "abc":
            host = make_host(name)
            proxy = ends.enter_context(counting_proxy(host.cloud))
            environ = proxy.configure_as_proxy(host)
            dsn = fleet.server.dsn(fleet.name)
            host.configure(f'{host.config.read_text()}\n[fleet]\nhost = "{name}"\ndsn = "{dsn}"\n')
            process = host.start("run", environ=environ)
            found[name] = Member(name, host, proxy, process)
            ends.callback(found[name].close)
            wait_for_line(process, "Watching")
        yield found


def prober(fleet: Fleet) -> str:
    rows = fleet.execute("SELECT host FROM outages JOIN sessions ON id = session AND ended IS NULL")
    return str(rows[0][0]) if rows else ""


def await_probes(member: Member, number: int = 2) -> None:
    before = member.asked
    until(lambda: member.asked >= before + number, f"probes of {member.name}")


def test_one_host_probes_for_all_also_after_it_was_killed(fleet: Fleet, members: dict[str, Member]) -> None:
    a, b, c = members.values()
    for one in members.values():
        one.proxy.is_cut = True
    a.drop()
    until(lambda: prober(fleet) == "b", "b to probe")
    told = wait_for_line(c.process, "Cloud default is away")
    assert "(found by host a)" in told
    c.drop()
    until(lambda: "found by host a" in c.detail(), "c to follow", detail=c.detail)
    assert "Cloud default is asked" in c.detail()
    assert c.detail().endswith("by host b.")
    before = a.asked
    await_probes(b, 4)
    assert (a.asked, c.asked) == (before, 0), "only one host asks"
    b.process.send_signal(signal.SIGKILL)
    b.process.communicate(timeout=PATIENCE_SECONDS)
    fleet.bury("b")
    until(lambda: prober(fleet) in ("a", "c"), "another host to probe")
    taken, other = (a, c) if prober(fleet) == "a" else (c, a)
    before = other.asked
    await_probes(taken)
    assert other.asked == before
    for one in members.values():
        one.proxy.is_cut = False
    until(lambda: a.is_done() and c.is_done(), "the images")
    assert fleet.execute("SELECT count(*) FROM outages") == [(0,)]
    for talk, told_before in ((a.end(), 0), (c.end(), 1)):
        assert talk.count("Cloud default is away") + told_before == 1
        assert talk.count("Cloud default can be used again") == 1


def test_a_host_that_is_cut_off_alone_is_told_so_and_the_others_go_on(
    fleet: Fleet, members: dict[str, Member]
) -> None:
    a, b, c = members.values()
    a.proxy.is_cut = True
    a.drop()
    wait_for_line(a.process, "Cloud default has just answered another host, and does not answer this one")
    b.drop()
    c.drop()
    until(lambda: b.is_done() and c.is_done(), "the images")
    assert not a.is_done()
    a.proxy.is_cut = False
    until(a.is_done, "the last image")
