"""Outages of clouds that several hosts with one database share."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.support.fleet import Fleet
from tests.support.postgres import DatabaseServer
from uecwatchd.errors import Deferred
from uecwatchd.ledger.outages import OVERDUE_SECONDS, Outage
from uecwatchd.ledger.sql_ledger import SqlLedger

WORDS = ("cloud near", "no answer", "It is asked again by itself.")
Hosts = tuple[SqlLedger, ...]


@pytest.fixture
def fleet(database_server: DatabaseServer, tmp_path: Path) -> Iterator[Fleet]:
    with database_server.database() as name:
        yield Fleet(database_server, name, tmp_path)


@pytest.fixture
def hosts(fleet: Fleet) -> Iterator[Hosts]:
    """The ledgers of three hosts that work and probe."""
    with ExitStack() as ends:
        found = tuple(ends.enter_context(closing(fleet.open(host))) for host in "abc")
        for book in found:
            join(book)
        yield found


def join(book: SqlLedger, *, probes: bool = True) -> None:
    book.sessions.begin()
    book.sessions.slots.announce(["near", "far"], {}, probes=probes)


def report(book: SqlLedger, probe_in: float = 5.0) -> bool:
    return book.sessions.outages.report("near", WORDS, probe_in=probe_in)


def read(book: SqlLedger) -> Outage | None:
    book.sessions.beat()
    return book.sessions.outages.current.get("near")


def prober(book: SqlLedger) -> str:
    return book.sessions.outages.probers().get("near", "")


def test_an_outage_is_read_by_all_and_another_host_probes_first(hosts: Hosts) -> None:
    a, b, c = hosts
    assert not report(a)
    for book in hosts:
        found = read(book)
        assert (found.what, found.why, found.hint) == WORDS
        assert (found.found_by, found.prober, found.is_ours) == ("a", "b", book is b)
        assert 0 < found.probe_in <= 5
    assert not report(c), "it is known"
    assert read(c).found_by == "a"
    b.sessions.outages.end("near")
    assert [read(book) for book in hosts] == [None] * 3
    assert prober(a) == ""


def test_a_host_alone_probes_itself(fleet: Fleet) -> None:
    with closing(fleet.open("a")) as book:
        join(book)
        assert report(book)
        assert read(book).is_ours


def test_a_host_keeps_probing_for_a_minute_and_then_the_next_one_does(fleet: Fleet, hosts: Hosts) -> None:
    a, b, c = hosts
    report(a)
    assert b.sessions.outages.postpone("near", probe_in=7.0)
    assert 5 < read(a).probe_in <= 7
    for former, following in ((b, c), (c, a), (a, b)):
        fleet.execute("UPDATE outages SET taken_at = taken_at - interval '61 seconds'")
        assert not former.sessions.outages.postpone("near", probe_in=7.0)
        assert read(following).is_ours
        assert following.sessions.outages.postpone("near", probe_in=7.0)
    assert not a.sessions.outages.postpone("near", probe_in=99.0), "it is not its turn"
    assert read(a).probe_in <= 7


def test_the_probe_of_a_dead_host_is_taken_over_by_one(fleet: Fleet, hosts: Hosts) -> None:
    a, _, c = hosts
    report(a, 600.0)
    assert not c.sessions.outages.take_over("near")
    fleet.bury("b")
    assert read(c).is_abandoned
    assert c.sessions.outages.take_over("near")
    assert not a.sessions.outages.take_over("near")
    assert (read(c).prober, read(c).probe_in <= 0) == ("c", True)


def test_a_late_probe_is_taken_over(fleet: Fleet, hosts: Hosts) -> None:
    a, _, c = hosts
    report(a, -OVERDUE_SECONDS + 30)
    assert not read(c).is_abandoned
    fleet.execute("UPDATE outages SET probe_at = probe_at - interval '40 seconds'")
    assert read(c).is_abandoned
    assert c.sessions.outages.take_over("near")
    assert read(a).prober == "c"


def test_only_hosts_that_probe_are_chosen(fleet: Fleet, hosts: Hosts) -> None:
    a, b, c = hosts
    b.sessions.end()
    join(b, probes=False)  # as a single run does
    c.sessions.slots.announce(["far"], {}, probes=True)
    assert report(a), "the others have no probes, or not this cloud"


def test_an_outage_that_all_hosts_have_left_is_forgotten(hosts: Hosts) -> None:
    a, _, c = hosts
    report(a)
    for book in hosts:
        book.sessions.end()
    join(c)
    assert read(c) is None
    report(c)
    join(a)
    assert read(a).found_by == "c", "one host still has it"


def test_a_database_that_is_away_takes_no_report(fleet: Fleet, hosts: Hosts) -> None:
    with fleet.server.away(), pytest.raises(Deferred):
        report(hosts[0])
    assert read(hosts[0]) is None
