"""Records of all sets, read from the ledger once and kept in step with it.

The ledger remains the truth. But if a full disk keeps a record out of it, the state of the set and the time
of its next retry must hold all the same, or the set would be tried again at each pass of the loop.
"""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from uecwatchd.errors import UecError
from uecwatchd.ledger.api import Ledger
from uecwatchd.ledger.records import SetRecord
from uecwatchd.system.internal_errors import as_internal_error
from uecwatchd.types import SetId


class SetStates:
    """Write-behind cache of the ledger's records of sets. Belongs to the service's loop.

    Workers write to the ledger themselves, and return the record to the loop.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        # All of them: each scan decides over all sets of its folder, far more often than one changes.
        self._records = {record.id: record for record in ledger.sets()}
        self._unwritten: set[SetId] = set()
        self._memory_only: set[SetId] = set()

    def get(self, key: SetId) -> SetRecord | None:
        return self._records.get(key)

    def records(self) -> tuple[SetRecord, ...]:
        return tuple(self._records.values())

    def of_folder(self, folder: Path) -> Mapping[str, SetRecord]:
        """Return the records of one folder by the names of the sets."""
        return {name: record for (place, name), record in self._records.items() if place == str(folder)}

    def refresh(self, folder: Path, *, but: Collection[SetId] = ()) -> None:
        """Read the records of a folder again, except of some sets and of what is not written yet.

        Raises what the ledger raises.
        """
        fresh = {record.id: record for record in self._ledger.sets(folder)}
        self._memory_only.difference_update(fresh)
        self.forget(folder, but=but)
        self._records = {**fresh, **self._records}

    def forget(self, folder: Path, *, but: Collection[SetId] = ()) -> None:
        """Drop the records of a folder from memory, except of some sets and of what is not written yet."""
        kept = {*but, *self._unwritten, *self._memory_only}
        gone = [key for key in self._records if key.folder == str(folder) and key not in kept]
        for key in gone:
            del self._records[key]

    def forget_set(self, key: SetId) -> None:
        """Drop the record of a set from memory."""
        self._records.pop(key, None)

    def is_written(self, key: SetId) -> bool:
        """Tell if the ledger has the record of a set as it is here."""
        return key not in self._unwritten

    def put(self, record: SetRecord) -> SetRecord:
        """Keep a record, and write it now or, if that fails, at a later `catch_up`."""
        key = record.id
        self._records[key] = record
        self._memory_only.discard(key)
        self._unwritten.add(key)
        self._write(key)
        return record

    def take(self, record: SetRecord) -> None:
        """Keep a record that a worker has written; write it if the worker could not."""
        if self._ledger.has_written(record):
            self._records[record.id] = record
            self._memory_only.discard(record.id)
            self._unwritten.discard(record.id)
        else:
            self.put(record)

    def put_all(self, records: Iterable[SetRecord]) -> None:
        """Keep several records, and write them in one transaction; one by one at `catch_up` if that fails."""
        changed = {record.id: record for record in records}
        self._records.update(changed)
        self._memory_only.difference_update(changed)
        with suppress(UecError):
            self._ledger.put_sets(changed.values())
            self._unwritten.difference_update(changed)
            return
        self._unwritten.update(changed)

    def put_in_memory(self, record: SetRecord) -> None:
        """Keep a record of a state that is most often over before it is worth a write."""
        self._records[record.id] = record
        self._memory_only.add(record.id)

    def write_older(self, than: float, *, among: Collection[SetId] | None = None) -> None:
        """Write the records in memory whose state began at this time or before, of all sets or of some.

        The owner of a name must outlast this process, even while a long copy is running.
        """
        keys = self._memory_only if among is None else self._memory_only.intersection(among)
        if late := [self._records[key] for key in keys if self._records[key].since <= than]:
            self.put_all(late)

    def put_owners(
        self, folder: Path, owners: Mapping[str, int], proven: Collection[str]
    ) -> Mapping[str, SetRecord]:
        """Note owners of sets that were not known before; return all records of the folder."""
        for name, owner in owners.items():
            key = SetId(str(folder), name)
            self._records[key] = replace(self._records[key], owner=owner)
        try:
            self._ledger.put_owners(folder, owners, proven=proven)
        except UecError:
            self._unwritten |= {SetId(str(folder), name) for name in owners}
        return self.of_folder(folder)

    def drop(self, record: SetRecord) -> None:
        """Forget a set. Raises what the ledger raises; the record is then still there."""
        self._ledger.drop_set(record.id)
        self._records.pop(record.id, None)
        self._memory_only.discard(record.id)
        self._unwritten.discard(record.id)

    def catch_up(self) -> None:
        """Write what could not be written before."""
        for key in tuple(self._unwritten):
            self._write(key)

    def _write(self, key: SetId) -> None:
        record = self._records[key]
        try:
            with as_internal_error("the ledger"):
                if self._ledger.set(record.id) != record:
                    self._ledger.put_set(record)
        except UecError:
            return  # trouble of the state directory is reported where a set meets it
        self._unwritten.discard(key)
