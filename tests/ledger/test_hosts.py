"""The rows of several hosts in one PostgreSQL database."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from tests.ledger.test_sqlite import BUNDLE, CONTENT, RECORD, STAMP
from tests.support.fleet import Fleet, fleet_of
from tests.support.postgres import DatabaseServer
from uecwatchd.errors import Rejected
from uecwatchd.ledger import postgres
from uecwatchd.ledger.boots import BootRecord
from uecwatchd.ledger.history import AttemptRecord, StoryEntry
from uecwatchd.ledger.other_hosts import HostCount
from uecwatchd.ledger.outbox import Announced, Message
from uecwatchd.ledger.postgres_migrations import POSTGRES_MIGRATIONS, TABLES_OF_HOSTS
from uecwatchd.ledger.records import LeavingFile, ProgressRecord, Request
from uecwatchd.ledger.sql_ledger import SqlLedger
from uecwatchd.ledger.state_folder import name_of_home
from uecwatchd.ledger.versions import VersionRecord
from uecwatchd.types import DetectedCloud, SetId

HOSTS = ("a", "b")
THERE = SetId("a:/spool", RECORD.name)
VERSION = VersionRecord(RECORD.id, "default", "emi-1", "machine", "current", 1.0, 1.0)


@pytest.fixture
def name(database_server: DatabaseServer) -> Iterator[str]:
    with database_server.database() as name:
        yield name


@pytest.fixture
def books(database_server: DatabaseServer, name: str, tmp_path: Path) -> Iterator[list[SqlLedger]]:
    """The ledgers of two hosts."""
    fleet = Fleet(database_server, name, tmp_path)
    with ExitStack() as ends:
        yield [ends.enter_context(closing(fleet.open(host))) for host in HOSTS]


def fill(book: SqlLedger) -> None:
    """Write a row into each table of a host."""
    where, set_id = Path(RECORD.folder), RECORD.id
    book.put_set(RECORD)
    book.put_digest(STAMP, "file", CONTENT)
    book.put_leaving([LeavingFile(RECORD.folder, "x", STAMP, "delete")])
    assert book.leaving(where)
    book.put_request(Request(set_id, "retry"))
    book.put_hold(set_id, since=1.0)
    book.put_hold(set_id, since=1.0, cloud="default")
    book.put_progress(ProgressRecord(set_id, "s", "f", 1, 2, 0, 1.0, 1.0))
    book.put_probes({"default": 1.0})
    book.put_cloud("default", DetectedCloud("euca4", "http://cloud"))
    book.boots.put(BootRecord(f"token-{id(book)}", "default", "emi-1", set_id, 1.0))
    book.versions.put_versions([VERSION])
    message = Message("id", set_id, "done", 1.0, "way", {}, next_try=1.0)
    book.outbox.announce([message], {set_id: Announced("done", 1.0)})
    book.history.add_entry(StoryEntry(set_id, 1.0, "found", "info", "Found it"))
    book.history.add_attempt(AttemptRecord(set_id, 1, 1.0, 2.0, "done", "default"))
    book.history.add_attempt(AttemptRecord(set_id, 2, 3.0, 4.0, "rejected", "default"))
    book.history.flush()


def clear(book: SqlLedger) -> None:
    set_id = RECORD.id
    book.drop_set(set_id)
    book.drop_digests(STAMP)
    book.drop_leaving(Path(RECORD.folder))
    for request in book.requests():
        book.drop_request(request)
    book.drop_hold(set_id)
    book.drop_hold(set_id, cloud="default")
    book.drop_progress(set_id)
    book.put_probes({})
    for boot in book.boots.open():
        book.boots.drop(boot)
    book.versions.drop_versions(set_id)
    for message in book.outbox.messages():
        book.outbox.drop_message(message)
    book.outbox.drop_announced(set_id)
    book.history.drop(set_id)


def seen(book: SqlLedger) -> tuple[object, ...]:
    return (
        book.sets(),
        book.set(RECORD.id),
        book.count_sets(),
        book.sets_named(RECORD.name),
        book.sets_on("default"),
        book.digest(STAMP, "file"),
        book.leaving(Path(RECORD.folder)),
        book.requests(),
        book.holds(),
        book.cloud_holds(),
        book.progress(),
        book.probes(),
        book.boots.open(),
        book.versions.of_set(RECORD.id),
        book.versions.count(),
        book.outbox.messages(),
        book.outbox.announced(),
        book.history.story(RECORD.id),
        book.history.attempts(),
        book.history.names(),
        book.history.recent(9),
        book.history.successes(),
        book.history.failures(),
    )


def test_a_host_sees_and_changes_its_own_rows_alone(
    books: list[SqlLedger], database_server: DatabaseServer, name: str
) -> None:
    one, other = books
    empty = seen(other)
    fill(one)
    filled = seen(one)
    assert all(mine != theirs for mine, theirs in zip(filled, empty, strict=True))
    assert seen(other) == empty
    fill(other)
    for table in TABLES_OF_HOSTS:
        query = f"SELECT DISTINCT host FROM {table} ORDER BY host"  # noqa: S608 (constant)
        assert database_server.execute(query, database=name) == [("a",), ("b",)], table
    clear(other)
    assert seen(other) == empty
    assert seen(one) == filled


def test_a_set_of_another_host_is_found_by_its_image_and_content(books: list[SqlLedger]) -> None:
    one, other = books
    one.put_set(RECORD)
    one.versions.put_versions([VERSION])
    there = replace(RECORD, id=THERE)
    assert other.sets_with_image("default", "emi-1") == (there,)
    assert other.sets_with_content(CONTENT) == (there,)
    assert other.sets_of_fleet() == (there,)
    assert other.versions.of_image("default", "emi-1") == (replace(VERSION, set_id=THERE),)
    assert other.versions.of_cloud("default") == (replace(VERSION, set_id=THERE),)
    mine = other.put_set(replace(RECORD, stamp="other", targets=()))
    assert other.sets_of_fleet() == (mine, there)
    assert THERE.is_elsewhere
    assert not mine.id.is_elsewhere


def test_hosts_share_bundles_and_the_host_of_its_set_is_known(books: list[SqlLedger]) -> None:
    one, other = books
    made = one.put_bundle(replace(BUNDLE, made_for=RECORD.id))
    assert one.bundle(made.cloud, made.identity) == made
    found = other.bundle(made.cloud, made.identity)
    assert found == replace(made, made_for=THERE, secret_key=None, secret_iv=None)
    assert one.unfinished("default", made_for=RECORD.id) == (made,)
    assert other.unfinished("default", made_for=RECORD.id) == ()
    other.put_bundle(found)
    assert one.bundle(made.cloud, made.identity) == replace(found, made_for=RECORD.id)
    other.put_owners(Path(RECORD.folder), {RECORD.name: 7}, proven={RECORD.name})
    one.put_owners(Path(RECORD.folder), {RECORD.name: 8}, proven={RECORD.name})
    assert [book.all_bundles()[0].owner for book in books] == [8, 8]


def test_rows_of_a_ledger_for_one_host_belong_to_it(database_server: DatabaseServer, tmp_path: Path) -> None:
    with database_server.database(template="template1") as name:
        home = name_of_home(tmp_path)
        with psycopg.connect(database_server.dsn(name), autocommit=True) as connection:
            connection.execute(POSTGRES_MIGRATIONS[0].encode())
            connection.execute(
                "INSERT INTO bundles VALUES ('default', 'b', 'i', 'kernel', %s, 'p', 'planned', NULL, NULL,"
                " 0, 0, '', '/spool/k', NULL, '[]', '', '', false, NULL, false, '')",
                [str(CONTENT)],
            )
            connection.execute("INSERT INTO holds VALUES ('/spool', 'k', 1.0)")
            connection.execute("INSERT INTO ledger VALUES (1, %s)", [home])
        where = fleet_of(database_server, name, "a")
        with closing(postgres.open_ledger(where, tmp_path)) as book:
            held = SetId("/spool", "k")
            assert book.holds() == {held: 1.0}
            assert [bundle.made_for for bundle in book.all_bundles()] == [held]
        assert database_server.execute("SELECT host, home FROM hosts", database=name) == [("a", home)]
        assert database_server.execute("SELECT made_for FROM bundles", database=name) == [("a:/spool/k",)]


def test_each_view_has_the_columns_of_its_table(database_server: DatabaseServer, name: str) -> None:
    columns = "SELECT string_agg(column_name, ' ' ORDER BY ordinal_position) FROM information_schema.columns"
    for table in TABLES_OF_HOSTS:
        own = database_server.execute(f"{columns} WHERE table_name = 'own_{table}'", database=name)
        there = f"{columns} WHERE table_name = '{table}' AND column_name <> 'host'"
        assert own == database_server.execute(there, database=name), table


def test_keys_are_in_the_database_for_the_host_alone_that_made_them(
    books: list[SqlLedger], database_server: DatabaseServer, name: str
) -> None:
    one, other = books
    keys = {"secret_key": b"a secret of keys", "secret_iv": b"a vector of keys"}
    unfinished = one.put_bundle(replace(BUNDLE, state="planned", **keys))
    assert one.bundle(BUNDLE.cloud, BUNDLE.identity) == unfinished
    seen = other.bundle(BUNDLE.cloud, BUNDLE.identity)
    assert seen is not None
    assert (seen.secret_key, seen.secret_iv) == (None, None)
    rows = database_server.execute("SELECT secret_key || secret_iv FROM bundles", database=name)
    assert b"of keys" not in rows[0][0]


# --- what people see of the other hosts ------------------------------------------------------------------


def test_the_rows_of_the_others_are_seen_without_ones_own(books: list[SqlLedger]) -> None:
    one, other = books
    empty = seen_of_others(other)
    fill(one)
    assert seen_of_others(one) == empty
    assert other.others.sets() == (replace(RECORD, id=THERE),)
    assert other.others.sets(host="a", name=RECORD.name) == other.others.sets()
    assert other.others.sets(host="c") == other.others.sets(name="no") == ()
    assert other.others.holds() == {THERE: 1.0}
    assert other.others.cloud_holds() == {THERE: {"default": 1.0}}
    assert [(asked.set_id, asked.verb) for asked in other.others.requests()] == [(THERE, "retry")]
    assert other.others.progress()[THERE].stage == "s"
    assert [attempt.number for attempt in other.others.attempts()] == [1, 2]
    assert [attempt.number for attempt in other.others.recent(1)] == [2]
    assert other.others.versions() == (replace(VERSION, set_id=THERE),)
    assert other.others.count() == {HostCount("a", RECORD.state): 1}
    filled = seen_of_others(other)
    fill(other)
    assert seen_of_others(other) == filled


def seen_of_others(book: SqlLedger) -> tuple[object, ...]:
    others = book.others
    lists = (others.sets(), others.requests(), others.attempts(), others.recent(9), others.versions())
    return (*lists, others.holds(), others.cloud_holds(), others.progress(), others.count())


def test_of_the_others_those_not_over_and_the_last_that_ended_are_the_latest(books: list[SqlLedger]) -> None:
    one, other = books
    states = {"old": "done", "new": "done", "newer": "withdrawn", "stuck": "rejected", "stopped": "deferred"}
    for since, (name, state) in enumerate(states.items()):
        one.put_set(replace(RECORD, id=SetId("/spool", name), state=state, since=float(since)))  # type: ignore[arg-type]
    latest = other.others.latest(9, ended_after=0.5)
    assert [record.name for record in latest] == ["new", "newer", "stopped", "stuck"]
    assert [record.name for record in other.others.latest(1, ended_after=0.5)] == ["newer", "stopped"]
    assert one.others.latest(9, ended_after=0.5) == ()


def test_a_ledger_is_opened_as_another_host_has_it(
    books: list[SqlLedger], database_server: DatabaseServer, name: str, tmp_path: Path
) -> None:
    one, other = books
    one.put_set(RECORD)
    fleet = fleet_of(database_server, name, "b")
    with closing(postgres.open_host(fleet, tmp_path / "b", host="a")) as book:
        assert book.set(RECORD.id) == RECORD
        book.put_request(Request(RECORD.id, "retry"))
    assert [asked.verb for asked in one.requests()] == ["retry"]
    assert other.requests() == ()
    with pytest.raises(Rejected, match="there is no host named c"):
        postgres.open_host(fleet, tmp_path / "b", host="c")


def test_a_set_has_a_name_here_and_there() -> None:
    assert THERE.host == "a"
    assert THERE.there == RECORD.id
    assert RECORD.id.of_host("a") == THERE
    assert RECORD.id.of_host("") == RECORD.id.there == RECORD.id
    assert RECORD.id.host == ""
