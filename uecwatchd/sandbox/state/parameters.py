"""Parameters of the parameter store: parameters.sqlite."""

from dataclasses import astuple, dataclass
from pathlib import Path

from uecwatchd.sandbox.state.database import Database

VERSION = 1
SCHEMA = """
CREATE TABLE parameter (
    name TEXT PRIMARY KEY, value TEXT NOT NULL, data_type TEXT NOT NULL, version INTEGER NOT NULL
)
"""


@dataclass(frozen=True, slots=True)
class StoredParameter:
    """A named value. `data_type` is `text` or `aws:ec2:image`; `version` counts from 1."""

    name: str
    value: str
    data_type: str
    version: int


class ParameterStore:
    """Parameters in one database."""

    def __init__(self, folder: Path) -> None:
        self._database = Database(folder / "parameters.sqlite", schema=SCHEMA, version=VERSION)

    def close(self) -> None:
        self._database.close()

    def find(self, name: str) -> StoredParameter | None:
        with self._database.transaction() as rows:
            row = rows.execute("SELECT * FROM parameter WHERE name = ?", (name,)).fetchone()
            return StoredParameter(*row) if row else None

    def put(self, parameter: StoredParameter) -> None:
        with self._database.transaction() as rows:
            rows.execute("INSERT OR REPLACE INTO parameter VALUES (?, ?, ?, ?)", astuple(parameter))
