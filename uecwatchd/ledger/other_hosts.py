"""Reads of the rows of the other hosts with the same ledger, to show them to people.

No work depends on it. To change what belongs to another host, its rows are opened as its own; see `open`.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from uecwatchd.ledger.history import AttemptRecord
from uecwatchd.ledger.records import ProgressRecord, Request, SetRecord, State
from uecwatchd.ledger.versions import VersionRecord
from uecwatchd.types import SetId


class HostCount(NamedTuple):
    """Key of a number of sets: those of a host in one state."""

    host: str
    state: State


class OtherHosts(Protocol):
    """The operations on the rows of all hosts but this one, for any store.

    Each set has HOST:FOLDER as its folder. They raise what those of the ledger raise.
    """

    def sets(self, *, host: str | None = None, name: str | None = None) -> tuple[SetRecord, ...]:
        """Return all sets, or those of a host, or of a name, ordered by folder and name."""

    def count(self) -> Mapping[HostCount, int]:
        """Return the number of sets of each host in each state."""

    def latest(self, most: int, *, ended_after: float) -> tuple[SetRecord, ...]:
        """Return the sets still to be done, and those ended after a moment: the newest of both kinds.

        At most so many of both kinds.
        """

    def holds(self) -> Mapping[SetId, float]:
        """Return the sets on hold, each with the time of its hold in seconds of the epoch."""

    def cloud_holds(self) -> Mapping[SetId, Mapping[str, float]]:
        """Return the sets on hold for some clouds alone, each with these clouds and the times."""

    def requests(self) -> tuple[Request, ...]:
        """Return what has been asked for and is not done yet, in order."""

    def progress(self) -> Mapping[SetId, ProgressRecord]:
        """Return the progress of the work on each set that is under way."""

    def attempts(self) -> tuple[AttemptRecord, ...]:
        """Return the attempts at all sets, oldest first."""

    def recent(self, most: int) -> tuple[AttemptRecord, ...]:
        """Return the last attempts at all sets, newest first, at most so many."""

    def versions(self) -> tuple[VersionRecord, ...]:
        """Return the published images of all sets, ordered by set, the oldest of each first."""


class NoOtherHosts:
    """The other hosts of a ledger that one host has for itself."""

    def sets(self, *, host: str | None = None, name: str | None = None) -> tuple[SetRecord, ...]:
        return ()

    def count(self) -> Mapping[HostCount, int]:
        return {}

    def latest(self, most: int, *, ended_after: float) -> tuple[SetRecord, ...]:
        return ()

    def holds(self) -> Mapping[SetId, float]:
        return {}

    def cloud_holds(self) -> Mapping[SetId, Mapping[str, float]]:
        return {}

    def requests(self) -> tuple[Request, ...]:
        return ()

    def progress(self) -> Mapping[SetId, ProgressRecord]:
        return {}

    def attempts(self) -> tuple[AttemptRecord, ...]:
        return ()

    def recent(self, most: int) -> tuple[AttemptRecord, ...]:
        return ()

    def versions(self) -> tuple[VersionRecord, ...]:
        return ()
