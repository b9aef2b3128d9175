import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from uecwatchd.errors import Deferred, Halted, NotPermitted, UecError
from uecwatchd.ledger import rows, schema, sqlite
from uecwatchd.ledger.api import LedgerDamaged
from uecwatchd.ledger.migrations import MIGRATIONS
from uecwatchd.ledger.records import (
    BundleRecord,
    Failure,
    MemberRecord,
    SetRecord,
    TargetImage,
    TargetRecord,
)
from uecwatchd.ledger.sql_ledger import SqlLedger
from uecwatchd.ledger.sqlite import open_ledger, read_ledger
from uecwatchd.types import ContentDigest, FileStamp, SetId

STAMP = FileStamp(1, 2, 3, 4)
SINCE = FileStamp(1, 2, 3, 5)  # the same file, changed
CONTENT, OTHER = ContentDigest("ab" * 32), ContentDigest("cd" * 32)
BLOCKS = ContentDigest(f"blocks-{CONTENT}")
MEMBER = MemberRecord("machine", "karmic.img", 1 << 40, STAMP, CONTENT)
TARGET = TargetRecord("default", "b", (TargetImage("machine", "emi-1", "b/k"),))
RECORD = SetRecord(
    id=SetId("/spool", "kärmic"),
    stamp="s",
    state="deferred",
    since=1.5,
    stage="deliver",
    attempt=3,
    next_retry=99.25,
    reason="r",
    arch="x86_64",
    first_failure=1.0,
    members=(MEMBER,),
    cloud="default",
    targets=(TARGET,),
    error=Failure("deferred", "what", "why", "hint", "id-1"),
)
BUNDLE = BundleRecord(
    "default", "b", "f" * 64, "kernel", CONTENT, "vmlinuz-1", "planned", b"k" * 16, b"i" * 16
)


def test_a_set_comes_back_as_it_was_written_after_a_restart(tmp_path: Path) -> None:
    with closing(open_ledger(tmp_path)) as book:
        book.put_set(RECORD)
    with closing(open_ledger(tmp_path)) as book:
        assert book.set(RECORD.id) == RECORD
        assert book.sets() == (RECORD,)
        assert book.sets(Path("/other")) == ()


def test_a_ledger_of_the_first_version_is_taken_over_with_all_that_is_in_it(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / schema.FILE_NAME)) as old:
        old.executescript(f"{MIGRATIONS[0]} PRAGMA user_version = 1;")
        old.execute("INSERT INTO clouds VALUES ('default', 'uec', 'http://cloud')")
        old.commit()
    with closing(open_ledger(tmp_path)) as book:
        assert [*book.clouds()] == ["default"]
        assert book.requests() == ()


def test_nobody_else_can_read_the_ledger_for_it_holds_keys(tmp_path: Path) -> None:
    with closing(open_ledger(tmp_path / "state")) as book:
        book.put_bundle(BUNDLE)
        for path in (tmp_path / "state").iterdir():
            assert path.stat().st_mode & 0o077 == 0, path.name


def test_a_bundle_record_does_not_show_its_keys() -> None:
    assert "kkkk" not in repr(BUNDLE)


def test_a_key_that_is_dropped_is_gone_from_the_disk(tmp_path: Path) -> None:
    secret = b"a secret of keys"
    with closing(open_ledger(tmp_path)) as book:
        book.put_bundle(replace(BUNDLE, secret_key=secret, secret_iv=secret))
        book.put_bundle(replace(BUNDLE, secret_key=None, secret_iv=None, state="registered"))
        assert [path.name for path in tmp_path.iterdir() if secret in path.read_bytes()] == []


def test_a_reader_sees_the_rows_of_a_running_writer(tmp_path: Path) -> None:
    with closing(open_ledger(tmp_path)) as book:
        book.put_set(RECORD)
        reader = read_ledger(tmp_path)
        assert reader is not None
        with closing(reader):
            assert reader.sets() == (RECORD,)
            with pytest.raises(Deferred):
                reader.put_set(RECORD)


def test_there_is_nothing_to_read_before_the_first_run(tmp_path: Path) -> None:
    assert read_ledger(tmp_path / "state") is None
    assert not (tmp_path / "state").exists()


def test_a_ledger_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    open_ledger(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / schema.FILE_NAME)) as raw:
        raw.execute("PRAGMA user_version = 99")
    for opening in (open_ledger, read_ledger):
        with pytest.raises(Halted, match="version 99"):
            opening(tmp_path)


@pytest.mark.parametrize("version", [-3, 0, 1])
def test_a_database_whose_tables_are_not_those_of_its_version_is_damaged(
    tmp_path: Path, version: int
) -> None:
    open_ledger(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / schema.FILE_NAME)) as raw:
        raw.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(LedgerDamaged, match="damaged"):
        open_ledger(tmp_path)
    reports: list[str] = []
    open_ledger(tmp_path, lost=reports.append).close()
    assert len(reports) == 1


def test_a_damaged_ledger_is_named_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / schema.FILE_NAME
    path.write_bytes(b"this is no database" * 1000)
    with pytest.raises(LedgerDamaged, match="damaged"):
        open_ledger(tmp_path)
    assert path.read_bytes().startswith(b"this is no database")


