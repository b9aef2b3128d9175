"""Images, their launch permissions, tags and instances: registry.sqlite.

An image is `available` at once, or `pending` for a number of DescribeImages calls; its final state is settled
from the start. It stays on the list as `deregistered` if the generation wants two calls to remove it.
"""

import secrets
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.rules.ec2 import ImageIds
from uecwatchd.sandbox.state.database import Database
from uecwatchd.sandbox.state.image_marks import ImageMarks
from uecwatchd.sandbox.state.instances import Instance

VERSION = 3
SCHEMA = """
CREATE TABLE image (
    id              TEXT PRIMARY KEY,
    location        TEXT NOT NULL,
    manifest_sha256 TEXT NOT NULL,
    type            TEXT NOT NULL,
    architecture    TEXT NOT NULL,
    kernel          TEXT NOT NULL,
    ramdisk         TEXT NOT NULL,
    virtualization  TEXT NOT NULL,
    name            TEXT NOT NULL,
    description     TEXT NOT NULL,
    size            INTEGER NOT NULL,
    platform        TEXT NOT NULL,
    state           TEXT NOT NULL,
    looks           INTEGER NOT NULL,
    fate            TEXT NOT NULL,
    reason          TEXT NOT NULL,
    registered      TEXT NOT NULL
);
CREATE UNIQUE INDEX image_name ON image (name) WHERE name != '';
CREATE TABLE permission (
    image TEXT NOT NULL REFERENCES image (id) ON DELETE CASCADE,
    kind  TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (image, kind, value)
);
CREATE TABLE tag (
    resource TEXT NOT NULL,
    key      TEXT NOT NULL,
    value    TEXT NOT NULL,
    PRIMARY KEY (resource, key)
);
CREATE TABLE instance (
    id          TEXT PRIMARY KEY,
    reservation TEXT NOT NULL,
    image       TEXT NOT NULL,
    kernel      TEXT NOT NULL,
    ramdisk     TEXT NOT NULL,
    type        TEXT NOT NULL,
    key_name    TEXT NOT NULL,
    state       TEXT NOT NULL,
    started     TEXT NOT NULL,
    console     TEXT NOT NULL,
    token       TEXT NOT NULL,
    request     TEXT NOT NULL,
    script      TEXT NOT NULL,
    looks       INTEGER NOT NULL,
    reads       INTEGER NOT NULL,
    address     TEXT NOT NULL,
    reason      TEXT NOT NULL
)
"""

# Instances had no more than a row until version 3, and ran for ever.
UPGRADES = {
    2: """
        ALTER TABLE instance ADD COLUMN token TEXT NOT NULL DEFAULT '';
        ALTER TABLE instance ADD COLUMN request TEXT NOT NULL DEFAULT '';
        ALTER TABLE instance ADD COLUMN script TEXT NOT NULL DEFAULT 'boots';
        ALTER TABLE instance ADD COLUMN looks INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE instance ADD COLUMN reads INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE instance ADD COLUMN address TEXT NOT NULL DEFAULT '';
        ALTER TABLE instance ADD COLUMN reason TEXT NOT NULL DEFAULT '';
        UPDATE instance SET state = 'terminated'
    """
}

ID_DIGITS = 8  # of instances and reservations


@dataclass(frozen=True, slots=True)
class RegisteredImage:
    """One registered image. Empty text means "none"; `registered` is a time in ISO 8601, UTC.

    While `state` is pending, `looks` counts the remaining DescribeImages calls, `fate` is the final state,
    and `reason` says why.
    """

    id: str
    location: str
    manifest_sha256: str
    type: str
    architecture: str
    kernel: str
    ramdisk: str
    virtualization: str
    name: str
    description: str
    size: int
    platform: str
    state: str
    looks: int
    fate: str
    reason: str
    registered: str


