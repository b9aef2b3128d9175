"""The roll of all sets as the service calls it: the ledger's records, read once and kept in step.

The ledger stays the truth. But where a full disk keeps a record out of it, the record's class and the time of
its next attempt must hold all the same, or the set would be tried again at every turn of the loop.
"""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from uecwatchd.errors import UecError
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.sqlite import Ledger
from uecwatchd.system.unforeseen import in_words
from uecwatchd.types import SetId


class Roll:
    """Belongs to the service's loop; workers write to the ledger themselves and hand in what came of it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._records = {record.id: record for record in ledger.sets()}
        self._unwritten: set[SetId] = set()
        self._remembered: set[SetId] = set()

    def get(self, key: SetId) -> SetRecord | None:
        return self._records.get(key)

    def records(self) -> tuple[SetRecord, ...]:
        return tuple(self._records.values())

    def of_folder(self, folder: Path) -> Mapping[str, SetRecord]:
        return {name: record for (place, name), record in self._records.items() if place == str(folder)}

    def put(self, record: SetRecord) -> SetRecord:
        """Remember a record, and write it down now or, if that cannot be done, at a later `catch_up`."""
        key = record.id
        self._records[key] = record
        self._remembered.discard(key)
        self._unwritten.add(key)
        self._write(key)
        return record

    def put_all(self, records: Iterable[SetRecord]) -> None:
        """Remember several, and write them down in one go; each by itself where that cannot be done."""
        found = {record.id: record for record in records}
        self._records.update(found)
        self._remembered.difference_update(found)
        with suppress(UecError):
            self._ledger.put_sets(found.values())
            self._unwritten.difference_update(found)
            return
        self._unwritten.update(found)

    def remember(self, record: SetRecord) -> None:
        """Remember what is most often over before it is worth writing down."""
        self._records[record.id] = record
        self._remembered.add(record.id)

    def keep(self, *, until: float, among: Collection[SetId] | None = None) -> None:
        """Write down what was only remembered, of all sets or of some, since a time or longer.

        Whose a name is has to outlast this process, as a long copy may.
        """
        keys = self._remembered if among is None else self._remembered.intersection(among)
        if late := [self._records[key] for key in keys if self._records[key].since <= until]:
            self.put_all(late)

    def own(
        self, folder: Path, owners: Mapping[str, int], proven: Collection[str]
    ) -> Mapping[str, SetRecord]:
        """Note whose sets of a folder are, which was not known before; the records of all that are there."""
        for name, owner in owners.items():
            key = SetId(str(folder), name)
            self._records[key] = replace(self._records[key], owner=owner)
        try:
            self._ledger.put_owners(folder, owners, proven=proven)
        except UecError:
            self._unwritten |= {SetId(str(folder), name) for name in owners}
        return self.of_folder(folder)

    def drop(self, record: SetRecord) -> None:
        """Raises what the ledger raises; the record is then still on the roll."""
        self._ledger.drop_set(record)
        self._records.pop(record.id, None)
        self._remembered.discard(record.id)
        self._unwritten.discard(record.id)

    def catch_up(self) -> None:
        """Write down what could not be written before."""
        for key in tuple(self._unwritten):
            self._write(key)

    def _write(self, key: SetId) -> None:
        record = self._records[key]
        try:
            with in_words("the ledger"):
                if self._ledger.set(Path(record.folder), record.name) != record:
                    self._ledger.put_set(record)
        except UecError:
            return  # the state directory's own trouble is told where a set meets it
        self._unwritten.discard(key)
