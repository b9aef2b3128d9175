"""The outbox in SQL; see `outbox` for its operations."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from uecwatchd.ledger.changes import RowChange
from uecwatchd.ledger.outbox import Announced, Message
from uecwatchd.ledger.rows import OF_SET, insert_into, replace_rows
from uecwatchd.ledger.sql_store import SqlStore, TableRow
from uecwatchd.system.known_fields import make_known
from uecwatchd.types import SetId


class SqlOutbox:
    """The outbox in an open store."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    def announced(self) -> Mapping[SetId, Announced]:
        rows = self._store.read("SELECT * FROM announced")
        return {SetId(row["folder"], row["name"]): Announced(row["outcome"], row["since"]) for row in rows}

    def announce(self, messages: Iterable[Message], announced: Mapping[SetId, Announced]) -> None:
        rows = [_message_row(message) for message in messages]
        told = replace_rows("announced", [_announced_row(*one) for one in announced.items()])
        added = tuple((insert_into("messages", row), tuple(row.values())) for row in rows)
        self._store.put(
            "note messages", RowChange("messages", None, added), RowChange("announced", None, told)
        )

    def drop_announced(self, set_id: SetId) -> None:
        self._store.write("forget outcome", f"DELETE FROM announced WHERE {OF_SET}", *set_id)  # noqa: S608 (constant)

    def messages(self) -> tuple[Message, ...]:
        return self._store.records(_message_from, "SELECT * FROM messages ORDER BY number")

    def put_message(self, message: Message) -> None:
        self._store.write(
            "note message",
            "UPDATE messages SET way = ?, tries = ?, next_try = ?, problem = ? WHERE number = ?",
            message.way,
            message.tries,
            message.next_try,
            message.problem,
            message.number,
            lasting=False,
        )

    def drop_message(self, message: Message) -> None:
        self._store.write("forget message", "DELETE FROM messages WHERE number = ?", message.number)


def _announced_row(set_id: SetId, one: Announced) -> dict[str, object]:
    return {"folder": set_id.folder, "name": set_id.name, "outcome": one.outcome, "since": one.since}


def _message_row(message: Message) -> dict[str, object]:
    return {
        "id": message.id,
        "folder": message.set_id.folder,
        "name": message.set_id.name,
        "outcome": message.outcome,
        "moment": message.moment,
        "way": message.way,
        "body": json.dumps(dict(message.body)),
        "tries": message.tries,
        "next_try": message.next_try,
        "problem": message.problem,
    }


def _message_from(row: TableRow) -> Message:
    values: dict[str, Any] = dict(row)
    set_id = SetId(values.pop("folder"), values.pop("name"))
    return make_known(Message, {**values, "set_id": set_id, "body": json.loads(values["body"])})
