"""Marks of images that came later than the registry: deprecations, and references to them.

They have a file of their own, image_marks.sqlite, so that folders of older versions can still be used.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from uecwatchd.sandbox.state.database import Database

VERSION = 1
SCHEMA = """
CREATE TABLE deprecation (image TEXT PRIMARY KEY, at TEXT NOT NULL);
CREATE TABLE reference (
    image TEXT NOT NULL, type TEXT NOT NULL, arn TEXT NOT NULL, PRIMARY KEY (image, arn)
)
"""


@dataclass(frozen=True, slots=True)
class ImageReference:
    """Something of the account that refers to an image, such as a launch template."""

    image: str
    type: str
    arn: str


class ImageMarks:
    """Deprecations and references in one database."""

    def __init__(self, folder: Path) -> None:
        self._database = Database(folder / "image_marks.sqlite", schema=SCHEMA, version=VERSION)

    def close(self) -> None:
        self._database.close()

    def deprecations(self) -> Mapping[str, str]:
        """Return when each image is deprecated, in ISO 8601, by its id."""
        with self._database.transaction() as rows:
            return {row["image"]: row["at"] for row in rows.execute("SELECT * FROM deprecation")}

    def deprecate(self, image_id: str, at: str) -> None:
        with self._database.transaction() as rows:
            rows.execute("INSERT OR REPLACE INTO deprecation VALUES (?, ?)", (image_id, at))

    def restore(self, image_id: str) -> None:
        with self._database.transaction() as rows:
            rows.execute("DELETE FROM deprecation WHERE image = ?", (image_id,))

    def refer(self, reference: ImageReference) -> None:
        """Add a reference, as a launch template of the account would."""
        with self._database.transaction() as rows:
            values = (reference.image, reference.type, reference.arn)
            rows.execute("INSERT OR REPLACE INTO reference VALUES (?, ?, ?)", values)

    def references(self, image_ids: Iterable[str]) -> tuple[ImageReference, ...]:
        with self._database.transaction() as rows:
            found = rows.execute("SELECT image, type, arn FROM reference ORDER BY image, arn").fetchall()
        wanted = set(image_ids)
        return tuple(ImageReference(*row) for row in found if row["image"] in wanted)
