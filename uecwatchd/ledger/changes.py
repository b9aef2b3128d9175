"""Changes of the ledger, at once or with the next transaction.

A change writes one thing, such as a set with its targets. What a transaction writes is known before it
begins, so a store can bring several changes to its database in one step, if their order makes no difference.
"""

import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

Statement = tuple[str, tuple[object, ...]]

# Changes that wait for a transaction. If the disk is full for hours, the oldest are given up.
MOST_WAITING = 1000
# Changes in one step: a database plans the whole step before it begins.
MOST_TOGETHER = 40
ONE_ROW = re.compile(r"INSERT(?: OR \w+)? INTO \w+ \([^)]*\) VALUES (\([?, ]*\))$")
TABLE = re.compile(r"(?:INSERT(?: OR \w+)? INTO|UPDATE|DELETE FROM) (\w+)")


@dataclass(frozen=True, slots=True)
class RowChange:
    """Statements about one thing, in any order: no two of them write the same row.

    `row` is the key of the thing in its table, None if it may be any row there. Of two changes of one thing
    the later one counts alone.
    """

    table: str
    row: tuple[object, ...] | None
    statements: tuple[Statement, ...]

    @property
    def key(self) -> tuple[str, tuple[object, ...]] | None:
        return None if self.row is None else (self.table, self.row)

    def meets(self, other: "RowChange") -> bool:
        """Tell if both may write the same row, so that their order counts."""
        is_same = self.row is None or other.row is None or self.row == other.row
        return self.table == other.table and is_same


def change_of(statement: str, values: Sequence[object]) -> RowChange:
    """Return the change by one statement, to any rows of its table."""
    found = TABLE.match(statement)
    assert found, statement  # noqa: S101 (all statements are our own)
    return RowChange(found[1], None, ((statement, tuple(values)),))


def joined(statements: Iterable[Statement]) -> tuple[Statement, ...]:
    """Return statements with one for all rows of a table that are only added, in the same order."""
    found: dict[str, list[tuple[object, ...]]] = {}
    for statement, values in statements:
        found.setdefault(statement, []).append(values)
    return tuple(one for statement, rows in found.items() for one in _joined(statement, rows))


def _joined(statement: str, rows: Sequence[tuple[object, ...]]) -> Iterator[Statement]:
    one_row = ONE_ROW.match(statement)
    if one_row is None or len(rows) == 1:
        yield from ((statement, values) for values in rows)
    else:
        others = f", {one_row[1]}" * (len(rows) - 1)
        yield f"{statement}{others}", tuple(value for values in rows for value in values)


def steps_of(changes: Iterable[RowChange]) -> tuple[tuple[Statement, ...], ...]:
    """Return the statements of changes in steps, within which their order makes no difference."""
    steps: list[list[RowChange]] = []
    for change in changes:
        last = steps[-1] if steps else None
        if last is None or len(last) >= MOST_TOGETHER or any(map(change.meets, last)):
            steps.append([change])
        else:
            last.append(change)
    return tuple(joined(one for change in step for one in change.statements) for step in steps)


class WaitingChanges:
    """Changes for the next transaction, whatever its purpose. Usable from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _changes
        self._changes: list[RowChange] = []

    def has(self, table: str) -> bool:
        """Tell if a change of this table waits; of any, if there is no name."""
        with self._lock:
            return any(table in ("", change.table) for change in self._changes)

    def add(self, change: RowChange) -> None:
        """Add a change in place of one of the same thing."""
        with self._lock:
            self._changes = [*without(self._changes, [change]), change][-MOST_WAITING:]

    @contextmanager
    def taken(self, changes: Sequence[RowChange] = ()) -> Iterator[tuple[RowChange, ...]]:
        """Take what waits, apart from what `changes` replace; all waits again if that fails.

        Only one thread at a time may do this, or older changes might come after newer ones.
        """
        with self._lock:
            taken, self._changes = self._changes, []
        try:
            yield tuple(without(taken, changes))
        except BaseException:
            with self._lock:
                self._changes = [*without(taken, self._changes), *self._changes][-MOST_WAITING:]
            raise


def without(changes: Iterable[RowChange], newer: Iterable[RowChange]) -> Iterator[RowChange]:
    """Yield the changes whose things have no newer change."""
    replaced = {change.key for change in newer} - {None}
    return (change for change in changes if change.key not in replaced)
