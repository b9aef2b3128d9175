"""Conversion between records and rows of the SQLite file."""

import json
import sqlite3
from dataclasses import asdict, astuple, fields
from typing import Any

from uecwatchd.ledger.records import (
    NOT_READ,
    AppliedAttributes,
    BundleRecord,
    Failure,
    Leaving,
    MemberRecord,
    SetRecord,
)
from uecwatchd.types import ContentDigest, FileStamp, StoredObject


def set_row(record: SetRecord) -> dict[str, object]:
    row: dict[str, object] = {f.name: getattr(record, f.name) for f in fields(record)}
    row["idle"] = json.dumps(record.idle)
    row["remarks"] = json.dumps(record.remarks)
    row["members"] = json.dumps([_member_values(member) for member in record.members])
    row["error"] = json.dumps(asdict(record.error)) if record.error else None
    return row


def set_from(row: sqlite3.Row) -> SetRecord:
    values: dict[str, Any] = dict(row)
    values["idle"], values["remarks"] = (tuple(json.loads(values[key])) for key in ("idle", "remarks"))
    values["members"] = tuple(_member_from(member) for member in json.loads(values["members"]))
    values["error"] = Failure(**json.loads(values["error"])) if values["error"] else None
    return SetRecord(**values)


def bundle_row(record: BundleRecord) -> dict[str, object]:
    row: dict[str, object] = {f.name: getattr(record, f.name) for f in fields(record)}
    row["sha256"] = row.pop("digest")
    row["objects"] = json.dumps([astuple(stored) for stored in record.objects])
    return row


def bundle_from(row: sqlite3.Row) -> BundleRecord:
    values: dict[str, Any] = dict(row)
    objects = tuple(StoredObject(*stored) for stored in json.loads(values["objects"]))
    values["digest"] = ContentDigest.parse(values.pop("sha256"))
    return BundleRecord(**{**values, "objects": objects, "renewed": bool(values["renewed"])})


def leaving_from(row: sqlite3.Row) -> Leaving:
    return Leaving(row["folder"], row["path"], FileStamp(*json.loads(row["stamp"])), row["way"])


def _member_values(member: MemberRecord) -> dict[str, object]:
    values = asdict(member)
    values["sha256"] = values.pop("digest")
    return values


def _member_from(values: dict[str, Any]) -> MemberRecord:
    text = values.pop("sha256")
    values["digest"] = ContentDigest.parse(text) if text else NOT_READ
    given = values.get("furnished")
    furnished = AppliedAttributes(**{**given, "tags": tuple(given["tags"])}) if given else None
    return MemberRecord(**{**values, "stamp": FileStamp(*values["stamp"]), "furnished": furnished})
