"""The test boots in SQL; see `boots` for their operations."""

import json
from typing import Any

from uecwatchd.ledger.boots import BootRecord
from uecwatchd.ledger.changes import RowChange
from uecwatchd.ledger.rows import replace_rows
from uecwatchd.ledger.sql_store import SqlStore, TableRow
from uecwatchd.system.known_fields import make_known
from uecwatchd.types import SetId


class SqlBoots:
    """The test boots in an open store."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    def open(self, cloud: str | None = None) -> tuple[BootRecord, ...]:
        query = "SELECT * FROM boots WHERE ?1 IS NULL OR cloud = ?1 ORDER BY began, token"
        return self._store.records(_boot_from, query, cloud)

    def put(self, boot: BootRecord) -> BootRecord:
        row = {
            "token": boot.token,
            "cloud": boot.cloud,
            "image_id": boot.image_id,
            "folder": boot.set_id.folder,
            "name": boot.set_id.name,
            "began": boot.began,
            "others": json.dumps(boot.others),
            "instance_id": boot.instance_id,
        }
        name = "note instance" if boot.instance_id else "note boot"
        self._store.put(name, RowChange("boots", (boot.token,), replace_rows("boots", [row])))
        return boot

    def drop(self, boot: BootRecord) -> None:
        self._store.write("forget boot", "DELETE FROM boots WHERE token = ?", boot.token)

    def passed(self, cloud: str, image_id: str) -> float | None:
        query = "SELECT passed FROM booted WHERE cloud = ? AND image_id = ?"
        rows = self._store.read(query, cloud, image_id)
        return float(rows[0]["passed"]) if rows else None

    def put_passed(self, cloud: str, image_id: str, when: float) -> None:
        row = {"cloud": cloud, "image_id": image_id, "passed": when}
        key = (cloud, image_id)
        self._store.put("note passed boot", RowChange("booted", key, replace_rows("booted", [row])))


def _boot_from(row: TableRow) -> BootRecord:
    values: dict[str, Any] = dict(row)
    set_id = SetId(values.pop("folder"), values.pop("name"))
    return make_known(BootRecord, {**values, "set_id": set_id, "others": tuple(json.loads(values["others"]))})