@pytest.mark.parametrize(
    ("keys", "values"),
    [
        (rows.KEYS_BY_CLOUD, ["default"]),
        (rows.KEYS_BY_IMAGE, ["default", "emi-1"]),
        (rows.KEYS_BY_CONTENT, [CONTENT]),
        (rows.KEYS_BY_BUILD, ["key"]),
    ],
    ids=["cloud", "image", "content", "build"],
)
def test_sets_are_found_by_an_index_without_a_look_at_each(
    tmp_path: Path, keys: str, values: list[str]
) -> None:
    open_ledger(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / schema.FILE_NAME)) as raw:
        plan = [row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {rows.select_sets_of(keys)}", values)]
    assert not [step for step in plan if step.startswith("SCAN") and step != "SCAN found"], plan
    assert [step for step in plan if step.startswith("SEARCH sets USING INDEX")]


def spoil_bundle(folder: Path) -> None:
    with closing(sqlite3.connect(folder / schema.FILE_NAME)) as raw, raw:
        raw.execute("UPDATE bundles SET objects = '[{'")


@pytest.mark.parametrize(
    ("column", "text"), [("error", "[{"), ("members", '["machine"]'), ("members", "[{}]"), ("members", "3")]
)
def test_an_invalid_row_is_damage_for_the_operation_that_reads_it(
    tmp_path: Path, column: str, text: str
) -> None:
    with closing(open_ledger(tmp_path)) as book:
        book.put_sets([RECORD, replace(RECORD, id=SetId("/spool", "other"))])
        with closing(sqlite3.connect(tmp_path / schema.FILE_NAME)) as raw, raw:
            raw.execute(f"UPDATE sets SET {column} = ? WHERE name = 'other'", [text])  # noqa: S608
        assert book.set(RECORD.id) == RECORD
        with pytest.raises(LedgerDamaged, match="makes no sense") as caught:
            book.sets()
        with pytest.raises(LedgerDamaged) as again:
            book.check()
        assert again.value is caught.value


def test_a_verb_reads_no_rows_that_it_does_not_need(tmp_path: Path) -> None:
    with closing(open_ledger(tmp_path)) as book:
        book.put_set(RECORD)
        book.put_bundle(BUNDLE)
    spoil_bundle(tmp_path)
    with closing(open_ledger(tmp_path)) as book:
        book.put_hold(RECORD.id, since=1.0)
    reader = read_ledger(tmp_path)
    assert reader
    with closing(reader):
        assert reader.sets() == (RECORD,)


def test_a_service_that_starts_finds_damage_in_any_row(tmp_path: Path) -> None:
    with closing(open_ledger(tmp_path)) as book:
        book.put_bundle(BUNDLE)
    spoil_bundle(tmp_path)
    told: list[str] = []
    with closing(open_ledger(tmp_path, lost=told.append)) as book:
        assert book.all_bundles() == ()
    assert len(told) == 1


def test_an_interrupted_migration_leaves_the_older_version(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / schema.FILE_NAME)) as raw:
        raw.execute("CREATE TABLE digests (x)")  # in the way of the first migration's third statement
    with pytest.raises(Deferred):
        open_ledger(tmp_path)
    with closing(sqlite3.connect(tmp_path / schema.FILE_NAME)) as raw:
        tables = [row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    assert tables == ["digests"]


def test_a_full_disk_defers_and_keeps_what_was_written(small_disk: Path) -> None:
    with closing(open_ledger(small_disk)) as book:
        book.put_set(RECORD)
        (small_disk / "filler").write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * 4096))
        with pytest.raises(Deferred, match="full"):
            _put_many(book)
        (small_disk / "filler").unlink()
        book.put_set(replace(RECORD, id=SetId("/spool", "after")))
        assert {RECORD.name, "after"} <= {record.name for record in book.sets()}


def _put_many(book: SqlLedger) -> None:
    for number in range(1000):
        book.put_set(replace(RECORD, id=SetId("/spool", f"set-{number}")))


def test_a_state_directory_of_somebody_else_is_named(tmp_path: Path, as_nobody: None) -> None:
    with pytest.raises(NotPermitted, match="state directory"):
        open_ledger(tmp_path / "state")


@pytest.mark.parametrize("opening", [sqlite.open_ledger, sqlite.read_ledger], ids=["to write", "to read"])
@pytest.mark.parametrize("kind", ["a symbolic link", "a folder"])
def test_a_ledger_that_is_no_file_is_named_for_what_it_is(
    tmp_path: Path, opening: Callable[[Path], object], kind: str
) -> None:
    at = tmp_path / "ledger.sqlite"
    if kind == "a folder":
        at.mkdir()
    else:
        (tmp_path / "elsewhere").touch()
        at.symlink_to("elsewhere")
    with pytest.raises(Halted) as caught:
        opening(tmp_path)
    assert caught.value.what == f"{at}: this is no ledger"
    assert kind in caught.value.why


def test_a_ledger_that_is_being_created_does_not_exist_yet_for_readers(tmp_path: Path) -> None:
    (tmp_path / schema.FILE_NAME).touch()
    assert read_ledger(tmp_path) is None


def test_several_processes_that_make_the_ledger_at_once_all_have_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for attempt in range(20):
            folder = tmp_path / str(attempt)
            folder.mkdir()
            books = list(pool.map(lambda _, folder=folder: open_ledger(folder), range(8)))
            assert [book.sets() for book in books] == [()] * 8
            for book in books:
                book.close()


def record(name: str, **values: Any) -> SetRecord:
    return SetRecord(SetId("/s", name), "stamp", "rejected", 1.0, **values)


def test_several_records_are_written_all_or_none(tmp_path: Path) -> None:
    with closing(open_ledger(tmp_path)) as book:
        book.put_sets([record("a"), record("b")])
        with pytest.raises(UecError):
            book.put_sets([record("c"), replace(record("d"), since=None)])  # type: ignore[arg-type]
        assert [found.name for found in book.sets()] == ["a", "b"]
