"""Buckets and objects on disk.

    objects.sqlite   names, sizes, digests, ACLs, owners
    objects/         the bytes, one file for each upload, with random names

An upload goes to a new file first and is then named in one transaction, so a reader sees the old object or
the new one, whole. A file that no row names was left by a crash, and is removed at the next start.
"""

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from io import BufferedReader
from pathlib import Path

from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.state.database import Database

VERSION = 2  # older files of it have two tables more, `multipart` and `piece`, which nothing reads
SCHEMA = """
CREATE TABLE bucket (
    name       TEXT PRIMARY KEY,
    owner      TEXT NOT NULL,
    acl        TEXT NOT NULL,
    created    TEXT NOT NULL,
    takes_acls INTEGER NOT NULL
);
CREATE TABLE object (
    bucket       TEXT NOT NULL REFERENCES bucket (name),
    key          TEXT NOT NULL,
    file         TEXT NOT NULL,
    size         INTEGER NOT NULL,
    etag         TEXT NOT NULL,
    acl          TEXT NOT NULL,
    content_type TEXT NOT NULL,
    notes        TEXT NOT NULL,
    modified     TEXT NOT NULL,
    PRIMARY KEY (bucket, key)
)
"""


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket."""

    name: str
    owner: str  # an account number
    acl: str
    created: datetime
    takes_acls: bool = True  # for its objects


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """Bytes of an upload that has no name yet."""

    path: Path
    size: int
    md5: str
    sha256: str


@dataclass(frozen=True, slots=True)
class S3Object:
    """One stored object."""

    bucket: str
    key: str
    path: Path
    size: int
    etag: str  # the MD5 in hex, without quotes
    acl: str  # the canned ACL it was sent with
    content_type: str
    metadata: Mapping[str, str]  # the x-amz-meta-* headers, without that prefix
    modified: datetime


class Store:
    """Buckets and objects of one folder."""

    def __init__(self, folder: Path) -> None:
        self._files = folder / "objects"
        self._files.mkdir(mode=0o700, exist_ok=True)
        self._database = Database(folder / "objects.sqlite", schema=SCHEMA, version=VERSION)
        self._sweep()

    def close(self) -> None:
        self._database.close()

    def _sweep(self) -> None:
        with self._database.transaction() as rows:
            known = {row["file"] for row in rows.execute("SELECT file FROM object")}
        for path in self._files.iterdir():
            if path.name not in known:
                path.unlink()

    # buckets

    def buckets(self) -> tuple[Bucket, ...]:
        with self._database.transaction() as rows:
            return tuple(map(_bucket, rows.execute("SELECT * FROM bucket ORDER BY name")))

    def bucket(self, name: str) -> Bucket:
        with self._database.transaction() as rows:
            row = rows.execute("SELECT * FROM bucket WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise ApiError("NoSuchBucket", "The specified bucket does not exist")
        return _bucket(row)

    def add_bucket(
        self,
        bucket: Bucket,
        *,
        quota: int,
        quota_first: bool = False,
        own_bucket_code: str = "BucketAlreadyOwnedByYou",
    ) -> None:
        """Add a bucket. Raises `ApiError`: if its name is taken or the quota is used up.

        The owner's existing bucket is left as it is if `own_bucket_code` is empty. `quota_first` checks the
        quota before the name.
        """
        with self._database.transaction() as rows:
            known = {row["name"]: row["owner"] for row in rows.execute("SELECT name, owner FROM bucket")}
            full = list(known.values()).count(bucket.owner) >= quota
            if full and (quota_first or bucket.name not in known):
                raise ApiError("TooManyBuckets", "You have attempted to create more buckets than allowed")
            if bucket.name in known:
                code = own_bucket_code if known[bucket.name] == bucket.owner else "BucketAlreadyExists"
                if code:
                    raise ApiError(code, "The requested bucket name is not available")
                return
            values = (bucket.name, bucket.owner, bucket.acl, bucket.created.isoformat(), bucket.takes_acls)
            rows.execute("INSERT INTO bucket VALUES (?, ?, ?, ?, ?)", values)

    def remove_bucket(self, name: str) -> None:
        with self._database.transaction() as rows:
            if rows.execute("SELECT 1 FROM object WHERE bucket = ? LIMIT 1", (name,)).fetchone():
                raise ApiError("BucketNotEmpty", "The bucket you tried to delete is not empty")
            rows.execute("DELETE FROM bucket WHERE name = ?", (name,))

    # objects

    def receive(self, chunks: Iterable[bytes]) -> ReceivedFile:
        """Write the bytes to a new file as they come; it is removed if their source fails."""
        path = self._files / secrets.token_hex(16)
        md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
        try:
            with path.open("xb") as file:
                for chunk in chunks:
                    file.write(chunk)
                    md5.update(chunk)
                    sha256.update(chunk)
                    size += len(chunk)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return ReceivedFile(path, size, md5.hexdigest(), sha256.hexdigest())

    def discard(self, upload: ReceivedFile) -> None:
        upload.path.unlink(missing_ok=True)

    def put(self, stored: S3Object) -> None:
        """Name an upload, in place of an object of that name. Its bucket may be gone by now."""
        values = (
            stored.bucket,
            stored.key,
            stored.path.name,
            stored.size,
            stored.etag,
            stored.acl,
            stored.content_type,
            json.dumps(dict(stored.metadata)),
            stored.modified.isoformat(),
        )
        with self._database.transaction() as rows:
            if not rows.execute("SELECT 1 FROM bucket WHERE name = ?", (stored.bucket,)).fetchone():
                raise ApiError("NoSuchBucket", "The specified bucket does not exist")
            old = self._find(rows, stored.bucket, stored.key)
            rows.execute("INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        if old:
            old.path.unlink(missing_ok=True)

    def find(self, bucket: str, key: str) -> S3Object | None:
        with self._database.transaction() as rows:
            return self._find(rows, bucket, key)

    def open(self, bucket: str, key: str) -> tuple[S3Object, BufferedReader]:
        """Open an object. Its bytes stay readable even if it is then replaced or deleted."""
        with self._database.transaction() as rows:
            stored = self._find(rows, bucket, key)
            if stored is None:
                raise ApiError("NoSuchKey", "The specified key does not exist")
            return stored, stored.path.open("rb")

    def objects(self, bucket: str) -> tuple[S3Object, ...]:
        """List a bucket in the order of the keys' bytes, as S3 does."""
        with self._database.transaction() as rows:
            found = rows.execute("SELECT * FROM object WHERE bucket = ? ORDER BY key", (bucket,)).fetchall()
        return tuple(map(self._stored, found))

    def remove(self, bucket: str, key: str) -> None:
        with self._database.transaction() as rows:
            old = self._find(rows, bucket, key)
            rows.execute("DELETE FROM object WHERE bucket = ? AND key = ?", (bucket, key))
        if old:
            old.path.unlink(missing_ok=True)

    def _find(self, rows: sqlite3.Connection, bucket: str, key: str) -> S3Object | None:
        row = rows.execute("SELECT * FROM object WHERE bucket = ? AND key = ?", (bucket, key)).fetchone()
        return None if row is None else self._stored(row)

    def _stored(self, row: sqlite3.Row) -> S3Object:
        return S3Object(
            bucket=row["bucket"],
            key=row["key"],
            path=self._files / row["file"],
            size=row["size"],
            etag=row["etag"],
            acl=row["acl"],
            content_type=row["content_type"],
            metadata=json.loads(row["notes"]),
            modified=datetime.fromisoformat(row["modified"]),
        )


def _bucket(row: sqlite3.Row) -> Bucket:
    created = datetime.fromisoformat(row["created"])
    return Bucket(row["name"], row["owner"], row["acl"], created, takes_acls=bool(row["takes_acls"]))