@dataclass(frozen=True, slots=True)
class LaunchPermission:
    """One entry of the users of an image: `group` with value `all`, or `user` with an account number."""

    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag of an image or an instance."""

    resource: str
    key: str
    value: str


class Registry:
    """Images, launch permissions, tags and instances in one database."""

    def __init__(self, folder: Path) -> None:
        path = folder / "registry.sqlite"
        self._database = Database(path, schema=SCHEMA, version=VERSION, upgrades=UPGRADES)
        self.marks = ImageMarks(folder)

    def close(self) -> None:
        self._database.close()
        self.marks.close()

    # images

    def add_image(
        self, image: RegisteredImage, *, ids: ImageIds, permissions: Iterable[LaunchPermission]
    ) -> RegisteredImage:
        """Add the image under a new id. Raises `ApiError` (InvalidAMIName.Duplicate)."""
        with self._database.transaction() as rows:
            _refuse_taken_name(rows, image.name)
            fresh = _fresh_id(rows, lambda: ids.spell(image.type, _digits(ids.digits)), table="image")
            image = replace(image, id=fresh)
            _insert(rows, "image", image)
            for one in permissions:
                rows.execute("INSERT INTO permission VALUES (?, ?, ?)", (image.id, one.kind, one.value))
        return image

    def check_name(self, name: str) -> None:
        with self._database.transaction() as rows:
            _refuse_taken_name(rows, name)

    def images(self) -> tuple[RegisteredImage, ...]:
        with self._database.transaction() as rows:
            found = rows.execute("SELECT * FROM image ORDER BY registered, id")
            return tuple(RegisteredImage(*row) for row in found)

    def find_image(self, image_id: str) -> RegisteredImage | None:
        return next((image for image in self.images() if image.id == image_id), None)

    def describe(self, image_id: str, description: str) -> None:
        with self._database.transaction() as rows:
            rows.execute("UPDATE image SET description = ? WHERE id = ?", (description, image_id))

    def advance_pending(self) -> None:
        """Bring pending images one DescribeImages call nearer to their final state."""
        with self._database.transaction() as rows:
            rows.execute("UPDATE image SET looks = looks - 1 WHERE state = 'pending'")
            rows.execute("UPDATE image SET state = fate WHERE state = 'pending' AND looks <= 0")

    def set_image_state(self, image_id: str, state: str) -> None:
        with self._database.transaction() as rows:
            rows.execute("UPDATE image SET state = ? WHERE id = ?", (state, image_id))

    def remove_image(self, image_id: str) -> None:
        with self._database.transaction() as rows:
            rows.execute("DELETE FROM image WHERE id = ?", (image_id,))
            rows.execute("DELETE FROM tag WHERE resource = ?", (image_id,))

    # permissions

    def permissions(self, image_id: str) -> tuple[LaunchPermission, ...]:
        with self._database.transaction() as rows:
            query = "SELECT kind, value FROM permission WHERE image = ? ORDER BY kind, value"
            return tuple(LaunchPermission(*row) for row in rows.execute(query, (image_id,)))

    def change_permissions(
        self, image_id: str, *, add: Iterable[LaunchPermission], remove: Iterable[LaunchPermission]
    ) -> None:
        with self._database.transaction() as rows:
            for one in remove:
                values = (image_id, one.kind, one.value)
                rows.execute("DELETE FROM permission WHERE image = ? AND kind = ? AND value = ?", values)
            for one in add:
                rows.execute(
                    "INSERT OR IGNORE INTO permission VALUES (?, ?, ?)", (image_id, one.kind, one.value)
                )

    # tags

    def tags(self) -> tuple[Tag, ...]:
        with self._database.transaction() as rows:
            return tuple(Tag(*row) for row in rows.execute("SELECT * FROM tag ORDER BY resource, key"))

    def add_tags(self, tags: Iterable[Tag], *, limit: int) -> None:
        """Add all of the tags or none. Raises `ApiError` (TagLimitExceeded)."""
        with self._database.transaction() as rows:
            for tag in tags:
                rows.execute("INSERT OR REPLACE INTO tag VALUES (?, ?, ?)", astuple(tag))
            if rows.execute("SELECT 1 FROM tag GROUP BY resource HAVING count(*) > ?", (limit,)).fetchone():
                raise ApiError("TagLimitExceeded", f"A resource has at most {limit} tags")

    def remove_tags(self, tags: Iterable[Tag]) -> None:
        with self._database.transaction() as rows:
            for tag in tags:
                rows.execute("DELETE FROM tag WHERE resource = ? AND key = ?", (tag.resource, tag.key))

    # instances

    def add_instances(self, instance: Instance, *, count: int) -> tuple[Instance, ...]:
        """Add `count` instances in one reservation, under new ids."""
        with self._database.transaction() as rows:
            reservation = f"r-{_digits(ID_DIGITS)}"
            started = []
            for _ in range(count):
                fresh = _fresh_id(rows, lambda: f"i-{_digits(ID_DIGITS)}", table="instance")
                started.append(replace(instance, id=fresh, reservation=reservation))
                _insert(rows, "instance", started[-1])
        return tuple(started)

    def instances(self) -> tuple[Instance, ...]:
        with self._database.transaction() as rows:
            return tuple(
                Instance(*row) for row in rows.execute("SELECT * FROM instance ORDER BY started, id")
            )

    def change_instance(self, instance_id: str, change: Callable[[Instance], Instance]) -> None:
        """Replace the record of an instance by what `change` makes of it, while nobody else writes."""
        with self._database.transaction() as rows:
            row = rows.execute("SELECT * FROM instance WHERE id = ?", (instance_id,)).fetchone()
            rows.execute("DELETE FROM instance WHERE id = ?", (instance_id,))
            _insert(rows, "instance", change(Instance(*row)))


def _refuse_taken_name(rows: sqlite3.Connection, name: str) -> None:
    if name and (row := rows.execute("SELECT id FROM image WHERE name = ?", (name,)).fetchone()):
        raise ApiError("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {row['id']}")


def _digits(count: int) -> str:
    return secrets.token_hex(count)[:count]


def _fresh_id(rows: sqlite3.Connection, make: Callable[[], str], *, table: str) -> str:
    while True:
        fresh = make()
        query = f"SELECT 1 FROM {table} WHERE id = ?"  # noqa: S608  # our own word
        if not rows.execute(query, (fresh,)).fetchone():
            return fresh


def _insert(rows: sqlite3.Connection, table: str, record: RegisteredImage | Instance) -> None:
    marks = ", ".join("?" for _ in fields(record))
    rows.execute(f"INSERT INTO {table} VALUES ({marks})", astuple(record))  # noqa: S608  # our own word
