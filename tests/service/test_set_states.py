"""The states of the sets as the service keeps them: in memory at once, in the ledger as soon as it can."""

import sqlite3
from contextlib import closing
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
