"""Sessions, leases and claims of several hosts with one database."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from tests.ledger.test_sqlite import BUNDLE, RECORD
from tests.support.clock import Clock
from tests.support.fleet import Fleet
from tests.support.newer_tables import ADDING, TAKING
from tests.support.postgres import DatabaseServer
from tests.support.waiting import no_stop, until
from uecwatchd.errors import Deferred, Overtaken
from uecwatchd.ledger.postgres_migrations import SCHEMA
from uecwatchd.ledger.sessions import LEASE_SECONDS, SETTLE_SECONDS
from uecwatchd.ledger.sql_ledger import SqlLedger

SIDE_BY_SIDE = 6  # the number of the step that brought versions side by side
KEY = f"{BUNDLE.cloud}/{BUNDLE.identity}"


@pytest.fixture
def fleet(database_server: DatabaseServer, tmp_path: Path) -> Iterator[Fleet]:
    with database_server.database() as name:
        yield Fleet(database_server, name, tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hosts(fleet: Fleet, clock: Clock) -> Iterator[tuple[SqlLedger, SqlLedger]]:
    """The ledgers of two hosts that work."""
    with ExitStack() as ends:
        a, b = (ends.enter_context(closing(fleet.open(host, clock))) for host in "ab")
        a.sessions.begin()
        b.sessions.begin()
        yield a, b


class GivenUp(Exception):
    """A wait that a test ends."""


def give_up() -> None:
    raise GivenUp


def test_of_two_hosts_one_has_a_bundle_at_a_time(hosts: tuple[SqlLedger, SqlLedger]) -> None:
    a, b = hosts
    with a.claim(KEY, check=no_stop) as claim:
        assert claim.former == ""
        with pytest.raises(GivenUp), b.claim(KEY, check=give_up):
            pass
        with b.claim("other", check=give_up):
            """Another bundle is free."""
    with b.claim(KEY, check=give_up) as claim:
        assert (claim.former, claim.settles_in) == ("", 0.0)


def test_a_host_that_waits_gets_the_bundle_when_it_is_free(hosts: tuple[SqlLedger, SqlLedger]) -> None:
    a, b = hosts
    waits, got = threading.Event(), threading.Event()

    def wait() -> None:
        with b.claim(KEY, check=waits.set):
            got.set()

    with a.claim(KEY, check=no_stop):
        other = threading.Thread(target=wait)
        other.start()
        assert waits.wait(60)
        assert not got.is_set()
    other.join()
    assert got.is_set()


def test_two_threads_of_one_host_do_not_share_its_claim(hosts: tuple[SqlLedger, SqlLedger]) -> None:
    a, _ = hosts
    with a.claim(KEY, check=no_stop), pytest.raises(GivenUp), a.claim(KEY, check=give_up):
        pass


def test_a_claim_that_a_host_has_left_behind_is_its_own_again(
    fleet: Fleet, hosts: tuple[SqlLedger, SqlLedger], clock: Clock
) -> None:
    a, _ = hosts
    a.put_bundle(BUNDLE)
    with a.claim(KEY, check=no_stop):
        with closing(fleet.open("a", clock)) as again:  # as after a kill
            again.sessions.begin()
            with again.claim(KEY, check=give_up) as claim:
                assert claim.former == ""
            assert [bundle.generation for bundle in again.all_bundles()] == [0]
        with pytest.raises(Overtaken):
            a.put_bundle(BUNDLE)


def test_a_dead_host_is_buried_after_its_lease_and_its_bundle_taken_over(
    fleet: Fleet, hosts: tuple[SqlLedger, SqlLedger], clock: Clock
) -> None:
    a, b = hosts
    a.put_bundle(BUNDLE)
    with a.claim(KEY, check=no_stop):
        fleet.expire("a")
        b.sessions.beat()
        with pytest.raises(GivenUp), b.claim(KEY, check=give_up):
            """It had no contact for a whole lease itself."""
        for _ in range(3):
            clock.now += LEASE_SECONDS / 3
            b.sessions.beat()
        with b.claim(KEY, check=give_up) as claim:
            assert claim.former == "a"
            assert SETTLE_SECONDS - 60 < claim.settles_in < SETTLE_SECONDS
        assert [bundle.generation for bundle in b.all_bundles()] == [1]
        with b.claim(KEY, check=give_up) as again:
            assert (again.former, again.settles_in > 0) == ("", True)  # it has not settled since
        assert [bundle.generation for bundle in b.all_bundles()] == [1]


@pytest.mark.parametrize("state", ["uploaded", "registering", "registered"])
def test_an_upload_that_is_complete_is_taken_over_as_it_is(
    fleet: Fleet, hosts: tuple[SqlLedger, SqlLedger], state: str
) -> None:
    a, b = hosts
    made = a.put_bundle(replace(BUNDLE, state=state))
    with a.claim(KEY, check=no_stop):
        fleet.bury("a")
        with b.claim(KEY, check=give_up):
            found = b.bundle(made.cloud, made.identity)
            assert found == replace(made, secret_key=None, secret_iv=None)  # which are a's secret


def test_a_buried_host_can_write_nothing_and_claims_nothing(
    fleet: Fleet, hosts: tuple[SqlLedger, SqlLedger]
) -> None:
    a, b = hosts
    a.put_set(RECORD)
    a.check()
    fleet.bury("a")
    operations = (
        lambda: a.put_set(replace(RECORD, stage="late")),
        lambda: a.put_bundle(BUNDLE),
        lambda: a.drop_bundle(BUNDLE),
        a.sessions.sure,
        a.sessions.beat,
        a.check,
        lambda: a.claim(KEY, check=no_stop).__enter__(),
    )
    for operation in operations:
        with pytest.raises(Overtaken, match="another host has ended the session of a"):
            operation()
    assert a.sets() == (RECORD,)
    assert b.all_bundles() == ()
    a.sessions.begin()
    a.put_set(replace(RECORD, stage="new"))


def test_a_host_in_the_middle_of_a_transaction_is_not_buried(
    fleet: Fleet, hosts: tuple[SqlLedger, SqlLedger], clock: Clock
) -> None:
    _, b = hosts
    fleet.expire("a")
    clock.now += LEASE_SECONDS - 5
    b.sessions.beat()
    clock.now += 5
    held = psycopg.connect(fleet.server.dsn(fleet.name))
    with held:
        held.execute("SELECT 1 FROM sessions WHERE host = 'a' FOR SHARE")
        b.sessions.beat()
        assert [one.is_open for one in b.sessions.hosts()] == [True, True]
    held.close()
    b.sessions.beat()
    assert [one.is_open for one in b.sessions.hosts()] == [False, True]


def test_a_lease_that_ran_out_and_is_renewed_in_time_goes_on(
    fleet: Fleet, hosts: tuple[SqlLedger, SqlLedger], clock: Clock
) -> None:
    a, b = hosts
    clock.now += LEASE_SECONDS
    fleet.expire("a")
    with pytest.raises(Deferred, match="has not renewed its lease in time") as caught:
        a.sessions.sure()
    assert not isinstance(caught.value, Overtaken)
    a.put_set(RECORD)  # nobody has buried it
    a.sessions.beat()
    a.sessions.sure()
    for _ in range(2):
        b.sessions.beat()
    assert all(one.is_open for one in b.sessions.hosts())


@pytest.mark.parametrize("trouble", ["the machine slept", "the database was away"])
def test_a_host_that_was_cut_off_buries_nobody_before_a_whole_lease(
    fleet: Fleet, hosts: tuple[SqlLedger, SqlLedger], clock: Clock, trouble: str
) -> None:
    _, b = hosts
    if trouble == "the machine slept":
        clock.now += 10 * LEASE_SECONDS
    else:
        clock.now += LEASE_SECONDS / 3
        with fleet.server.away(), pytest.raises(Deferred):
            b.sessions.beat()
        clock.now += LEASE_SECONDS / 3
    fleet.expire("a")
    for step in range(3):
        b.sessions.beat()
        assert b.sessions.hosts()[0].is_open, step
        clock.now += LEASE_SECONDS / 3
    b.sessions.beat()
    assert not b.sessions.hosts()[0].is_open


def test_a_claim_that_could_not_be_ended_is_ended_by_a_later_beat(
    fleet: Fleet, hosts: tuple[SqlLedger, SqlLedger]
) -> None:
    a, b = hosts
    with ExitStack() as away, a.claim(KEY, check=no_stop):
        away.enter_context(fleet.server.away())
    with pytest.raises(GivenUp), b.claim(KEY, check=give_up):
        pass
    a.sessions.beat()
    with b.claim(KEY, check=give_up):
        pass


def test_the_first_host_says_where_a_cloud_is(hosts: tuple[SqlLedger, SqlLedger]) -> None:
    a, b = hosts
    assert a.sessions.same_cloud("default", "http://here") == "http://here"
    assert b.sessions.same_cloud("default", "http://there") == "http://here"
    assert b.sessions.same_cloud("other", "http://there") == "http://there"


def test_the_hosts_are_listed_with_their_last_session(
    fleet: Fleet, hosts: tuple[SqlLedger, SqlLedger]
) -> None:
    a, b = hosts
    with a.claim(KEY, check=no_stop):
        first, second = b.sessions.hosts()
    assert (first.host, first.claims, second.host, second.claims) == ("a", 1, "b", 0)
    assert first.version == second.version is not None
    assert (first.state, second.state) == ("running", "running")
    assert 0 < first.lease_until - first.now <= LEASE_SECONDS
    a.sessions.end()
    assert [one.is_open for one in b.sessions.hosts()] == [False, True]
    a.sessions.begin()
    assert len(b.sessions.hosts()) == 2
    fleet.expire("a")
    assert b.sessions.hosts()[0].state == "silent"


def test_a_host_may_join_while_others_work(fleet: Fleet, hosts: tuple[SqlLedger, SqlLedger]) -> None:
    with closing(fleet.open("c")) as book:
        book.sessions.begin()
        assert [one.host for one in hosts[0].sessions.hosts()] == ["a", "b", "c"]


def test_a_host_that_was_buried_stays_silent_until_it_is_back(
    fleet: Fleet, hosts: tuple[SqlLedger, SqlLedger]
) -> None:
    a, b = hosts
    fleet.bury("a")
    assert b.sessions.hosts()[0].state == "silent"
    assert not b.sessions.hosts()[0].is_at_work
    a.sessions.begin()
    assert b.sessions.hosts()[0].state == "running"
    a.sessions.end()
    assert b.sessions.hosts()[0].state == "stopped"


def test_a_new_version_that_only_adds_begins_beside_the_older_one(
    fleet: Fleet, hosts: tuple[SqlLedger, SqlLedger], clock: Clock
) -> None:
    a, b = hosts
    b.sessions.end()
    fleet.upgrade("b", ADDING)
    assert fleet.execute("SELECT version FROM ledger") == [(len(ADDING.steps),)]
    with a.claim(KEY, check=no_stop):
        a.put_set(RECORD)
        a.put_bundle(BUNDLE)
    a.sessions.beat()
    assert a.sets() == (RECORD,)
    a.sessions.end()
    with closing(fleet.open("a", clock)) as again:  # also after a restart
        again.sessions.begin()
        assert again.sets() == (RECORD,)
        assert again.bundle(BUNDLE.cloud, BUNDLE.identity) == BUNDLE
    assert fleet.execute("SELECT later FROM sets") == [("x",)]


def test_a_new_version_that_takes_away_waits_until_the_older_one_has_ended_everywhere(
    fleet: Fleet, hosts: tuple[SqlLedger, SqlLedger]
) -> None:
    a, b = hosts
    b.sessions.end()
    with pytest.raises(Deferred, match="uecwatchd of that version runs on a"):
        fleet.upgrade("b", TAKING)
    a.put_set(RECORD)  # nothing has changed for it
    assert a.sets() == (RECORD,)
    fleet.expire("a")  # it is dead, and not waited for
    fleet.upgrade("b", TAKING)
    assert fleet.execute("SELECT version FROM ledger") == [(len(TAKING.steps),)]
    with pytest.raises(Overtaken):
        a.put_set(RECORD)
    with pytest.raises(Deferred, match="Install the newer uecwatchd here, too"):
        fleet.open("a")


def test_a_new_version_waits_for_hosts_from_before_there_were_versions_side_by_side(
    database_server: DatabaseServer, tmp_path: Path
) -> None:
    with database_server.database(template="template1") as name:
        fleet = Fleet(database_server, name, tmp_path)
        fleet.upgrade("a", replace(SCHEMA, steps=SCHEMA.steps[:SIDE_BY_SIDE]))
        fleet.execute("INSERT INTO sessions (host, version, lease_until) VALUES ('a', '0', 'infinity')")
        fleet.execute("ALTER TABLE sessions DROP COLUMN steps; ALTER TABLE ledger DROP COLUMN least")
        fleet.execute(f"UPDATE ledger SET version = {SIDE_BY_SIDE - 1}")  # noqa: S608 (a number)
        with pytest.raises(Deferred, match="uecwatchd of that version runs on a"):
            fleet.open("b")
        fleet.expire("a")
        fleet.open("b").close()
        assert fleet.execute("SELECT version FROM ledger") == [(len(SCHEMA.steps),)]


def test_a_change_of_the_tables_does_not_wait_long_behind_other_transactions(
    fleet: Fleet, hosts: tuple[SqlLedger, SqlLedger]
) -> None:
    with fleet.connection() as other, other.transaction():
        other.execute("SELECT * FROM sets")
        with pytest.raises(Deferred, match="lock timeout"):
            fleet.upgrade("b", ADDING)
        hosts[0].put_set(RECORD)
    fleet.upgrade("b", ADDING)


def test_a_drained_host_knows_it_from_its_next_beat_on(
    fleet: Fleet, hosts: tuple[SqlLedger, SqlLedger], clock: Clock
) -> None:
    a, b = hosts
    b.sessions.set_drained("a", is_drained=True)
    assert not a.sessions.is_drained
    a.sessions.beat()
    assert a.sessions.is_drained
    assert [one.state for one in a.sessions.hosts()] == ["drained", "running"]
    with closing(fleet.open("a", clock)) as again:
        again.sessions.begin()
        assert again.sessions.is_drained
        b.sessions.set_drained("a", is_drained=False)
        again.sessions.beat()
        assert not again.sessions.is_drained
    b.sessions.beat()
    assert not b.sessions.is_drained


def test_hosts_that_want_one_bundle_at_once_have_it_one_after_the_other(fleet: Fleet) -> None:
    at_work, most = [], []

    def work(host: str) -> None:
        with closing(fleet.open(host)) as book:
            book.sessions.begin()
            for _ in range(5):
                with book.claim(KEY, check=no_stop):
                    at_work.append(host)
                    most.append(len(at_work))
                    at_work.remove(host)

    threads = [threading.Thread(target=work, args=(host,)) for host in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 15
    until(lambda: fleet.execute("SELECT count(*) FROM claims") == [(0,)])
