"""The ledger in PostgreSQL apart from its operations: errors, outages, tables, and its one host."""

import os
import signal
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.ledger.test_sqlite import BUNDLE, CONTENT, RECORD
from tests.support.postgres import DatabaseServer
from tests.support.waiting import until
from uecwatchd.config.load import load
from uecwatchd.config.records import FleetSettings
from uecwatchd.errors import Deferred, Halted, NotPermitted, UecError
from uecwatchd.ledger import open as chosen
from uecwatchd.ledger import postgres, rows, schema, sqlite
from uecwatchd.ledger.api import LedgerAway
from uecwatchd.ledger.history import StoryEntry
from uecwatchd.ledger.postgres_connections import MOST_CONNECTIONS, connect, place_of
from uecwatchd.ledger.postgres_migrations import POSTGRES_MIGRATIONS
from uecwatchd.ledger.postgres_others import KEYS_OF_LATEST
from uecwatchd.ledger.postgres_sql import to_postgres
from uecwatchd.ledger.postgres_store import PostgresStore
from uecwatchd.ledger.records import MemberRecord
from uecwatchd.ledger.sql_ledger import SqlLedger
from uecwatchd.ledger.state_folder import name_of_home
from uecwatchd.types import FileStamp, SetId

TYPES = {
    "TEXT": {"text"},
    "INTEGER": {"bigint", "boolean"},
    "REAL": {"double precision"},
    "BLOB": {"bytea"},
}
Refused = Callable[..., UecError]


@pytest.fixture
def name(database_server: DatabaseServer) -> Iterator[str]:
    with database_server.database() as name:
        yield name


@pytest.fixture
def empty(database_server: DatabaseServer) -> Iterator[str]:
    """A database without a table."""
    with database_server.database(template="template1") as name:
        yield name


def fleet(dsn: str, password: str | None = None) -> FleetSettings:
    return FleetSettings(SecretStr(dsn), SecretStr(password) if password else None)


@pytest.fixture
def book(database_server: DatabaseServer, name: str, tmp_path: Path) -> Iterator[SqlLedger]:
    with closing(postgres.open_ledger(fleet(database_server.dsn(name)), tmp_path)) as book:
        yield book


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """Returns the error with which a DSN is refused: the same when the ledger is opened, and for `check`."""

    def refused(dsn: str, password: str | None = None) -> UecError:
        with pytest.raises(UecError) as opening:
            postgres.open_ledger(fleet(dsn, password), tmp_path)
        with pytest.raises(UecError) as checking:
            postgres.examine_database(fleet(dsn, password), tmp_path)
        assert str(checking.value) == str(opening.value)
        assert opening.value.hint.endswith((".", "…", "NAME", "''"))
        return opening.value

    return refused


# --- tables -----------------------------------------------------------------------------------------------


