"""The other hosts as the page of one reads them, with two ledgers in one database."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.clock import Clock
from tests.support.fleet import Fleet
from tests.support.overviews import NOW, a_set, an_attempt
from tests.support.postgres import DatabaseServer
from uecwatchd.ledger.records import ProgressRecord
from uecwatchd.ledger.sql_ledger import SqlLedger
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.outputs.fleet_overview import PAUSE_SECONDS, RECENT_SECONDS, FleetReader
from uecwatchd.service.policy import GONE, is_shown


@pytest.fixture
def fleet(database_server: DatabaseServer, tmp_path: Path) -> Iterator[Fleet]:
    with database_server.database() as name:
        yield Fleet(database_server, name, tmp_path)


@pytest.fixture
def books(fleet: Fleet) -> Iterator[tuple[SqlLedger, SqlLedger]]:
    with ExitStack() as ends:
        a, b = (ends.enter_context(closing(fleet.open(host))) for host in ("a", "b"))
        yield a, b


def reader(book: SqlLedger, clock: Clock) -> FleetReader:
    return FleetReader(book.sessions, book.others, is_shown=is_shown, monotonic=clock)


def test_the_page_of_one_host_has_what_matters_of_the_other(
    fleet: Fleet, books: tuple[SqlLedger, SqlLedger]
) -> None:
    a, b = books
    b.sessions.begin()
    working = b.put_set(a_set("karmic", "working"))
    held = b.put_set(a_set("hardy", "rejected"))
    b.put_hold(held.id, since=NOW)
    b.put_set(replace(a_set("removed", "rejected"), reason=GONE))
    b.put_set(a_set("old", minutes=2 * RECENT_SECONDS / 60))
    b.put_progress(ProgressRecord(working.id, "upload", "karmic.img", 20, 100, 1, NOW, NOW + 10))
    b.history.add_attempt(an_attempt("hardy", "rejected"))
    b.history.flush()
    a.put_set(a_set("own"))
    found = reader(a, Clock(0.0)).read(now=NOW)
    assert [one.host for one in found.hosts] == ["a", "b"]
    there = {one.name: found.situation.state_of(one) for one in found.situation.records}
    assert there == {"karmic": "working", "hardy": "held"}
    assert found.counts_of("b") == {"working": 1, "rejected": 2, "done": 1}
    assert found.progress[working.id.of_host("b")].speed == 2.0
    assert [one.set_id.host for one in found.recent] == ["b"]
    fleet.expire("b")
    dead = reader(a, Clock(0.0)).read(now=NOW)
    assert {one.name: dead.situation.state_of(one) for one in dead.situation.records}["karmic"] == "queued"
    assert dead.counts_of("b") == {"queued": 1, "rejected": 2, "done": 1}


def test_the_sets_of_others_are_not_read_each_time_and_the_hosts_are(
    fleet: Fleet, books: tuple[SqlLedger, SqlLedger]
) -> None:
    a, b = books
    clock = Clock(0.0)
    reading = reader(a, clock)
    assert reading.read(now=NOW).counts == {}
    b.put_set(a_set("karmic"))
    b.sessions.begin()
    clock.now += PAUSE_SECONDS - 1.0
    found = reading.read(now=NOW)
    assert (found.counts, found.hosts[1].state) == ({}, "running")
    clock.now += 1.0
    assert reading.read(now=NOW).counts_of("b") == {"done": 1}


def test_a_host_alone_reads_nothing_of_others(tmp_path: Path) -> None:
    with closing(open_ledger(tmp_path)) as book:
        book.put_set(a_set("karmic"))
        found = reader(book, Clock(0.0))
        assert found.read(now=NOW) == found.hosts()
        assert found.hosts().host == ""
