"""The versions of sets in SQL; see `versions` for the operations."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from uecwatchd.config.retention import RetentionRule
from uecwatchd.ledger.changes import RowChange
from uecwatchd.ledger.rows import OF_SET, insert_into, replace_rows
from uecwatchd.ledger.sql_store import SqlStore, TableRow
from uecwatchd.ledger.versions import IN_CLOUD, MOST_GONE, VersionRecord, VersionState
from uecwatchd.system.known_fields import make_known
from uecwatchd.types import SetId

NEWEST_FIRST = "published DESC, image_id"
STILL_THERE = f"state IN ({', '.join(repr(state) for state in sorted(IN_CLOUD))})"
# What is published once more was published when it was.
IF_CURRENT_BEFORE = (
    "ON CONFLICT (folder, name, cloud, image_id) DO UPDATE SET {},"
    " published = CASE versions.state WHEN 'current' THEN versions.published ELSE excluded.published END,"
    " since = CASE versions.state WHEN 'current' THEN versions.since ELSE excluded.since END"
)
ON_CLOUD = f"{OF_SET} AND cloud = ?"


class SqlVersions:
    """The versions in an open store."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    def of_set(self, set_id: SetId, cloud: str | None = None) -> tuple[VersionRecord, ...]:
        where = "folder = ?1 AND name = ?2 AND (?3 IS NULL OR cloud = ?3)"
        return self._found(f"WHERE {where} ORDER BY {NEWEST_FIRST}", *set_id, cloud)

    def of_image(self, cloud: str, image_id: str) -> tuple[VersionRecord, ...]:
        return self._found_in_fleet("WHERE cloud = ? AND image_id = ? ORDER BY folder, name", cloud, image_id)

    def of_cloud(self, cloud: str) -> tuple[VersionRecord, ...]:
        return self._found_in_fleet(f"WHERE cloud = ? ORDER BY folder, name, {NEWEST_FIRST}", cloud)

    def sets(self) -> tuple[SetId, ...]:
        rows = self._store.read(
            f"SELECT DISTINCT folder, name FROM versions WHERE {STILL_THERE}"  # noqa: S608 (constant)
            " GROUP BY folder, name, cloud HAVING count(*) > 1 ORDER BY folder, name"
        )
        return tuple(SetId(row["folder"], row["name"]) for row in rows)

    def count(self) -> Mapping[tuple[str, VersionState], int]:
        rows = self._store.read("SELECT cloud, state, count(*) AS number FROM versions GROUP BY cloud, state")
        return {(row["cloud"], row["state"]): row["number"] for row in rows}

    def publish_version(self, version: VersionRecord) -> None:
        self._store.put("note the published version", _publication(version))

    def publish_later(self, version: VersionRecord) -> None:
        self._store.put_later(_publication(version))

    def put_versions(self, versions: Iterable[VersionRecord]) -> None:
        rows = [_version_row(version) for version in versions]
        if rows:
            self._store.put("note versions", RowChange("versions", None, replace_rows("versions", rows)))

    def drop_versions(self, set_id: SetId, cloud: str | None = None) -> None:
        where = "folder = ?1 AND name = ?2 AND (?3 IS NULL OR cloud = ?3)"
        self._store.write("forget versions", f"DELETE FROM versions WHERE {where}", *set_id, cloud)  # noqa: S608 (constant)

    def _found(self, rest: str, *values: object) -> tuple[VersionRecord, ...]:
        return self._store.records(version_from, f"SELECT * FROM versions {rest}", *values)  # noqa: S608 (constants)

    def _found_in_fleet(self, rest: str, *values: object) -> tuple[VersionRecord, ...]:
        query = f"SELECT * FROM versions {rest}"  # noqa: S608 (constants)
        return self._store.records_of_fleet(version_from, query, *values)


def _publication(version: VersionRecord) -> RowChange:
    """Return the change by a new current version of a set."""
    key = (*version.set_id, version.cloud)
    older = (
        "UPDATE versions SET state = 'older', since = ?1, replaced = ?1, replaced_by = ?2"
        " WHERE folder = ?3 AND name = ?4 AND cloud = ?5 AND state = 'current' AND image_id != ?2",
        (version.since, version.image_id, *key),
    )
    # Not the published one, which may have been gone before.
    gone = (
        f"DELETE FROM versions WHERE {ON_CLOUD} AND NOT {STILL_THERE} AND image_id != ?"  # noqa: S608 (constants)
        " AND image_id NOT IN ("
        f"SELECT image_id FROM versions WHERE {ON_CLOUD} AND NOT {STILL_THERE}"
        " ORDER BY since DESC LIMIT ?)",
        (*key, version.image_id, *key, MOST_GONE),
    )
    row = _version_row(version)
    current = (
        f"{insert_into('versions', row)} {IF_CURRENT_BEFORE.format(_others(row))}",
        tuple(row.values()),
    )
    statements = (older, current, gone)
    return RowChange("versions", None, statements)


def _others(row: Mapping[str, object]) -> str:
    names = (name for name in row if name not in ("published", "since"))
    return ", ".join(f"{name} = excluded.{name}" for name in names)


def _version_row(version: VersionRecord) -> dict[str, object]:
    values = asdict(version)
    values["folder"], values["name"] = values.pop("set_id")
    values["retention"] = json.dumps(
        {key: one for key, one in values["retention"].items() if one is not None}
    )
    return values


def version_from(row: TableRow) -> VersionRecord:
    values: dict[str, Any] = dict(row)
    set_id = SetId(values.pop("folder"), values.pop("name"))
    values["passed"] = bool(values["passed"])
    values["retention"] = make_known(RetentionRule, json.loads(values["retention"]))
    return make_known(VersionRecord, {**values, "set_id": set_id})
