"""Slots of several hosts with one database: what they do at one cloud at once, together."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.support.fleet import Fleet
from tests.support.postgres import DatabaseServer
from uecwatchd.errors import Deferred, Overtaken
from uecwatchd.ledger.slots import SlotKey, SlotLimit
from uecwatchd.ledger.sql_ledger import SqlLedger

KEY, OTHER = SlotKey("near", "uploads"), SlotKey("near", "registrations")
Hosts = tuple[SqlLedger, ...]


@pytest.fixture
def fleet(database_server: DatabaseServer, tmp_path: Path) -> Iterator[Fleet]:
    with database_server.database() as name:
        yield Fleet(database_server, name, tmp_path)


@pytest.fixture
def hosts(fleet: Fleet) -> Iterator[Hosts]:
    """The ledgers of three hosts that work, each with four uploads at once in its configuration."""
    with ExitStack() as ends:
        found = tuple(ends.enter_context(closing(fleet.open(host))) for host in "abc")
        for book in found:
            book.sessions.begin()
            announce(book, 4)
        yield found


def announce(book: SqlLedger, uploads: int | None) -> None:
    own = {KEY: uploads} if uploads else {}
    book.sessions.slots.announce(["near", "far"], own, probes=True)


def take(book: SqlLedger, most: int = 64) -> tuple[int, ...]:
    return book.sessions.slots.take(KEY, most, waits=True)


def give_back(book: SqlLedger, *numbers: int) -> None:
    book.sessions.slots.give_back({KEY: numbers})


def limit(book: SqlLedger) -> SlotLimit | None:
    book.sessions.beat()
    return book.sessions.slots.limits.get(KEY)


def test_hosts_together_have_no_more_slots_than_the_limit(hosts: Hosts) -> None:
    taken = [take(book) for book in hosts]
    assert taken == [(1, 2), (3,), (4,)], "each takes half of what is free"
    assert take(hosts[0]) == ()
    give_back(hosts[0], 1, 2)
    assert take(hosts[1], 1) == (1,)


def test_a_slot_of_another_host_cannot_be_given_back(hosts: Hosts) -> None:
    a, b, _ = hosts
    assert take(a) == (1, 2)
    give_back(b, 1, 2)
    assert take(b) == (3,)


def test_limits_of_one_cloud_do_not_count_for_another_or_for_another_use(hosts: Hosts) -> None:
    a, b, _ = hosts
    a.sessions.slots.announce(["near", "far"], {KEY: 4, OTHER: 1}, probes=True)
    assert a.sessions.slots.take(OTHER, 5, waits=True) == (1,)
    assert take(b) == (1, 2)
    a.sessions.slots.give_back({OTHER: (1,), KEY: (1, 2)})
    assert a.sessions.slots.take(OTHER, 5, waits=True) == (1,)
    assert take(a) == (3,)


@pytest.mark.parametrize("smaller", [1, 3])
def test_the_smallest_of_different_numbers_counts_everywhere(hosts: Hosts, smaller: int) -> None:
    a, b, c = hosts
    announce(b, smaller)
    announce(c, None)
    for book in hosts:
        found = limit(book)
        assert (found.most, found.host) == (smaller, "b")
    taken = [number for book in (a, c, a, c) for number in take(book)]
    assert sorted(taken) == list(range(1, smaller + 1))
    b.sessions.end()
    found = limit(a)
    assert (found.most, found.host) == (4, "a")


def test_without_a_number_on_any_host_there_is_no_limit(hosts: Hosts) -> None:
    for book in hosts:
        announce(book, None)
    assert [limit(book) for book in hosts] == [None] * 3


def test_slots_of_a_dead_host_are_free_when_it_is_buried(fleet: Fleet, hosts: Hosts) -> None:
    a, b, _ = hosts
    taken = {*take(a), *take(a), *take(a)}
    assert taken == {1, 2, 3, 4}
    assert take(b) == ()
    fleet.expire("a")
    assert take(b) == ()
    fleet.bury("a")
    assert take(b) == (1, 2)
    with pytest.raises(Overtaken):
        take(a)
    a.sessions.begin()
    announce(a, 4)
    assert take(a) == (3,)


def test_slots_are_free_when_a_service_ends_or_begins_again(hosts: Hosts) -> None:
    a, b, _ = hosts
    take(a)
    a.sessions.end()
    assert take(b) == (1, 2)
    b.sessions.begin()
    announce(b, 4)
    assert take(b) == (1, 2)


def test_hosts_that_wait_are_served_in_their_order(hosts: Hosts) -> None:
    a, b, c = hosts
    announce(a, 1)
    assert take(a) == (1,)
    assert take(b) == take(c) == take(b) == ()
    give_back(a, 1)
    assert take(a) == (), "it was there last"
    assert take(c) == ()
    assert take(b) == (1,)
    b.sessions.slots.wait_no_more(KEY)
    give_back(b, 1)
    assert take(a) == ()
    assert take(c) == (1,)


def test_a_host_that_waits_no_more_lets_the_next_one_in(hosts: Hosts) -> None:
    a, b, c = hosts
    announce(a, 1)
    take(a)
    assert take(b) == take(c) == ()
    b.sessions.slots.wait_no_more(KEY)
    give_back(a, 1)
    assert take(c) == (1,)


def test_a_beat_shows_how_a_limit_is_used(hosts: Hosts) -> None:
    a, b, c = hosts
    take(a)
    take(b)
    assert limit(a) == SlotLimit(4, "a", waiting=0, sharing=2, taken=3)
    take(c)
    take(b, 1)
    b.sessions.slots.give_back({KEY: (3,)})
    c.sessions.slots.take(OTHER, 1, waits=True)
    assert limit(c) == SlotLimit(4, "a", waiting=1, sharing=3, taken=3), "b waits without a slot"
    assert limit(b).waiting == 0, "it does not count itself"


def test_a_database_that_is_away_gives_no_slot(fleet: Fleet, hosts: Hosts) -> None:
    with fleet.server.away(), pytest.raises(Deferred):
        take(hosts[0])
    assert take(hosts[0]) == (1, 2)


def test_threads_of_several_hosts_never_have_one_slot_at_once(hosts: Hosts) -> None:
    had, lock, over = list[int](), threading.Lock(), threading.Event()

    def work(book: SqlLedger) -> int:
        chance, got = random.Random(id(book)), 0  # noqa: S311 (only for a mix)
        while got < 40 and not over.is_set():
            taken = book.sessions.slots.take(KEY, chance.randrange(1, 5), waits=False)
            with lock:
                assert not set(had) & set(taken)
                had.extend(taken)
                assert len(had) <= 4
            got += bool(taken)
            with lock:
                for number in taken:
                    had.remove(number)
            if taken:
                give_back(book, *taken)
        return got

    with ThreadPoolExecutor(6) as pool:
        try:
            done = [pool.submit(work, book) for book in (*hosts, *hosts)]
            assert [one.result() for one in done] == [40] * 6
        finally:
            over.set()
