"""Multipart uploads that are still going on: what they will be called, and the pieces they have so far."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from uecwatchd.sandbox.errors import Refused
from uecwatchd.sandbox.state.database import Database

SCHEMA = """
CREATE TABLE multipart (
    id           TEXT PRIMARY KEY,
    bucket       TEXT NOT NULL REFERENCES bucket (name) ON DELETE CASCADE,
    key          TEXT NOT NULL,
    acl          TEXT NOT NULL,
    content_type TEXT NOT NULL,
    notes        TEXT NOT NULL,
    started      TEXT NOT NULL
);
CREATE TABLE piece (
    multipart TEXT NOT NULL REFERENCES multipart (id) ON DELETE CASCADE,
    number    INTEGER NOT NULL,
    file      TEXT NOT NULL,
    size      INTEGER NOT NULL,
    md5       TEXT NOT NULL,
    PRIMARY KEY (multipart, number)
)
"""


@dataclass(frozen=True, slots=True)
class Multipart:
    """What the object will have once it is whole."""

    id: str
    bucket: str
    key: str
    acl: str
    content_type: str
    notes: Mapping[str, str]
    started: datetime


@dataclass(frozen=True, slots=True)
class Piece:
    number: int  # from 1; there may be gaps
    path: Path
    size: int
    md5: str


class Unfinished:
    def __init__(self, database: Database, files: Path) -> None:
        self._database = database
        self._files = files

    def begin(self, multipart: Multipart) -> None:
        values = (
            *(multipart.id, multipart.bucket, multipart.key, multipart.acl, multipart.content_type),
            *(json.dumps(dict(multipart.notes)), multipart.started.isoformat()),
        )
        with self._database.transaction() as rows:
            rows.execute("INSERT INTO multipart VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def find(self, multipart_id: str, *, bucket: str, key: str) -> Multipart:
        """Raises `Refused` (NoSuchUpload)."""
        query = "SELECT * FROM multipart WHERE id = ? AND bucket = ? AND key = ?"
        with self._database.transaction() as rows:
            row = rows.execute(query, (multipart_id, bucket, key)).fetchone()
        if row is None:
            raise Refused("NoSuchUpload", "The specified upload does not exist. It may be over.")
        return _multipart(row)

    def in_bucket(self, bucket: str) -> tuple[Multipart, ...]:
        query = "SELECT * FROM multipart WHERE bucket = ? ORDER BY key, started"
        with self._database.transaction() as rows:
            return tuple(map(_multipart, rows.execute(query, (bucket,))))

    def add(self, multipart_id: str, piece: Piece) -> None:
        """In place of one of the same number. Raises `Refused` if the upload is over meanwhile."""
        old = [one.path for one in self.pieces(multipart_id) if one.number == piece.number]
        values = (multipart_id, piece.number, piece.path.name, piece.size, piece.md5)
        try:
            with self._database.transaction() as rows:
                rows.execute("INSERT OR REPLACE INTO piece VALUES (?, ?, ?, ?, ?)", values)
        except sqlite3.IntegrityError as error:
            raise Refused("NoSuchUpload", "The specified upload is over") from error
        for path in old:
            path.unlink(missing_ok=True)

    def pieces(self, multipart_id: str) -> tuple[Piece, ...]:
        """In the order of their numbers."""
        query = "SELECT * FROM piece WHERE multipart = ? ORDER BY number"
        with self._database.transaction() as rows:
            found = rows.execute(query, (multipart_id,)).fetchall()
        return tuple(
            Piece(row["number"], self._files / row["file"], row["size"], row["md5"]) for row in found
        )

    def drop(self, multipart_id: str) -> None:
        pieces = self.pieces(multipart_id)
        with self._database.transaction() as rows:
            rows.execute("DELETE FROM multipart WHERE id = ?", (multipart_id,))
        for piece in pieces:
            piece.path.unlink(missing_ok=True)


def _multipart(row: sqlite3.Row) -> Multipart:
    return Multipart(
        *(row["id"], row["bucket"], row["key"], row["acl"], row["content_type"]),
        json.loads(row["notes"]),
        datetime.fromisoformat(row["started"]),
    )
