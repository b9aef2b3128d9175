"""A store of the ledger, in any database: reading and writing of its tables in transactions.

Statements are in the SQL of SQLite, with `?` or `?1` for values. A store of another database translates the
few words that are different there, so that each operation is written once.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from uecwatchd.ledger.changes import RowChange

Record = TypeVar("Record")


class TableRow(Protocol):
    """A row, by the names of its columns."""

    def keys(self) -> Iterable[str]: ...

    def __getitem__(self, name: str, /) -> Any: ...


class SqlTransaction(Protocol):
    """A transaction under way. Nothing is read in it."""

    def execute(self, statement: str, values: Sequence[Any] = ..., /) -> object:
        """Execute a statement, now or at the end of the transaction."""

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> object:
        """Execute a statement once with each of these values."""


class SqlStore(Protocol):
    """An open database. Usable from several threads; each call is one transaction.

    All raise what operations of the ledger raise.
    """

    @property
    def host(self) -> str:
        """Name of this host among those that share the database; empty if none does."""

    @property
    def shares(self) -> Collection[str]:
        """Folders that this host shares with others; their rows are those of all of them."""

    def close(self) -> None:
        """End the use, after what waits for a transaction was written."""

    def check(self) -> None:
        """Raise the first LedgerDamaged of any thread again."""

    def read(self, statement: str, *values: object) -> Sequence[TableRow]:
        """Return the rows of a query."""

    def records(
        self, convert: Callable[[TableRow], Record], statement: str, *values: object
    ) -> tuple[Record, ...]:
        """Return the rows of a query as records. A row that cannot be converted is an error of the store."""

    def records_of_fleet(
        self, convert: Callable[[TableRow], Record], statement: str, *values: object
    ) -> tuple[Record, ...]:
        """Return the rows of all hosts as records, in tables with rows for each.

        The folder of another host is there as HOST:FOLDER.
        """

    def write(self, moment: str, statement: str, *values: object, lasting: bool = True) -> None:
        """Execute one statement; `moment` names it as a failpoint."""

    def writing(self, moment: str, *, lasting: bool = True) -> AbstractContextManager[SqlTransaction]:
        """Write in one transaction; with `lasting`, it also survives a power cut.

        Other writes are on the disk before any later lasting write.
        """

    def put(self, moment: str, *changes: RowChange, lasting: bool = True) -> None:
        """Write changes in one transaction, in place of waiting ones of the same things."""

    def put_later(self, change: RowChange) -> None:
        """Write with the next transaction, whatever that is for; a crash before it loses the change."""

    def flush(self, table: str = "") -> None:
        """Write all waiting changes if there is one of this table, or of any if there is no name."""

    def forget_for_good(self) -> None:
        """Remove what was deleted from the disk as well, as far as the database can."""
