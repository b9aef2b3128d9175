"""Outages that hosts with one ledger share: real ledgers, a real cloud, and beats by hand."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.clock import Clock
from tests.support.counting_proxy import OTHER, CountingProxy, counting_proxy
from tests.support.fleet import Fleet
from tests.support.listener import Recorder
from tests.support.postgres import DatabaseServer
from uecwatchd.clouds.access import CloudAccess
from uecwatchd.clouds.availability import ALONE_SECONDS, FIRST_OUTAGE_DELAY_SECONDS, Suspension
from uecwatchd.config.records import CloudSettings
from uecwatchd.errors import CloudAway, Halted
from uecwatchd.ledger.outages import Outage
from uecwatchd.ledger.sql_ledger import SqlLedger
from uecwatchd.sandbox.server import Sandbox
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.shared_outages import SharedOutages, next_step

AWAY = CloudAway("cloud default", "no answer", "It is asked again by itself.")
HALT = Halted("cloud default", "the clock is wrong", "Set it.")
OUTAGE = Outage("cloud default", "no answer", "Later.", "a", "b", is_ours=False, probe_in=5.0)
HERE = Suspension(AWAY, 0.0, 5.0, 5.0)


@pytest.mark.parametrize(
    ("here", "outage", "succeeded", "step"),
    [
        (None, None, False, "nothing"),
        (None, OUTAGE, False, "follow"),
        (HERE, None, False, "report"),
        (HERE, OUTAGE, False, "follow"),
        (replace(HERE, is_shared=True), None, False, "resume"),
        (replace(HERE, is_shared=True), OUTAGE, True, "end"),
        (replace(HERE, is_alone=True), None, False, "nothing"),
        (replace(HERE, is_alone=True), OUTAGE, False, "follow"),
        (replace(HERE, error=HALT), OUTAGE, False, "nothing"),
        (replace(HERE, error=HALT, is_shared=True), None, False, "nothing"),
    ],
)
def test_what_a_host_does_follows_from_its_suspension_and_the_outage(
    here: Suspension | None,
    outage: Outage | None,
    succeeded: bool,  # noqa: FBT001 (of a table)
    step: str,
) -> None:
    assert next_step(here, outage, succeeded=succeeded) == step


@dataclass
class Member:
    """A host as far as it knows of clouds. Its network is cut where `proxy` is."""

    name: str
    book: SqlLedger
    proxy: CountingProxy
    clock: Clock
    listener: Recorder
    resumed: list[str]
    outages: SharedOutages
    clouds: CloudAccess

    def beat(self) -> None:
        self.book.sessions.beat()
        self.outages.beat()

    def is_suspended(self) -> bool:
        return "default" in self.clouds.availability.suspended()

    def meets(self) -> None:
        """Meet a request without an answer, as a set does."""
        self.clouds.is_away("default")

    def probe(self, seconds: float = FIRST_OUTAGE_DELAY_SECONDS * 1.1) -> tuple[str, ...]:
        """Probe what is due after some time."""
        self.clock.now += seconds
        return self.clouds.probe()

    def warnings(self) -> list[str]:
        return [event.sentence for event in self.listener.events if event.level == "warning"]


def make(name: str, book: SqlLedger, proxy: CountingProxy, server: Sandbox) -> Member:
    clock, listener, resumed = Clock(1000.0), Recorder(), list[str]()
    outages = SharedOutages(
        book.sessions, Conditions(listener), resumed=lambda cloud, _: resumed.append(cloud)
    )
    urls = (url.replace(server.url, proxy.url) for url in (server.ec2_url, server.s3_url))
    ec2_url, s3_url = urls
    settings = CloudSettings("default", "sandbox", eucarc=server.eucarc, ec2_url=ec2_url, s3_url=s3_url)
    clouds = CloudAccess(
        {"default": settings},
        uploads=1,
        bucket="images",
        on_suspend=lambda cloud, _: outages.suspended(cloud),
        on_probe=outages.probed,
        clock=clock,
    )
    outages.clouds, outages.probes = clouds, True
    book.sessions.begin()
    book.sessions.slots.announce(["default"], {}, probes=True)
    return Member(name, book, proxy, clock, listener, resumed, outages, clouds)


@pytest.fixture
def fleet(database_server: DatabaseServer, tmp_path: Path) -> Iterator[Fleet]:
    with database_server.database() as name:
        yield Fleet(database_server, name, tmp_path)


@pytest.fixture
def members(fleet: Fleet, embedded_cloud: Sandbox) -> Iterator[tuple[Member, ...]]:
    with ExitStack() as ends:
        books = [ends.enter_context(closing(fleet.open(host))) for host in "abc"]
        proxies = [ends.enter_context(counting_proxy(embedded_cloud)) for _ in books]
        yield tuple(
            make(name, book, proxy, embedded_cloud)
            for name, book, proxy in zip("abc", books, proxies, strict=True)
        )


def cut(*members: Member, is_cut: bool = True) -> None:
    for one in members:
        one.proxy.is_cut = is_cut


def asked(member: Member) -> int:
    return member.proxy.all[OTHER]


def test_one_host_finds_a_cloud_away_one_probes_it_and_all_resume(members: tuple[Member, ...]) -> None:
    a, b, c = members
    cut(*members)
    a.meets()
    assert a.is_suspended()
    assert not b.is_suspended()
    b.beat()
    c.beat()
    assert all(one.is_suspended() for one in members)
    assert "found by host a" in c.clouds.availability.suspended()["default"].why
    before = asked(a), asked(c)
    for _ in range(5):
        for one in members:
            assert one.probe() == ()
            one.beat()
    assert (asked(a), asked(c)) == before, "only one host has asked"
    assert asked(b) > 0
    cut(*members, is_cut=False)
    assert b.probe() == ("default",)
    assert not b.is_suspended()
    for one in (a, c):
        one.beat()
        assert not one.is_suspended()
        assert one.resumed == ["default"]
    assert (asked(a), asked(c)) == before


def test_the_probe_of_a_dead_host_is_made_by_another(fleet: Fleet, members: tuple[Member, ...]) -> None:
    a, b, c = members
    cut(*members)
    a.meets()
    b.beat()
    c.beat()
    fleet.bury("b")
    c.beat()
    before = asked(c)
    assert c.probe(0.0) == ()
    assert asked(c) > before
    a.beat()
    cut(*members, is_cut=False)
    assert a.probe() == ()
    assert c.probe() == ("default",)
    a.beat()
    assert not a.is_suspended()


def test_a_host_whose_network_is_at_fault_stops_the_others_for_one_probe_and_is_alone_then(
    members: tuple[Member, ...],
) -> None:
    a, b, c = members
    cut(a)
    a.meets()
    for one in (b, c):
        one.beat()
        assert one.is_suspended()
    assert b.probe() == ("default",)
    c.beat()
    a.beat()
    assert not any(one.is_suspended() for one in members)
    a.meets()
    assert a.is_suspended()
    (told,) = a.warnings()
    assert told.startswith("Cloud default has just answered another host, and does not answer this one: ")
    for _ in range(3):
        for one in members:
            one.beat()
        assert (a.is_suspended(), b.is_suspended(), c.is_suspended()) == (True, False, False)
        assert a.probe(60.0) == ()
    assert a.warnings() == [told]
    cut(a, is_cut=False)
    assert a.probe(600.0) == ("default",)
    assert not a.is_suspended()


def test_a_host_that_was_alone_follows_an_outage_of_all(members: tuple[Member, ...]) -> None:
    a, b, _ = members
    cut(a)
    a.meets()
    b.beat()
    b.probe()
    a.beat()
    a.meets()
    cut(*members)
    b.meets()
    a.beat()
    before = asked(a)
    assert a.probe(600.0) == ()
    assert asked(a) == before, "it is the turn of another host"
    cut(*members, is_cut=False)
    prober = next(one for one in members if one.book.sessions.outages.probers()["default"] == one.name)
    prober.beat()
    assert prober.probe(60.0) == ("default",)
    a.beat()
    assert not a.is_suspended()


def test_a_second_outage_is_one_of_all_again(members: tuple[Member, ...]) -> None:
    a, b, _ = members
    cut(*members)
    a.meets()
    b.beat()
    cut(*members, is_cut=False)
    b.probe()
    a.beat()
    a.clock.now += ALONE_SECONDS
    cut(*members)
    a.meets()
    b.beat()
    assert b.is_suspended()
    assert a.warnings() == []


def test_a_host_that_only_followed_an_outage_reports_the_next_one(members: tuple[Member, ...]) -> None:
    a, b, c = members
    cut(*members)
    a.meets()
    b.beat()
    c.beat()
    cut(*members, is_cut=False)
    b.probe()
    a.beat()
    c.beat()
    cut(*members)
    a.meets()
    assert len(a.warnings()) == 1
    c.meets()
    assert c.warnings() == []
    a.beat()
    b.beat()
    assert b.is_suspended()
    cut(*members, is_cut=False)
    prober = next(one for one in members if one.book.sessions.outages.probers()["default"] == one.name)
    prober.beat()
    assert prober.probe(60.0) == ("default",)
    for one in members:
        one.beat()
        assert not one.is_suspended()


def test_a_set_that_is_registered_meanwhile_ends_the_outage(members: tuple[Member, ...]) -> None:
    a, b, c = members
    cut(a)
    a.meets()
    c.beat()
    b.beat()
    c.clock.now += 1
    c.clouds.availability.note_success("default")
    c.beat()
    assert not c.is_suspended()
    b.beat()
    assert not b.is_suspended()


def test_a_halt_of_one_host_is_no_matter_of_the_others(members: tuple[Member, ...]) -> None:
    a, b, _ = members
    a.clouds.suspend("default", HALT)
    a.beat()
    b.beat()
    assert not b.is_suspended()
    b.clouds.suspend("default", AWAY)
    a.beat()
    assert a.clouds.availability.suspended()["default"] is HALT


def test_what_the_database_did_not_take_follows_with_a_beat(
    fleet: Fleet, members: tuple[Member, ...]
) -> None:
    a, b, _ = members
    cut(*members)
    with fleet.server.away():
        a.meets()
    assert a.is_suspended()
    a.beat()
    b.beat()
    assert b.is_suspended()
    cut(*members, is_cut=False)
    with fleet.server.away():
        assert b.probe() == ("default",)
    a.beat()
    assert a.is_suspended()
    b.beat()
    assert not b.is_suspended()
    a.beat()
    assert not a.is_suspended()
