"""The states of the sets as the service keeps them: in memory at once, in the ledger as soon as it can."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.schema import FILE_NAME
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.service.set_states import SetStates
from uecwatchd.types import SetId


def record(name: str, **values: Any) -> SetRecord:
    return SetRecord(SetId("/s", name), "stamp", "rejected", 1.0, **values)


def test_records_that_could_not_be_written_together_are_written_later(tmp_path: Path) -> None:
    with closing(open_ledger(tmp_path)) as book, closing(sqlite3.connect(tmp_path / FILE_NAME)) as other:
        states = SetStates(book)
        other.execute("CREATE TRIGGER full BEFORE INSERT ON sets BEGIN SELECT RAISE(ABORT, 'full'); END")
        states.put_all([record("a"), record("b")])
        assert [found.name for found in states.records()] == ["a", "b"]
        assert not book.sets()
        other.execute("DROP TRIGGER full")
        states.catch_up()
        assert [found.name for found in book.sets()] == ["a", "b"]


def test_what_another_host_has_written_is_read_before_what_is_only_in_memory(tmp_path: Path) -> None:
    with closing(open_ledger(tmp_path)) as book:
        states = SetStates(book)
        states.put_in_memory(record("a"))
        states.put_in_memory(record("b"))
        states.put(record("c"))
        states.put(record("d"))
        done = replace(record("a"), state="done")
        book.put_set(done)
        book.drop_set(record("c").id)
        book.put_set(replace(record("d"), state="done"))
        states.refresh(Path("/s"), but=[record("d").id])
        assert {found.name: found.state for found in states.records()} == {
            "a": "done",
            "b": "rejected",
            "d": "rejected",
        }
        states.write_older(2.0)
        assert book.set(done.id) == done


def test_a_record_that_is_not_written_yet_is_not_forgotten(tmp_path: Path) -> None:
    with closing(open_ledger(tmp_path)) as book, closing(sqlite3.connect(tmp_path / FILE_NAME)) as other:
        states = SetStates(book)
        states.put(record("a"))
        other.execute("CREATE TRIGGER full BEFORE INSERT ON sets BEGIN SELECT RAISE(ABORT, 'full'); END")
        states.put(record("b"))
        assert states.is_written(record("a").id)
        assert not states.is_written(record("b").id)
        states.forget(Path("/s"))
        assert [found.name for found in states.records()] == ["b"]
