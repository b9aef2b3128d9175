"""The part of one host in the folders that several hosts share."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.ledger.test_sqlite import RECORD
from tests.support.clock import Clock
from tests.support.fleet import Fleet
from tests.support.postgres import DatabaseServer
from uecwatchd.config.records import FolderPolicy, SpoolSettings
from uecwatchd.errors import Halted, UecError
from uecwatchd.ledger.sharing import Offer
from uecwatchd.ledger.sql_ledger import SqlLedger
from uecwatchd.service.set_states import SetStates
from uecwatchd.service.shared_work import LOOK_SECONDS, UNABLE_SECONDS, SharedWork
from uecwatchd.types import SetId

SPOOL = Path(RECORD.folder)
OWN = SetId("/srv/own", "karmic")
OFFER = Offer(RECORD.id, RECORD.stamp, 1)


@dataclass(frozen=True)
class Worker:
    """A host without files: its ledger, and what it knows of the sets."""

    ledger: SqlLedger
    states: SetStates
    work: SharedWork
    clock: Clock

    def enter(self, error: UecError | None = None) -> UecError | bool:
        def acquire(_folder: Path) -> None:
            if error:
                raise error

        return self.work.enter([SPOOL, Path(OWN.folder)], acquire)[SPOOL]


@pytest.fixture
def fleet(database_server: DatabaseServer, tmp_path: Path) -> Iterator[Fleet]:
    with database_server.database() as name:
        yield Fleet(database_server, name, tmp_path)


@pytest.fixture
def hosts(fleet: Fleet) -> Iterator[tuple[Worker, Worker]]:
    """Two hosts that share a folder, and have another one each."""
    folders = (SPOOL, Path(OWN.folder))
    spool = SpoolSettings(folders=folders, policy={SPOOL: FolderPolicy(shared=True)})
    with ExitStack() as ends:
        found = []
        for host in "ab":
            book = ends.enter_context(closing(fleet.open(host, shares=[SPOOL])))
            book.sessions.begin()
            book.sharing.share_of(SPOOL)
            states, clock = SetStates(book), Clock(1000.0)
            work = SharedWork(book, states, monotonic=clock)
            work.configure(spool)
            found.append(Worker(book, states, work, clock))
        yield found[0], found[1]


def test_the_host_that_scans_decides_about_the_sets(hosts: tuple[Worker, Worker]) -> None:
    a, b = hosts
    a.ledger.put_set(RECORD)
    assert (a.enter(), b.enter()) == (True, False)
    assert (a.work.is_ours(RECORD.id), b.work.is_ours(RECORD.id)) == (True, False)
    assert a.states.records() == (RECORD,)
    assert b.states.records() == ()
    assert b.work.is_ours(OWN)
    assert b.work.is_known(OWN)


def test_records_are_known_as_of_the_scan_under_way(hosts: tuple[Worker, Worker]) -> None:
    a, b = hosts
    a.enter()
    assert a.work.is_known(RECORD.id)
    b.ledger.put_set(RECORD)
    a.work.enter([Path(OWN.folder)], lambda _folder: None)
    assert a.work.is_ours(RECORD.id)
    assert not a.work.is_known(RECORD.id), "another host has changed them since"
    a.enter()
    assert a.states.get(RECORD.id) == RECORD


def test_a_set_is_taken_by_one_host_and_is_elsewhere_for_the_other(hosts: tuple[Worker, Worker]) -> None:
    a, b = hosts
    a.enter()
    b.enter()
    a.work.offer([OFFER])
    assert b.work.take_some(2) == [OFFER]
    assert not a.work.take(RECORD.id)
    assert a.work.elsewhere == {RECORD.id}
    b.states.put(replace(RECORD, state="done"))
    b.work.release_ended([RECORD.id])
    a.enter()
    assert a.work.elsewhere == {RECORD.id}, "it is still worked on"
    b.work.release_ended([])
    assert b.states.records() == ()
    a.enter()
    assert a.work.elsewhere == frozenset()
    assert a.states.get(RECORD.id) == replace(RECORD, state="done")


def test_a_set_that_cannot_be_worked_on_here_is_left_alone_for_a_while(hosts: tuple[Worker, Worker]) -> None:
    a, b = hosts
    for _ in range(2):
        a.enter()
        b.enter()
        a.work.offer([OFFER])
        assert b.work.take_some(1) == [OFFER]
        b.work.give_back(RECORD.id)
        a.enter()
        a.work.offer([OFFER])
        assert b.work.take_some(1) == []
        b.clock.sleep(UNABLE_SECONDS)


def test_a_host_looks_for_work_now_and_then_and_at_once_when_some_has_ended(
    hosts: tuple[Worker, Worker],
) -> None:
    a, b = hosts
    assert a.work.look_in() == b.work.look_in() == float("inf")
    a.enter()
    b.enter()
    assert a.work.look_in() == float("inf"), "it scans itself"
    assert b.work.look_in() == 0
    assert b.work.take_some(1) == []
    assert b.work.look_in() == LOOK_SECONDS
    b.work.look_soon()
    assert b.work.look_in() == 0


def test_a_drained_host_takes_nothing_and_does_not_ask_all_the_time(hosts: tuple[Worker, Worker]) -> None:
    a, b = hosts
    a.enter()
    b.enter()
    a.work.offer([OFFER])
    b.ledger.sessions.set_drained("b", is_drained=True)
    b.ledger.sessions.beat()
    assert b.work.take_some(1) == []
    assert b.work.look_in() == LOOK_SECONDS


def test_a_drained_host_lets_another_one_scan(hosts: tuple[Worker, Worker]) -> None:
    a, b = hosts
    a.enter()
    a.ledger.sessions.set_drained("a", is_drained=True)
    a.ledger.sessions.beat()
    assert a.enter() is False
    assert b.enter() is True


def test_a_host_that_may_not_use_the_folder_neither_scans_nor_helps(hosts: tuple[Worker, Worker]) -> None:
    a, b = hosts
    a.enter()
    a.work.offer([OFFER])
    error = Halted("the folder", "another user", "")
    assert b.enter() is False
    assert b.work.left_to_others == (SPOOL,)
    assert b.enter(error) is error
    assert b.work.left_to_others == ()
    assert b.work.take_some(1) == []
    assert a.enter(error) is error
    assert b.enter() is True, "the other one scans now"