def test_both_databases_have_the_same_tables_and_columns(
    database_server: DatabaseServer, name: str, tmp_path: Path
) -> None:
    """A new column in one of them is to be in the other, too."""
    sqlite.open_ledger(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / schema.FILE_NAME)) as file:
        tables = [row[0] for row in file.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        in_file = {
            (table, column[1]): (column[2], bool(column[3]), bool(column[5]))
            for table in tables
            if not table.startswith("sqlite_")
            for column in file.execute(f"PRAGMA table_info({table})")
        }
    in_database = {(row[0], row[1]): row[2:] for row in database_server.execute(COLUMNS, database=name)}
    assert in_database.keys() == in_file.keys()
    for column, (kind, required, in_key) in in_file.items():
        found, found_required, found_in_key = in_database[column]
        assert found in TYPES[kind], column
        assert (found_required, found_in_key) == (required or in_key, in_key), column


# The domain of texts is NOT NULL itself.
COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable = 'NO' OR domain_name IS NOT NULL, EXISTS (
    SELECT 1 FROM information_schema.key_column_usage AS used
    WHERE used.table_name = columns.table_name AND used.column_name = columns.column_name
)
FROM information_schema.columns
WHERE table_schema = 'public' AND table_name NOT LIKE 'own%'
    AND NOT table_name = ANY (
        '{ledger,hosts,sessions,claims,fleet_clouds,cloud_uses,slots,outages,shares,offers}'
    )
    AND column_name <> 'host'
"""


@pytest.mark.parametrize(
    ("keys", "values"),
    [
        (rows.KEYS_BY_CLOUD, ["default"]),
        (rows.KEYS_BY_IMAGE, ["default", "emi-1"]),
        (rows.KEYS_BY_CONTENT, [CONTENT]),
        (rows.KEYS_BY_BUILD, ["key"]),
        (KEYS_OF_LATEST, [9, 1.0]),
    ],
    ids=["cloud", "image", "content", "build", "latest"],
)
def test_sets_are_found_by_an_index_without_a_look_at_each(
    database_server: DatabaseServer, name: str, keys: str, values: list[str]
) -> None:
    with closing(connect(place_of(fleet(database_server.dsn(name))))) as connection:
        connection.execute("SET enable_seqscan = off")  # which is quicker where there are no rows
        of_fleet = keys == KEYS_OF_LATEST
        query = f"EXPLAIN {to_postgres(rows.select_sets_of(keys), of_fleet=of_fleet)}"
        plan = [row["QUERY PLAN"] for row in connection.execute(query.encode(), values)]
    assert not [step for step in plan if "Seq Scan" in step], plan


def test_processes_that_make_the_tables_at_once_all_have_them(
    database_server: DatabaseServer, empty: str, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(4) as pool:
        books = list(
            pool.map(lambda _: postgres.open_ledger(fleet(database_server.dsn(empty)), tmp_path), range(4))
        )
    assert [book.sets() for book in books] == [()] * 4
    for book in books:
        book.close()


def test_there_is_nothing_to_read_before_the_first_run(
    database_server: DatabaseServer, empty: str, tmp_path: Path
) -> None:
    where = fleet(database_server.dsn(empty))
    assert postgres.read_ledger(where, tmp_path) is None
    assert postgres.examine_database(where, tmp_path) == f"database {empty} on {database_server.folder}"
    assert database_server.execute("SELECT to_regclass('ledger')", database=empty) == [(None,)]


def test_a_reader_sees_the_rows_of_a_running_writer_and_writes_none(
    book: SqlLedger, database_server: DatabaseServer, name: str, tmp_path: Path
) -> None:
    book.put_set(RECORD)
    reader = postgres.read_ledger(fleet(database_server.dsn(name)), tmp_path)
    assert reader
    with closing(reader):
        assert reader.sets() == (RECORD,)
        with pytest.raises(Deferred, match="read-only"):
            reader.put_set(RECORD)


def test_a_ledger_of_a_newer_version_is_left_alone(
    database_server: DatabaseServer, name: str, tmp_path: Path, refused: Refused
) -> None:
    database_server.execute("UPDATE ledger SET version = 99, least = 98", database=name)
    error = refused(database_server.dsn(name))
    assert isinstance(error, Deferred)
    assert error.what.endswith("its ledger is of version 99")
    assert error.why == f"this uecwatchd knows {len(POSTGRES_MIGRATIONS)}, and at least 98 is needed"
    with pytest.raises(Deferred, match="version 99"):
        postgres.read_ledger(fleet(database_server.dsn(name)), tmp_path)


# --- the statements ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "spelt"),
    [
        ("SELECT a FROM t WHERE b = ? AND c = ?", "SELECT a FROM t WHERE b = $1 AND c = $2"),
        ("SELECT sets.a FROM sets", "SELECT sets.a FROM own_sets AS sets"),
        ("DELETE FROM probes", "DELETE FROM own_probes AS probes"),
        ("UPDATE sets SET a = ?", "UPDATE own_sets AS sets SET a = $1"),
        ("SELECT 1 FROM attempts AS one", "SELECT 1 FROM own_attempts AS one"),
        ("INSERT INTO story (a) VALUES (?)", "INSERT INTO story (a) VALUES ($1)"),
        (
            "INSERT INTO totals (a, b) VALUES (?, ?) ON CONFLICT (a) DO UPDATE SET b = totals.b + excluded.b",
            "INSERT INTO totals (a, b) VALUES ($1, $2)"
            " ON CONFLICT ON CONSTRAINT totals_pkey DO UPDATE SET b = totals.b + excluded.b",
        ),
        ("a = ?2 AND (?1 IS NULL OR b = ?1)", "a = $2 AND (b = $1 OR $1 IS NULL)"),
        ("INSERT OR IGNORE INTO t VALUES (?)", "INSERT INTO t VALUES ($1) ON CONFLICT DO NOTHING"),
        (
            "INSERT OR REPLACE INTO t (a, b) VALUES (?, ?)",
            "INSERT INTO t (a, b) VALUES ($1, $2)"
            " ON CONFLICT ON CONSTRAINT t_pkey DO UPDATE SET a = excluded.a, b = excluded.b",
        ),
        ("json_extract(m, '$[1].sha256')", """split_part(split_part(m, '"sha256": "', 3), '"', 1)"""),
        ("json_extract(m, '$.image_id')", """split_part(split_part(m, '"image_id": "', 2), '"', 1)"""),
    ],
)
def test_a_statement_is_spelt_as_postgresql_has_it(statement: str, spelt: str) -> None:
    assert to_postgres(statement) == spelt


def test_a_statement_for_all_hosts_keeps_what_belongs_to_a_set_together() -> None:
    spelt = to_postgres(rows.select_sets_of(rows.KEYS_BY_CLOUD), of_fleet=True)
    assert "own_" not in spelt
    assert "images.host = targets.host AND images.folder = targets.folder" in spelt
    assert "targets.host = sets.host AND targets.folder = sets.folder" in spelt
    assert "JOIN (SELECT host, folder, name FROM targets WHERE cloud = $1 AND is_current)" in spelt
    assert "USING (host, folder, name)" in spelt


def test_a_set_is_found_by_its_content_whatever_its_paths_are(book: SqlLedger) -> None:
    misleading = f'"sha256": "{CONTENT}" \ud800\0'
    member = MemberRecord("machine", misleading, 1, FileStamp(1, 2, 3, 4))
    decoy = book.put_set(replace(RECORD, id=SetId("/spool", "decoy"), members=(member,)))
    book.put_set(RECORD)
    assert book.sets_with_content(CONTENT) == (RECORD,)
    assert book.set(decoy.id) == decoy


def test_what_lasts_is_in_the_log_on_the_disk_when_it_is_written(
    book: SqlLedger, database_server: DatabaseServer
) -> None:
    book.put_stage(RECORD)
    ((before,),) = database_server.execute("SELECT pg_current_wal_insert_lsn()")
    book.put_bundle(BUNDLE)
    assert database_server.execute(f"SELECT pg_current_wal_flush_lsn() > '{before}'") == [(True,)]


def test_changes_whose_order_counts_are_written_in_one_transaction(
    book: SqlLedger, database_server: DatabaseServer, name: str
) -> None:
    """The first part is undone if a later one fails."""
    book.put_stage(RECORD)
    book.history.count_boot("near", "passed")
    database_server.execute("ALTER TABLE totals ADD CHECK (value < 2)", database=name)
    book.history.count_boot("near", "passed")
    with pytest.raises(Deferred, match="violates check constraint"):
        book.history.flush()
    assert book.sets() == ()
    database_server.execute("ALTER TABLE totals DROP CONSTRAINT totals_value_check", database=name)
    book.history.flush()
    assert book.sets() == (RECORD,)


def test_a_zero_byte_in_a_text_prevents_no_transaction(book: SqlLedger) -> None:
    book.put_set(replace(RECORD, reason="a\0b"))
    (found,) = book.sets()
    assert found.reason == "a\ufffdb"


# --- the host ---------------------------------------------------------------------------------------------


def test_another_state_directory_of_the_host_is_refused_until_its_rows_are_given_away(
    book: SqlLedger, database_server: DatabaseServer, name: str, tmp_path: Path, refused: Refused
) -> None:
    book.put_set(RECORD)
    where, other = fleet(database_server.dsn(name)), tmp_path / "other"
    for opening in (postgres.open_ledger, postgres.read_ledger, postgres.examine_database):
        with pytest.raises(Halted, match="is another machine or state directory") as caught:
            opening(where, other)
        assert f"{os.uname().nodename} {tmp_path}" in caught.value.why
    statement = caught.value.hint.partition(": ")[2].removesuffix(".")
    database_server.execute(statement, database=name)
    with pytest.raises(Deferred, match="its rows were given away, and nobody has taken them yet"):
        book.put_set(replace(RECORD, stage="late"))
    with closing(postgres.open_ledger(where, other)) as moved:
        assert moved.sets() == (RECORD,)
        with pytest.raises(Deferred, match=f"it is {os.uname().nodename} {other}"):
            book.put_set(replace(RECORD, stage="late"))
        moved.put_set(RECORD)
    assert "is another machine" in refused(database_server.dsn(name)).what


# --- an outage --------------------------------------------------------------------------------------------


def test_an_operation_after_a_restart_of_the_database_succeeds(
    book: SqlLedger, database_server: DatabaseServer
) -> None:
    book.put_set(RECORD)
    with database_server.away():
        """All its connections have ended."""
    assert book.sets() == (RECORD,)
    with database_server.away():
        """Again, for a write."""
    book.put_set(replace(RECORD, stage="later"))
    assert [one.stage for one in book.sets()] == ["later"]


def test_a_database_that_is_away_defers_at_once_and_loses_no_story(
    book: SqlLedger, database_server: DatabaseServer
) -> None:
    entry = StoryEntry(RECORD.id, 5.0, "found", "info", "Found it")
    book.history.add_entry(entry)
    with database_server.away():
        for operation in (book.sets, lambda: book.put_set(RECORD), book.history.flush):
            with pytest.raises(Deferred, match="cannot connect to it") as caught:
                operation()
            assert type(caught.value) is LedgerAway
            assert "No such file or directory" in caught.value.why or "refused" in caught.value.why
    book.put_set(RECORD)
    assert book.history.story(RECORD.id) == (entry,)


def test_a_password_that_is_changed_during_the_work_defers(
    database_server: DatabaseServer, name: str, tmp_path: Path
) -> None:
    """The service goes on by itself when it is right again; only a start is refused."""
    make_role(database_server, name, "secretive", "LOGIN PASSWORD 'old'")
    with closing(
        postgres.open_ledger(fleet(database_server.dsn(name, "secretive"), "old"), tmp_path)
    ) as book:
        database_server.execute("ALTER ROLE secretive PASSWORD 'new'", KICK.format("secretive"))
        with pytest.raises(Deferred, match="password authentication failed"):
            book.sets()
        database_server.execute("ALTER ROLE secretive PASSWORD 'old'")
        assert book.sets() == ()


def test_a_server_that_has_stopped_to_answer_defers_after_a_time_and_is_asked_again(
    database_server: DatabaseServer, name: str, tmp_path: Path
) -> None:
    where = fleet(database_server.dsn(name))
    postgres.open_ledger(where, tmp_path).close()
    impatient, home = replace(place_of(where), answer_seconds=0.5), name_of_home(tmp_path)
    with closing(SqlLedger(PostgresStore(impatient, home=home))) as book:
        assert book.sets() == ()
        until(lambda: len(database_server.pids(name)) == 1, "the end of the first connection")
        (pid,) = database_server.pids(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(Deferred, match=r"it has not answered for 0\.5 seconds"):
                book.sets()
        finally:
            os.kill(pid, signal.SIGCONT)
        book.put_set(RECORD)
        assert book.sets() == (RECORD,)


def test_a_server_that_accepts_nothing_is_not_tried_by_each_operation(
    book: SqlLedger, database_server: DatabaseServer, name: str
) -> None:
    host = "127.0.0.1"
    with socket.create_server((host, 0)) as silent:  # it takes connections, and says nothing
        port = silent.getsockname()[1]
        where = place_of(fleet(f"host={host} port={port} dbname={name} user=admin connect_timeout=2"))
        with closing(PostgresStore(where, home="")) as store:
            words = []
            for _ in range(20):
                with pytest.raises(LedgerAway) as caught:
                    store.read("SELECT 1")
                words.append(str(caught.value))
            assert store.is_away
        assert len(set(words)) == 1
        silent.settimeout(0.01)
        tries = 0
        with suppress(TimeoutError):
            while True:
                silent.accept()[0].close()
                tries += 1
        assert tries == 1


def test_threads_share_a_few_connections(book: SqlLedger, database_server: DatabaseServer, name: str) -> None:
    together = threading.Barrier(8)

    def work(number: int) -> None:
        together.wait()
        for turn in range(5):
            book.put_set(replace(RECORD, id=SetId("/spool", f"set-{number}"), attempt=turn))
            assert book.set(SetId("/spool", f"set-{number}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert {one.attempt for one in book.sets()} == {4}
    assert 1 <= len(database_server.pids(name)) <= MOST_CONNECTIONS


def test_a_row_that_makes_no_sense_defers_the_operation_that_reads_it(
    book: SqlLedger, database_server: DatabaseServer, name: str
) -> None:
    book.put_bundle(BUNDLE)
    database_server.execute("UPDATE bundles SET objects = '[{'", database=name)
    with pytest.raises(Deferred, match="a row of it makes no sense") as caught:
        book.all_bundles()
    assert "backup" in caught.value.hint
    book.check()
    assert book.sets() == ()


# --- what is wrong with the configuration -----------------------------------------------------------------

KICK = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'"


def make_role(server: DatabaseServer, database: str, role: str, options: str, *, rights: str = "ALL") -> None:
    """Make a role with these rights on the tables."""
    server.execute(f"DROP ROLE IF EXISTS {role}", f"CREATE ROLE {role} {options}")
    server.execute(f"GRANT {rights} ON ALL TABLES IN SCHEMA public TO {role}", database=database)


@pytest.mark.parametrize(
    ("dsn", "why"),
    [
        ("postgresql://role:hunter2@host/db?passwd=1", "it has the unknown parameter passwd"),
        ("hots=there password=hunter2", "it has the unknown parameter hots"),
        ("host=there hunter2", "it cannot be read"),
        ("postgresql:/role:hunter2@host", "it cannot be read"),
    ],
)
def test_a_dsn_that_cannot_be_read_is_refused_without_the_password(
    refused: Refused, dsn: str, why: str
) -> None:
    error = refused(dsn)
    assert isinstance(error, Halted)
    assert (error.what, error.why) == ("dsn under [fleet]", why)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(
    ("dsn", "kind", "why"),
    [
        ("host={folder} dbname=none user=admin", Halted, 'database "none" does not exist'),
        ("host={folder} dbname={name} user=nobody", NotPermitted, 'role "nobody" does not exist'),
        ("service=missing", Halted, 'definition of service "missing" not found'),
        ("host={folder} port=abc", Halted, 'invalid integer value "abc" for connection option "port"'),
        ("host=127.0.0.1 port=1 password=hunter2", LedgerAway, "Connection refused"),
    ],
    ids=["database", "role", "service", "port", "away"],
)
def test_a_database_that_cannot_be_reached_is_named_with_the_reason(
    database_server: DatabaseServer, name: str, refused: Refused, dsn: str, kind: type[UecError], why: str
) -> None:
    error = refused(dsn.format(folder=database_server.folder, name=name))
    assert type(error) is kind
    assert why in error.why
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("password", [None, "hunter2"], ids=["none", "wrong"])
def test_a_role_whose_password_is_missing_or_wrong_is_not_permitted(
    database_server: DatabaseServer, name: str, refused: Refused, password: str | None
) -> None:
    make_role(database_server, name, "secretive", "LOGIN PASSWORD 'right'")
    error = refused(database_server.dsn(name, "secretive"), password)
    assert isinstance(error, NotPermitted)
    assert "password" in error.why
    assert "uecwatchd_fleet__password" in error.hint
    assert "hunter2" not in str(error)


def test_a_role_without_the_rights_on_a_table_is_not_permitted(
    database_server: DatabaseServer, name: str, refused: Refused
) -> None:
    make_role(database_server, name, "reader", "LOGIN", rights="SELECT")
    error = refused(database_server.dsn(name, "reader"))
    assert isinstance(error, NotPermitted)
    assert error.why == "it lacks the right DELETE on the table advances"


def test_a_role_that_may_make_no_tables_is_not_permitted(
    database_server: DatabaseServer, empty: str, refused: Refused
) -> None:
    database_server.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC", database=empty)
    make_role(database_server, empty, "guest", "LOGIN")
    error = refused(database_server.dsn(empty, "guest"))
    assert isinstance(error, NotPermitted)
    assert error.why == "it lacks the right CREATE on the schema public"
    lost = refused(f"{database_server.dsn(empty)} options=-csearch_path=nowhere")
    assert lost.why == "no schema of its search_path exists"


def test_a_database_of_another_encoding_is_refused(database_server: DatabaseServer, refused: Refused) -> None:
    database_server.execute("CREATE DATABASE narrow ENCODING 'LATIN1' TEMPLATE template0")
    assert refused(database_server.dsn("narrow")).what.endswith("its encoding is LATIN1")


def test_tables_of_another_program_are_left_alone(
    database_server: DatabaseServer, empty: str, tmp_path: Path, refused: Refused
) -> None:
    database_server.execute("CREATE TABLE sets (x int)", database=empty)
    with pytest.raises(Halted, match="its tables are not those of a ledger"):
        postgres.open_ledger(fleet(database_server.dsn(empty)), tmp_path)
    assert database_server.execute("SELECT to_regclass('bundles')", database=empty) == [(None,)]
    database_server.execute("CREATE TABLE ledger (amount int)", database=empty)
    assert "not those of a ledger" in refused(database_server.dsn(empty)).what


def test_the_configuration_chooses_the_store(
    database_server: DatabaseServer, name: str, tmp_path: Path
) -> None:
    config = tmp_path / "uecwatchd.toml"
    state = f"[state]\ndir = '{tmp_path / 'state'}'\n"
    config.write_text(f"{state}[fleet]\ndsn = '{database_server.dsn(name)}'\n")
    settings = load(config, environ={"UECWATCHD_FLEET__PASSWORD": "hunter2"})
    assert settings.fleet.password == SecretStr("hunter2")
    assert database_server.dsn(name) not in repr(settings)
    with closing(chosen.open_ledger(settings)) as book:
        book.put_set(RECORD)
    reader = chosen.read_ledger(settings)
    assert reader
    with closing(reader):
        assert reader.sets() == (RECORD,)
    assert not (tmp_path / "state" / schema.FILE_NAME).exists()
    assert chosen.read_ledger(replace(settings, fleet=FleetSettings())) is None


def test_a_service_file_names_the_database(
    database_server: DatabaseServer, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = tmp_path / "pg_service.conf"
    services.write_text(f"[builds]\nhost={database_server.folder}\ndbname={name}\nuser=admin\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    assert postgres.examine_database(fleet("service=builds"), tmp_path) == "database of service builds"
    with closing(postgres.open_ledger(fleet("service=builds"), tmp_path)) as book:
        assert book.sets() == ()
