"""The history of sets in SQL; see `history` for its operations."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from itertools import count
from typing import Any

from uecwatchd.ledger.changes import RowChange, change_of
from uecwatchd.ledger.history import (
    ATTEMPTS_OF_A_SET,
    ATTEMPTS_OF_ALL,
    ENTRIES_OF_A_SET,
    ENTRIES_OF_ALL,
    AttemptRecord,
    BootOutcome,
    ImageChange,
    StageTime,
    StoryEntry,
    TotalKey,
    join_runs,
    totals_of,
)
from uecwatchd.ledger.rows import OF_SET, insert_into
from uecwatchd.ledger.sql_store import SqlStore, TableRow
from uecwatchd.system.known_fields import make_known
from uecwatchd.types import SetId

LIMITS: Mapping[str, tuple[int, int]] = {
    "story": (ENTRIES_OF_A_SET, ENTRIES_OF_ALL),
    "attempts": (ATTEMPTS_OF_A_SET, ATTEMPTS_OF_ALL),
}

# An attempt that waits for an image, or for its system, and then for a test boot is written in three runs.
RUNS_OF_AN_ATTEMPT = 3
# Sets that only wait have entries and no attempts.
ROWS_PER_CLEANING = 1000


class SqlHistory:
    """The history in an open store."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self._added = count(1)

    def add_entry(self, entry: StoryEntry) -> None:
        self._add("story", _story_row(entry))

    def add_attempt(self, attempt: AttemptRecord) -> None:
        self._add("attempts", _attempt_row(attempt))
        self._add_to_totals([(*key, amount) for key, amount in totals_of(attempt).items()])
        for table, (of_a_set, _) in LIMITS.items():
            newest = f"SELECT number FROM {table} WHERE {OF_SET} ORDER BY number DESC LIMIT 1 OFFSET ?"  # noqa: S608 (constants)
            statement = f"DELETE FROM {table} WHERE {OF_SET} AND number <= ({newest})"  # noqa: S608 (constants)
            self._remove_old(table, attempt.set_id, statement, *attempt.set_id, *attempt.set_id, of_a_set)

    def _limit(self, table: str) -> None:
        newest = f"SELECT max(number) FROM {table}"  # noqa: S608 (constant)
        statement = f"DELETE FROM {table} WHERE number <= ({newest}) - ?"  # noqa: S608 (constants)
        self._remove_old(table, (), statement, LIMITS[table][1])

    def _remove_old(self, table: str, row: tuple[object, ...], statement: str, *values: object) -> None:
        """Remove what is too old: never a row that is added at the same time."""
        self._store.put_later(RowChange(table, ("old", *row), ((statement, values),)))

    def _add_to_totals(self, amounts: Sequence[tuple[str, str, str, float]]) -> None:
        """Add all of these in one statement."""
        marks = ", ".join("(?, ?, ?, ?)" for _ in amounts)
        statement = (
            f"INSERT INTO totals (what, label, detail, value) VALUES {marks}"  # noqa: S608 (question marks)
            " ON CONFLICT (what, label, detail) DO UPDATE SET value = totals.value + excluded.value"
        )
        self._store.put_later(change_of(statement, [value for amount in amounts for value in amount]))

    def count_boot(self, cloud: str, outcome: BootOutcome) -> None:
        self._add_to_totals([("boots", cloud, outcome, 1.0)])

    def count_change(self, cloud: str, change: ImageChange) -> None:
        self._add_to_totals([("changes", cloud, change, 1.0)])

    def flush(self) -> None:
        self._store.flush()

    def story(self, set_id: SetId) -> tuple[StoryEntry, ...]:
        self._store.flush()
        return self._store.records(
            _entry_from,
            f"SELECT * FROM story WHERE {OF_SET} ORDER BY number",  # noqa: S608 (constant)
            *set_id,
        )

    def attempts(self, set_id: SetId | None = None) -> tuple[AttemptRecord, ...]:
        self._store.flush()
        where, values = (f"WHERE {OF_SET}", set_id) if set_id else ("", ())
        query = f"SELECT * FROM attempts {where} ORDER BY number"  # noqa: S608 (constants)
        return join_runs(self._store.records(attempt_from, query, *values))

    def recent(self, most: int) -> tuple[AttemptRecord, ...]:
        self._store.flush()
        query = "SELECT * FROM attempts ORDER BY number DESC LIMIT ?"
        runs = self._store.records(attempt_from, query, most * RUNS_OF_AN_ATTEMPT)
        return tuple(reversed(join_runs(reversed(runs))))[:most]

    def names(self) -> tuple[SetId, ...]:
        self._store.flush()
        rows = self._store.read("SELECT folder, name FROM story UNION SELECT folder, name FROM attempts")
        return tuple(sorted(SetId(row["folder"], row["name"]) for row in rows))

    def successes(self) -> Mapping[SetId, float]:
        self._store.flush()
        rows = self._store.read(
            "SELECT folder, name, max(ended) AS ended FROM attempts"
            " WHERE state = 'done' GROUP BY folder, name"
        )
        return {SetId(row["folder"], row["name"]): row["ended"] for row in rows}

    def failures(self) -> Mapping[SetId, int]:
        self._store.flush()
        rows = self._store.read(
            "SELECT folder, name, count(*) AS failed FROM attempts AS one"
            " WHERE state IN ('rejected', 'deferred', 'halted') AND number > coalesce(("
            "  SELECT max(number) FROM attempts AS other WHERE other.state = 'done'"
            "  AND other.folder = one.folder AND other.name = one.name), 0)"
            " GROUP BY folder, name"
        )
        return {SetId(row["folder"], row["name"]): row["failed"] for row in rows}

    def totals(self) -> Mapping[TotalKey, float]:
        self._store.flush()
        rows = self._store.read("SELECT * FROM totals")
        return {TotalKey(row["what"], row["label"], row["detail"]): row["value"] for row in rows}

    def drop(self, set_id: SetId) -> None:
        with self._store.writing("forget history") as connection:
            for table in LIMITS:
                connection.execute(f"DELETE FROM {table} WHERE {OF_SET}", set_id)  # noqa: S608 (constants)

    def _add(self, table: str, row: Mapping[str, object]) -> None:
        number = next(self._added)
        self._store.put_later(
            RowChange(table, ("new", number), ((insert_into(table, row), tuple(row.values())),))
        )
        if number % ROWS_PER_CLEANING == 0:
            for each in LIMITS:
                self._limit(each)


