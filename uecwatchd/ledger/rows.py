"""Conversion between records and rows of the tables."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, fields
from typing import TYPE_CHECKING, Any, get_args

from uecwatchd.images.guest.summary import read_summary, write_summary
from uecwatchd.ledger.changes import RowChange, Statement
from uecwatchd.ledger.records import (
    NOT_READ,
    AppliedAttributes,
    BuildSource,
    BundleRecord,
    Failure,
    LeavingFile,
    MemberRecord,
    ProgressRecord,
    Request,
    SetBuild,
    SetRecord,
    TargetImage,
    TargetRecord,
    TargetStatus,
)
from uecwatchd.ledger.sql_store import TableRow
from uecwatchd.system.known_fields import make_known
from uecwatchd.types import ContentDigest, FileStamp, Role, SetId, StoredObject

if TYPE_CHECKING:  # only a ledger in a database loads it: that takes a while
    from uecwatchd.ledger.key_seal import KeySeal

KEYS = ("secret_key", "secret_iv")
# Instead of a host, for what belongs to a shared folder: the hosts that share it know it by its path.
OF_SHARE = "*"
OF_SET = "folder = ? AND name = ?"
# In one statement: SQLite has a limit of some thirty thousand values.
MOST_ROWS = 500
# A set with all that belongs to it, in one statement: another process may write between two.
SELECT_SETS = """
SELECT sets.*, (
    SELECT json_group_array(json_object(
        'cloud', cloud, 'bucket', bucket, 'fingerprint', fingerprint, 'remarks', remarks,
        'is_current', is_current, 'place', place, 'is_required', is_required, 'status', status,
        'images', (
            SELECT json_group_array(json_object(
                'role', role, 'image_id', image_id, 'manifest', manifest, 'parts', parts, 'pending', pending,
                'attributes', attributes
            ))
            FROM images
            WHERE images.folder = targets.folder AND images.name = targets.name
                AND images.cloud = targets.cloud
        )
    ))
    FROM targets WHERE targets.folder = sets.folder AND targets.name = sets.name
) AS targets
FROM sets"""
# Folders and names of the sets that are looked for. Several selects, so that each is answered by its index.
KEYS_BY_CLOUD = "SELECT folder, name FROM targets WHERE cloud = ?1 AND is_current"
KEYS_BY_IMAGE = " UNION ".join(
    f"SELECT folder, name FROM images WHERE cloud = ?1 AND {column} = ?2"  # noqa: S608 (constants)
    for column in ("image_id", "json_extract(attributes, '$.image_id')")
)
KEYS_BY_CONTENT = " UNION ".join(
    f"SELECT folder, name FROM sets WHERE json_extract(members, '$[{place}].sha256') = ?1"  # noqa: S608 (numbers)
    for place in range(len(get_args(Role)))  # a set has one member of each role at most
)

KEYS_BY_BUILD = "SELECT folder, name FROM sets WHERE build IS NOT NULL AND json_extract(build, '$.key') = ?1"

# All that people ask for, in one statement: a service looks at it with each scan, and several times a minute.
ASKED = """
SELECT number, folder, name, verb, cloud, image_id, due, NULL AS since FROM requests
UNION ALL SELECT 0, folder, name, '', '', '', NULL, since FROM holds
UNION ALL SELECT 0, folder, name, '', cloud, '', NULL, since FROM cloud_holds
ORDER BY number, cloud
"""
# Two selects, so that each is answered by its index.
BEGUN = """
SELECT *, is_claimed(cloud, identity) AS is_claimed FROM bundles WHERE cloud = ? AND sha256 IN ({})
UNION ALL SELECT *, is_claimed(cloud, identity) FROM bundles
WHERE cloud = ? AND made_for = ? AND (state != 'registered' OR on_trial)
"""
STAMP = ("device", "inode", "size", "ctime_ns")
DIGESTS = "SELECT * FROM digests WHERE (device, inode, reading) IN (VALUES {})"


def select_sets_of(keys: str) -> str:
    """Return the SELECT of the sets that one of the above finds; a join, because IN would scan all sets."""
    return f"{SELECT_SETS} JOIN ({keys}) AS found USING (folder, name) ORDER BY sets.folder, sets.name"


def set_row(record: SetRecord) -> dict[str, object]:
    row: dict[str, object] = {f.name: getattr(record, f.name) for f in fields(record)}
    del row["targets"], row["id"]
    row["folder"], row["name"] = record.id
    row["members"] = json.dumps([_member_values(member) for member in record.members])
    row["error"] = json.dumps(asdict(record.error)) if record.error else None
    row["inspection"] = write_summary(record.inspection) if record.inspection else None
    row["build"] = json.dumps(asdict(record.build)) if record.build else None
    return row


def target_rows(record: SetRecord) -> Iterator[dict[str, object]]:
    for target in record.targets:
        yield {
            "folder": record.folder,
            "name": record.name,
            "cloud": target.cloud,
            "bucket": target.bucket,
            "fingerprint": target.fingerprint,
            "remarks": json.dumps(target.remarks),
            "is_current": target.is_current,
            "place": target.place,
            "is_required": target.is_required,
            "status": json.dumps(asdict(target.status)) if target.status else None,
        }


def image_rows(record: SetRecord) -> Iterator[dict[str, object]]:
    for target in record.targets:
        for image in target.images:
            values = asdict(image)
            values["attributes"] = json.dumps(values["attributes"]) if image.attributes else None
            yield {"folder": record.folder, "name": record.name, "cloud": target.cloud, **values}


def set_from(row: TableRow) -> SetRecord:
    """Return the record of a row. Raises ValueError, TypeError or KeyError if it is damaged."""
    values: dict[str, Any] = dict(row)
    values["id"] = SetId(values.pop("folder"), values.pop("name"))
    members = tuple(_member_from(member) for member in json.loads(values["members"]))
    values["members"] = members
    roles = [member.role for member in members]
    targets = (_target_from(target, roles) for target in json.loads(values["targets"] or "[]"))
    values["targets"] = tuple(sorted(targets, key=lambda target: target.cloud))
    values["error"] = _failure_from(json.loads(values["error"] or "null"))
    values["inspection"] = read_summary(values["inspection"]) if values["inspection"] else None
    values["build"] = _build_from(json.loads(values["build"])) if values["build"] else None
    return make_known(SetRecord, values)


def maker_words(set_id: SetId, *, host: str, shares: Collection[str] = ()) -> str:
    """Return a set as the maker of a bundle: with its host, where several have one ledger."""
    whose = OF_SHARE if set_id.folder in shares else host
    return f"{whose}:{set_id}" if whose and not set_id.is_elsewhere else str(set_id)


def maker_from(words: str, *, host: str, shares: Collection[str] = ()) -> SetId:
    """Return the set that `maker_words` has written. Raises ValueError for anything else."""
    whose, _, own = words.partition(":")
    if host and whose == host:
        return SetId.parse(own)
    is_shared = whose == OF_SHARE and SetId.parse(own).folder in shares
    return SetId.parse(own if is_shared else words)


def bundle_row(
    record: BundleRecord, *, host: str = "", shares: Collection[str] = (), seal: "KeySeal | None" = None
) -> dict[str, object]:
    """Return the row of a bundle. `host` is this one, if several have the ledger; `shares` are its shares.

    `seal` is for its keys.
    """
    row: dict[str, object] = {f.name: getattr(record, f.name) for f in fields(record)}
    row["sha256"] = row.pop("digest")
    maker = record.made_for
    row["made_for"] = maker_words(maker, host=host, shares=shares) if maker else ""
    row["objects"] = json.dumps([astuple(stored) for stored in record.objects])
    for name in KEYS:
        key = getattr(record, name)
        row[name] = seal.seal(key, of=_sealed_for(row, name)) if seal and key is not None else key
    return row


def _sealed_for(row: Mapping[str, Any], name: str) -> bytes:
    return json.dumps([row["cloud"], row["identity"], name]).encode()


def bundle_from(
    row: TableRow, *, host: str = "", shares: Collection[str] = (), seal: "KeySeal | None" = None
) -> BundleRecord:
    """Return the bundle of a row. Without keys if another host has sealed them."""
    values: dict[str, Any] = dict(row)
    for name in KEYS:
        if seal and values[name] is not None:
            values[name] = seal.open(values[name], of=_sealed_for(values, name))
    objects = tuple(StoredObject(*stored) for stored in json.loads(values["objects"]))
    values["digest"] = ContentDigest.parse(values.pop("sha256"))
    maker = values["made_for"]
    values["made_for"] = maker_from(maker, host=host, shares=shares) if maker else None
    flags = {name: bool(values[name]) for name in ("renewed", "on_trial")}
    return make_known(BundleRecord, {**values, **flags, "objects": objects})


def leaving_row(file: LeavingFile) -> dict[str, object]:
    return {"folder": file.folder, "path": file.path, "stamp": json.dumps(file.stamp), "way": file.way}


def leaving_from(row: TableRow) -> LeavingFile:
    return LeavingFile(row["folder"], row["path"], FileStamp(*json.loads(row["stamp"])), row["way"])


def request_from(row: TableRow) -> Request:
    values: dict[str, Any] = dict(row)
    return make_known(Request, {**values, "set_id": SetId(values["folder"], values["name"])})


def progress_row(progress: ProgressRecord) -> dict[str, object]:
    values = asdict(progress)
    del values["set_id"]
    return {"folder": progress.set_id.folder, "name": progress.set_id.name, **values}


def progress_from(row: TableRow) -> ProgressRecord:
    values = dict(row)
    return make_known(ProgressRecord, {**values, "set_id": SetId(values["folder"], values["name"])})


def _member_values(member: MemberRecord) -> dict[str, object]:
    values = asdict(member)
    values["sha256"] = values.pop("digest")
    return values


def _member_from(values: dict[str, Any]) -> MemberRecord:
    text = values.pop("sha256")
    values["digest"] = ContentDigest.parse(text) if text else NOT_READ
    if values.get("prepared") is not None:
        values["prepared"] = tuple(values["prepared"])
    return make_known(MemberRecord, {**values, "stamp": FileStamp(*values["stamp"])})


def _target_from(values: dict[str, Any], roles: Sequence[Role]) -> TargetRecord:
    images = [_image_from(image) for image in values["images"] or ()]
    places = {role: place for place, role in enumerate(roles)}  # an earlier target may have had other members
    ordered = tuple(sorted(images, key=lambda image: (places.get(image.role, len(roles)), image.role)))
    values["remarks"] = tuple(json.loads(values["remarks"]))
    values["status"] = _status_from(json.loads(values["status"])) if values["status"] else None
    flags = {name: bool(values[name]) for name in ("is_current", "is_required")}
    return make_known(TargetRecord, {**values, **flags, "images": ordered})


def _status_from(values: dict[str, Any]) -> TargetStatus:
    return make_known(TargetStatus, {**values, "error": _failure_from(values["error"])})


def _failure_from(values: dict[str, Any] | None) -> Failure | None:
    return make_known(Failure, {**values, "console": tuple(values.get("console", ()))}) if values else None


def _build_from(values: dict[str, Any]) -> SetBuild:
    sources = (
        BuildSource(one["use"], one["name"], ContentDigest.parse(one["digest"])) for one in values["sources"]
    )
    return make_known(SetBuild, {**values, "sources": tuple(sources)})


def _image_from(values: dict[str, Any]) -> TargetImage:
    given = json.loads(values["attributes"]) if values["attributes"] else None
    attributes = make_known(AppliedAttributes, {**given, "tags": tuple(given["tags"])}) if given else None
    return make_known(TargetImage, {**values, "attributes": attributes})


def set_change(record: SetRecord) -> RowChange:
    """Return the change to a set, in place of all its earlier rows."""
    targets, images = tuple(target_rows(record)), tuple(image_rows(record))
    statements = (
        *replace_rows("sets", [set_row(record)]),
        _delete_others("targets", record.id, ("cloud",), targets),
        *replace_rows("targets", targets),
        _delete_others("images", record.id, ("cloud", "role"), images),
        *replace_rows("images", images),
    )
    return RowChange("sets", record.id, statements)


def _delete_others(
    table: str, set_id: SetId, key: Sequence[str], kept: Sequence[Mapping[str, object]]
) -> Statement:
    """Return the statement to delete the other rows of a set."""
    statement = f"DELETE FROM {table} WHERE {OF_SET}"  # noqa: S608 (constants)
    if not kept:
        return statement, tuple(set_id)
    one = f"({', '.join('?' * len(key))})"
    others = f"({', '.join(key)}) NOT IN (VALUES {', '.join([one] * len(kept))})"
    return f"{statement} AND {others}", (*set_id, *(row[name] for row in kept for name in key))


def drop_change(set_id: SetId) -> RowChange:
    """Return the removal of a set as a change."""
    tables = ("images", "targets", "sets")
    statements = tuple((f"DELETE FROM {table} WHERE {OF_SET}", tuple(set_id)) for table in tables)  # noqa: S608 (constants)
    return RowChange("sets", set_id, statements)


def insert_into(table: str, row: Mapping[str, object], how: str = "", *, rows: int = 1) -> str:
    """Return the statement that inserts rows; the values of each are given in the order of the mapping."""
    one = f"({', '.join('?' * len(row))})"
    into = " ".join(filter(None, ("INSERT", how, "INTO", table)))
    return f"{into} ({', '.join(row)}) VALUES {', '.join([one] * rows)}"


def replace_rows(table: str, rows: Sequence[Mapping[str, object]]) -> tuple[Statement, ...]:
    """Return the statements that write rows in place of those with the same keys."""
    batches = (rows[at : at + MOST_ROWS] for at in range(0, len(rows), MOST_ROWS))
    return tuple(
        (
            insert_into(table, batch[0], "OR REPLACE", rows=len(batch)),
            tuple(row[name] for row in batch for name in batch[0]),
        )
        for batch in batches
    )
