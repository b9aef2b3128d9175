"""The rows of the other hosts in PostgreSQL; see `other_hosts` for the operations."""

from collections.abc import Mapping

from uecwatchd.ledger.history import AttemptRecord, join_runs
from uecwatchd.ledger.other_hosts import HostCount
from uecwatchd.ledger.postgres_migrations import OWN_HOSTS
from uecwatchd.ledger.postgres_store import PostgresStore
from uecwatchd.ledger.records import ProgressRecord, Request, SetRecord
from uecwatchd.ledger.rows import SELECT_SETS, progress_from, request_from, select_sets_of, set_from
from uecwatchd.ledger.sql_history import RUNS_OF_AN_ATTEMPT, attempt_from
from uecwatchd.ledger.sql_store import TableRow
from uecwatchd.ledger.sql_versions import version_from
from uecwatchd.ledger.versions import VersionRecord
from uecwatchd.types import SetId

ELSEWHERE = f"host <> ALL ({OWN_HOSTS})"
# The index of sets by state and time answers each half.
KEYS_OF_LATEST = " UNION ALL ".join(
    f"(SELECT folder, name FROM sets WHERE {ELSEWHERE} AND {which} ORDER BY since DESC LIMIT ?1)"  # noqa: S608 (constants)
    for which in (
        "state IN ('waiting', 'queued', 'working', 'rejected', 'deferred', 'halted')",
        "state IN ('done', 'withdrawn') AND since > ?2",
    )
)


class PostgresOtherHosts:
    """The rows of the other hosts in an open database."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    def sets(self, *, host: str | None = None, name: str | None = None) -> tuple[SetRecord, ...]:
        chosen = "(?1 IS NULL OR host = ?1) AND (?2 IS NULL OR name = ?2)"
        query = f"{SELECT_SETS} WHERE {ELSEWHERE} AND {chosen}"
        return self._store.records_of_fleet(set_from, query, host, name)

    def count(self) -> Mapping[HostCount, int]:
        rows = self._store.rows_of_fleet(
            f"SELECT host, state, count(*) AS number FROM sets WHERE {ELSEWHERE} GROUP BY host, state"  # noqa: S608 (constant)
        )
        return {HostCount(row["host"], row["state"]): row["number"] for row in rows}

    def latest(self, most: int, *, ended_after: float) -> tuple[SetRecord, ...]:
        query = select_sets_of(KEYS_OF_LATEST)
        return self._store.records_of_fleet(set_from, query, most, ended_after)

    def holds(self) -> Mapping[SetId, float]:
        rows = self._store.records_of_fleet(dict, f"SELECT * FROM holds WHERE {ELSEWHERE}")  # noqa: S608 (constant)
        return {_set_of(row): row["since"] for row in rows}

    def cloud_holds(self) -> Mapping[SetId, Mapping[str, float]]:
        found: dict[SetId, dict[str, float]] = {}
        query = f"SELECT * FROM cloud_holds WHERE {ELSEWHERE} ORDER BY cloud"  # noqa: S608 (constant)
        for row in self._store.records_of_fleet(dict, query):
            found.setdefault(_set_of(row), {})[row["cloud"]] = row["since"]
        return found

    def requests(self) -> tuple[Request, ...]:
        query = f"SELECT * FROM requests WHERE {ELSEWHERE}"  # noqa: S608 (constant)
        found = self._store.records_of_fleet(request_from, query)
        return tuple(sorted(found, key=lambda one: one.number))

    def progress(self) -> Mapping[SetId, ProgressRecord]:
        query = f"SELECT * FROM advances WHERE {ELSEWHERE}"  # noqa: S608 (constant)
        return {one.set_id: one for one in self._store.records_of_fleet(progress_from, query)}

    def attempts(self) -> tuple[AttemptRecord, ...]:
        query = f"SELECT * FROM attempts WHERE {ELSEWHERE} ORDER BY number"  # noqa: S608 (constant)
        # The runs of one set are still in their order.
        joined = join_runs(self._store.records_of_fleet(attempt_from, query))
        return tuple(sorted(joined, key=lambda one: one.ended))

    def recent(self, most: int) -> tuple[AttemptRecord, ...]:
        query = f"SELECT * FROM attempts WHERE {ELSEWHERE} ORDER BY number DESC LIMIT ?"  # noqa: S608 (constant)
        runs = self._store.records_of_fleet(attempt_from, query, most * RUNS_OF_AN_ATTEMPT)
        return tuple(sorted(join_runs(reversed(runs)), key=lambda one: -one.ended)[:most])

    def versions(self) -> tuple[VersionRecord, ...]:
        query = f"SELECT * FROM versions WHERE {ELSEWHERE} ORDER BY published, image_id DESC"  # noqa: S608 (constant)
        return self._store.records_of_fleet(version_from, query)


def _set_of(row: TableRow) -> SetId:
    return SetId(row["folder"], row["name"])
