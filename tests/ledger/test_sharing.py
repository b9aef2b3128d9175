"""The rows of folders that several hosts share, and who scans such a folder and works on its sets."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from tests.ledger.test_sqlite import BUNDLE, CONTENT, RECORD, STAMP
from tests.support.clock import Clock
from tests.support.fleet import Fleet
from tests.support.postgres import DatabaseServer
from uecwatchd.errors import Deferred, Overtaken
from uecwatchd.ledger.history import StoryEntry
from uecwatchd.ledger.outbox import Announced, Message
from uecwatchd.ledger.postgres_migrations import SHARED_TABLES, TABLES_OF_HOSTS
from uecwatchd.ledger.records import LeavingFile, ProgressRecord, Request
from uecwatchd.ledger.sessions import LEASE_SECONDS, MARGIN_SECONDS
from uecwatchd.ledger.sharing import NothingShared, Offer, Share
from uecwatchd.ledger.sql_ledger import SqlLedger
from uecwatchd.ledger.versions import VersionRecord
from uecwatchd.types import SetId, share_number

SPOOL = Path(RECORD.folder)
IN_SHARE = STAMP._replace(device=share_number(SPOOL))
SETS = tuple(SetId(str(SPOOL), name) for name in ("one", "two", "three"))
OFFERS = tuple(Offer(set_id, f"stamp of {set_id.name}", size) for size, set_id in enumerate(SETS))


@pytest.fixture
def fleet(database_server: DatabaseServer, tmp_path: Path) -> Iterator[Fleet]:
    with database_server.database() as name:
        yield Fleet(database_server, name, tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hosts(fleet: Fleet, clock: Clock) -> Iterator[tuple[SqlLedger, SqlLedger]]:
    """Two hosts with sessions, which share a folder."""
    with ExitStack() as ends:
        books = [ends.enter_context(closing(fleet.open(host, clock, [SPOOL]))) for host in "ab"]
        for book in books:
            book.sessions.begin()
            assert book.sharing.share_of(SPOOL).name
        yield books[0], books[1]


def fill(book: SqlLedger) -> None:
    """Write what belongs to a set into all the tables of shared folders."""
    set_id = RECORD.id
    book.put_set(RECORD)
    book.put_leaving([LeavingFile(RECORD.folder, "x", IN_SHARE, "delete")])
    book.put_request(Request(set_id, "retry"))
    book.put_hold(set_id, since=1.0)
    book.put_hold(set_id, since=1.0, cloud="default")
    book.versions.put_versions([VersionRecord(set_id, "default", "emi-1", "machine", "current", 1.0, 1.0)])
    message = Message("id", set_id, "done", 1.0, "way", {}, next_try=1.0)
    book.outbox.announce([message], {set_id: Announced("done", 1.0)})
    book.history.add_entry(StoryEntry(set_id, 1.0, "done", "info", "done", {}))
    book.put_progress(ProgressRecord(set_id, "s", "f", 1, 2, 0, 1.0, 1.0))
    book.history.flush()


def test_the_sets_of_a_shared_folder_are_those_of_all_hosts(
    fleet: Fleet, hosts: tuple[SqlLedger, SqlLedger]
) -> None:
    a, b = hosts
    fill(a)
    assert b.set(RECORD.id) == RECORD
    assert b.sets(SPOOL) == a.sets_of_fleet() == b.sets_of_fleet() == (RECORD,)
    assert b.holds().keys() == {RECORD.id}
    changed = replace(RECORD, state="deferred")
    b.put_set(changed)
    assert a.sets() == (changed,)
    for table in set(TABLES_OF_HOSTS) - {"attempts", "digests", "probes", "boots", "totals", "clouds"}:
        found = fleet.execute(f"SELECT DISTINCT host FROM {table}")  # noqa: S608 (constant)
        assert found == [(f"*{SPOOL}" if table in SHARED_TABLES else "a",)], table


def test_a_host_without_the_folder_sees_its_sets_as_those_of_others(
    fleet: Fleet, hosts: tuple[SqlLedger, SqlLedger]
) -> None:
    hosts[0].put_set(RECORD)
    hosts[0].put_bundle(replace(BUNDLE, made_for=RECORD.id))
    assert [one.made_for for one in hosts[1].all_bundles()] == [RECORD.id]
    with closing(fleet.open("c")) as other:
        assert other.sets() == ()
        assert [str(one.id) for one in other.sets_of_fleet()] == [f"*:{RECORD.id}"]
        assert [str(one.made_for) for one in other.all_bundles()] == [f"*:{RECORD.id}"]
        other.put_set(RECORD)
        assert hosts[0].sets() == other.sets() == (RECORD,)
        other.put_set(replace(RECORD, state="deferred"))
        assert hosts[0].sets() == (RECORD,)


def test_a_digest_of_a_shared_file_is_read_once(hosts: tuple[SqlLedger, SqlLedger]) -> None:
    a, b = hosts
    a.put_digest(IN_SHARE, "file", CONTENT)
    a.put_digest(STAMP, "file", CONTENT)
    a.history.flush()
    assert b.digest(IN_SHARE, "file") == CONTENT
    assert b.digest(STAMP, "file") is None
    b.put_digest(IN_SHARE, "file", CONTENT)
    b.drop_digests(IN_SHARE)
    assert a.digest(IN_SHARE, "file") is None


def test_the_rows_of_a_folder_become_those_of_its_share(fleet: Fleet) -> None:
    other = replace(RECORD, id=SetId(RECORD.folder, "only-b-has-it"))
    with ExitStack() as ends:
        for host, records in (("a", [RECORD]), ("b", [replace(RECORD, state="deferred"), other])):
            with closing(fleet.open(host)) as alone:
                alone.put_sets(records)
                alone.put_bundle(replace(BUNDLE, identity=host, made_for=RECORD.id))
            book = ends.enter_context(closing(fleet.open(host, shares=[SPOOL])))
            book.sessions.begin()
            book.sharing.share_of(SPOOL)
        assert book.sets() == (RECORD, other)
        assert {one.made_for for one in book.all_bundles()} == {RECORD.id}
    found = fleet.execute("SELECT host, count(*) FROM sets GROUP BY host")
    assert found == [(f"*{SPOOL}", 2)]


def test_all_hosts_know_a_share_by_one_name(hosts: tuple[SqlLedger, SqlLedger]) -> None:
    a, b = (book.sharing.share_of(SPOOL) for book in hosts)
    assert a == b
    assert hosts[0].sharing.share_of(Path("/srv/own")) == Share("")


def test_all_hosts_know_that_a_share_has_its_mark(hosts: tuple[SqlLedger, SqlLedger]) -> None:
    a, b = hosts
    assert not a.sharing.share_of(SPOOL).is_marked
    a.sharing.note_marked(SPOOL)
    assert b.sharing.share_of(SPOOL).is_marked


def test_what_was_taken_without_an_answer_is_given_back(hosts: tuple[SqlLedger, SqlLedger]) -> None:
    """As in an outage of the database: the host does not know that it has it."""
    a, b = hosts
    a.sharing.begin_scan(SPOOL)
    a.sharing.offer(OFFERS)
    assert b.sharing.take_next([SPOOL])
    assert b.sharing.take_next([SPOOL], taken=[SETS[0]])
    assert a.sharing.begin_scan(SPOOL) == {SETS[0], SETS[1]}
    assert b.sharing.take_next([SPOOL], taken=[SETS[1]]) is None
    assert a.sharing.begin_scan(SPOOL) == {SETS[1]}
    a.sharing.offer(OFFERS)
    a.sharing.take(SETS[0])
    assert a.sharing.begin_scan(SPOOL, [SETS[0]]) == {SETS[1]}
    a.sharing.offer(OFFERS)
    assert not a.sharing.take(SETS[0]), "it is at work here"
    a.sharing.begin_scan(SPOOL)
    a.sharing.offer(OFFERS)
    assert a.sharing.take(SETS[0])


def test_one_host_at_a_time_scans(hosts: tuple[SqlLedger, SqlLedger]) -> None:
    a, b = hosts
    assert a.sharing.begin_scan(SPOOL) == frozenset()
    assert b.sharing.begin_scan(SPOOL) is None
    assert a.sharing.begin_scan(SPOOL) == frozenset(), "it stays the one that scans"
    a.sharing.leave(SPOOL)
    assert b.sharing.begin_scan(SPOOL) == frozenset()
    assert a.sharing.begin_scan(SPOOL) is None


def test_each_set_on_offer_is_taken_once(hosts: tuple[SqlLedger, SqlLedger]) -> None:
    a, b = hosts
    a.sharing.begin_scan(SPOOL)
    a.sharing.offer(OFFERS)
    assert b.sharing.take_next([SPOOL], ()) == OFFERS[0]
    assert not a.sharing.take(SETS[0])
    assert a.sharing.take(SETS[1])
    assert b.sharing.take_next([SPOOL], [SETS[2]], [SETS[0]]) is None
    assert b.sharing.take_next([SPOOL], (), [SETS[0]]) == OFFERS[2]
    assert b.sharing.take_next([SPOOL], (), [SETS[0], SETS[2]]) is None
    b.sharing.release(SETS[0])
    assert not a.sharing.take(SETS[0]), "it has been worked on since the scan"
    assert a.sharing.begin_scan(SPOOL) == {SETS[2]}


def test_a_scan_takes_back_what_nobody_has_taken(hosts: tuple[SqlLedger, SqlLedger]) -> None:
    a, b = hosts
    a.sharing.begin_scan(SPOOL)
    a.sharing.offer(OFFERS)
    b.sharing.take_next([SPOOL], ())
    assert a.sharing.begin_scan(SPOOL) == {SETS[0]}
    assert b.sharing.take_next([SPOOL], ()) is None


def test_a_kept_set_is_only_for_the_host_that_scans(hosts: tuple[SqlLedger, SqlLedger]) -> None:
    a, b = hosts
    a.sharing.begin_scan(SPOOL)
    a.sharing.offer([replace(OFFERS[0], is_kept=True)])
    assert b.sharing.take_next([SPOOL], ()) is None
    assert a.sharing.take(SETS[0])


def test_what_a_dead_host_has_taken_is_free_again(fleet: Fleet, hosts: tuple[SqlLedger, SqlLedger]) -> None:
    a, b = hosts
    a.sharing.begin_scan(SPOOL)
    a.sharing.offer(OFFERS)
    assert b.sharing.take_next([SPOOL], ())
    fleet.expire("b")
    assert a.sharing.begin_scan(SPOOL) == {SETS[0]}, "its session is not over yet"
    fleet.bury("b")
    assert a.sharing.begin_scan(SPOOL) == frozenset()
    with pytest.raises(Overtaken):
        b.sharing.release(SETS[0])


def test_a_dead_host_scans_no_more_and_its_offers_stay(
    fleet: Fleet, hosts: tuple[SqlLedger, SqlLedger]
) -> None:
    a, b = hosts
    a.sharing.begin_scan(SPOOL)
    a.sharing.offer(OFFERS)
    fleet.bury("a")
    assert b.sharing.take_next([SPOOL], ()) == OFFERS[0]
    assert b.sharing.begin_scan(SPOOL) == frozenset()
    for change in (
        lambda: a.sharing.begin_scan(SPOOL),
        lambda: a.sharing.offer(OFFERS),
        lambda: a.sharing.take(SETS[1]),
    ):
        with pytest.raises(Overtaken):
            change()


def test_a_host_knows_by_its_own_clock_that_its_lease_may_have_ended(
    hosts: tuple[SqlLedger, SqlLedger], clock: Clock
) -> None:
    a, _ = hosts
    clock.now += LEASE_SECONDS - MARGIN_SECONDS - 1
    a.sessions.check_lease()
    clock.now += 1
    with pytest.raises(Deferred, match="has not renewed its lease in time"):
        a.sessions.check_lease()
    a.sessions.beat()
    a.sessions.check_lease()


def test_a_host_that_begins_again_has_taken_nothing(
    fleet: Fleet, hosts: tuple[SqlLedger, SqlLedger], clock: Clock
) -> None:
    a, b = hosts
    a.sharing.begin_scan(SPOOL)
    a.sharing.offer(OFFERS)
    b.sharing.take_next([SPOOL], ())
    with closing(fleet.open("b", clock, [SPOOL])) as again:
        again.sessions.begin()
        assert a.sharing.begin_scan(SPOOL) == frozenset()


def test_rows_cannot_be_given_to_a_folder_that_is_not_shared(
    fleet: Fleet, hosts: tuple[SqlLedger, SqlLedger]
) -> None:
    own = replace(RECORD, id=SetId("/srv/own", "karmic"))
    hosts[0].put_set(own)
    assert hosts[1].sets() == ()
    assert fleet.execute("SELECT host FROM sets") == [("a",)]


def test_one_host_alone_takes_all(tmp_path: Path) -> None:
    nothing = NothingShared()
    assert nothing.share_of(tmp_path) == Share("")
    assert nothing.begin_scan(tmp_path) == frozenset()
    assert nothing.take(SETS[0])
    assert nothing.take_next([tmp_path], ()) is None


def test_an_older_host_without_the_setting_sees_its_own_rows(
    fleet: Fleet, hosts: tuple[SqlLedger, SqlLedger]
) -> None:
    """A host of the version before, while it still runs beside newer ones."""
    hosts[0].put_set(replace(RECORD, id=SetId("/srv/own", "karmic")))
    hosts[0].put_set(RECORD)
    with psycopg.connect(fleet.server.dsn(fleet.name)) as older:
        older.execute("SELECT set_config('uecwatchd.host', 'a', false)")
        assert older.execute("SELECT folder FROM own_sets").fetchall() == [("/srv/own",)]
