"""The limits of clouds as several hosts with one database share them: real ledgers, and beats by hand."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.fleet import Fleet
from tests.support.postgres import DatabaseServer
from tests.support.waiting import PATIENCE_SECONDS, no_stop, until
from uecwatchd.bundle.bundler import Part, PartData
from uecwatchd.bundle.upload_slots import UploadSlots, store_parts
from uecwatchd.delivery.limits import CloudLimits
from uecwatchd.ledger.slots import SlotKey
from uecwatchd.ledger.sql_ledger import SqlLedger

KEY = SlotKey("near", "uploads")
MOST = 4


@dataclass
class Member:
    """A host that uploads. Each part ends when the test lets it."""

    book: SqlLedger
    pool: ThreadPoolExecutor
    limits: CloudLimits
    waits: list[str] = field(default_factory=list)
    sending: int = 0
    may_end: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    lock: threading.Lock = field(default_factory=threading.Lock)  # guards sending

    def beat(self) -> None:
        self.book.sessions.beat()
        self.limits.beat()

    def upload(self, count: int) -> "Future[None]":
        return self.pool.submit(self._upload, count)

    def await_sending(self, number: int) -> None:
        until(lambda: self.sending == number, f"{number} parts", detail=lambda: str(self.sending))

    def _upload(self, count: int) -> None:
        parts = [PartData(Part(number, f"p.part.{number}", 1, ""), b"x") for number in range(count)]
        used = self.limits.used(KEY, most=8, check=no_stop, waits=self.waits.append)
        with self.limits.of_a_set(), used as permits:
            store_parts(parts, self._send, slots=UploadSlots(8), permits=permits)

    def _send(self, _: PartData) -> None:
        with self.lock:
            self.sending += 1
        try:
            assert self.may_end.acquire(timeout=PATIENCE_SECONDS)
        finally:
            with self.lock:
                self.sending -= 1


@pytest.fixture
def fleet(database_server: DatabaseServer, tmp_path: Path) -> Iterator[Fleet]:
    with database_server.database() as name:
        yield Fleet(database_server, name, tmp_path)


@pytest.fixture
def members(fleet: Fleet) -> Iterator[tuple[Member, ...]]:
    with ExitStack() as ends:
        found = []
        for name in "ab":
            book = ends.enter_context(closing(fleet.open(name)))
            book.sessions.begin()
            book.sessions.slots.announce(["near"], {KEY: MOST}, probes=False)
            pool = ends.enter_context(ThreadPoolExecutor(2))
            found.append(Member(book, pool, CloudLimits(book.sessions.slots)))
        for member in found:
            ends.callback(member.may_end.release, 1000)
        yield tuple(found)


@pytest.fixture
def taken(fleet: Fleet) -> Callable[[], dict[str, int]]:
    """Returns how many slots each host has."""
    query = "SELECT host, count(*) FROM slots JOIN sessions ON id = session GROUP BY host"
    return lambda: dict(fleet.execute(query))


def test_a_host_alone_has_half_at_first_and_all_after_a_beat(
    members: tuple[Member, ...], taken: Callable[[], dict[str, int]]
) -> None:
    a, _ = members
    done = a.upload(20)
    a.await_sending(2)
    a.beat()
    a.may_end.release()
    a.await_sending(3)
    a.beat()
    a.may_end.release()
    a.await_sending(MOST)
    a.may_end.release(100)
    done.result(PATIENCE_SECONDS)
    assert taken() == {}, "nothing is kept when the set is done"


def test_slots_that_are_not_used_go_back_with_a_beat(
    members: tuple[Member, ...], taken: Callable[[], dict[str, int]]
) -> None:
    a, _ = members
    done = a.upload(1)
    a.await_sending(1)
    assert taken() == {"a": 2}
    a.beat()
    assert taken() == {"a": 1}
    a.may_end.release()
    done.result(PATIENCE_SECONDS)


def test_a_host_that_waits_gets_its_share_when_parts_end_after_a_beat(
    members: tuple[Member, ...], taken: Callable[[], dict[str, int]]
) -> None:
    a, b = members
    first = a.upload(40)
    for number in (2, 3, MOST):
        a.await_sending(number)
        a.beat()
        a.may_end.release()
    a.await_sending(MOST)
    second = b.upload(20)
    until(lambda: b.waits)
    assert b.waits[0] == "waits for one of the 4 uploads to cloud near that other hosts have"
    a.may_end.release()
    a.await_sending(MOST)
    a.beat()
    a.may_end.release(2)
    until(lambda: a.sending == 2 and b.sending > 0)
    assert taken()["a"] == 2
    assert a.sending + b.sending <= MOST
    for member in members:
        member.may_end.release(100)
    first.result(PATIENCE_SECONDS)
    second.result(PATIENCE_SECONDS)
    assert taken() == {}


def test_what_the_database_did_not_take_back_goes_back_with_a_beat(
    fleet: Fleet, members: tuple[Member, ...], taken: Callable[[], dict[str, int]]
) -> None:
    a, _ = members
    done = a.upload(1)
    a.await_sending(1)
    with fleet.server.away():
        a.may_end.release()
        done.result(PATIENCE_SECONDS)
    assert taken() == {"a": 2}
    a.beat()
    assert taken() == {}


def test_a_host_that_waits_no_more_is_not_waited_for(fleet: Fleet, members: tuple[Member, ...]) -> None:
    a, b = members
    fleet.execute("UPDATE cloud_uses SET most = 1 WHERE use = 'uploads'")
    for member in members:
        member.beat()
    first = a.upload(1)
    a.await_sending(1)

    def give_up() -> None:
        if b.waits:
            raise KeyError

    with pytest.raises(KeyError), b.limits.one(KEY, check=give_up, waits=b.waits.append):
        pass
    waiting = "SELECT count(*) FROM cloud_uses WHERE waits_since IS NOT NULL"
    assert fleet.execute(waiting) == [(1,)]
    b.beat()
    assert fleet.execute(waiting) == [(0,)]
    a.may_end.release()
    first.result(PATIENCE_SECONDS)