def _story_row(entry: StoryEntry) -> dict[str, object]:
    return {
        "folder": entry.set_id.folder,
        "name": entry.set_id.name,
        "moment": entry.moment,
        "kind": entry.kind,
        "level": entry.level,
        "sentence": storable(entry.sentence),
        "fields": json.dumps(dict(entry.fields)),
    }


def _entry_from(row: TableRow) -> StoryEntry:
    set_id, fields = SetId(row["folder"], row["name"]), json.loads(row["fields"])
    return StoryEntry(set_id, row["moment"], row["kind"], row["level"], row["sentence"], fields)


def _attempt_row(attempt: AttemptRecord) -> dict[str, object]:
    return {
        "folder": attempt.set_id.folder,
        "name": attempt.set_id.name,
        "attempt": attempt.number,
        "began": attempt.began,
        "ended": attempt.ended,
        "state": attempt.state,
        "cloud": attempt.cloud,
        "stages": json.dumps([astuple(stage) for stage in attempt.stages]),
        "ids": json.dumps(dict(attempt.ids)),
        "sent": attempt.sent,
        "replaced": attempt.replaced,
        "problem": storable(attempt.problem),
        "request_ids": json.dumps(attempt.request_ids),
    }


def attempt_from(row: TableRow) -> AttemptRecord:
    values: dict[str, Any] = dict(row)
    values["set_id"], values["number"] = SetId(values["folder"], values["name"]), values["attempt"]
    values["stages"] = tuple(StageTime(*stage) for stage in json.loads(values["stages"]))
    values["ids"], values["request_ids"] = json.loads(values["ids"]), tuple(json.loads(values["request_ids"]))
    return make_known(AttemptRecord, values)


def storable(text: str) -> str:
    """Return a text that a database accepts: half a character of UTF-16 is replaced."""
    return text.encode("utf-8", "replace").decode()
