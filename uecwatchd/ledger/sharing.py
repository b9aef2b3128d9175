"""Folders that the hosts of a fleet share: one host scans such a folder, and all work on its sets.

The sets of a shared folder are one set of rows for all hosts. The host that scans it offers the due sets, and
each host takes those that it has a worker for, so that a set is worked on by one host at a time. What a dead
host has taken, or scanned, is free again when its session is over.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from uecwatchd.types import SetId


@dataclass(frozen=True, slots=True)
class Share:
    """A shared folder, as the ledger knows it."""

    name: str  #: same for all hosts with this ledger; empty for a folder that is not shared
    is_marked: bool = False  #: a host has put the mark of the share into it


@dataclass(frozen=True, slots=True)
class Offer:
    """A due set for any host. With `is_kept` it is only for the one that scans."""

    set_id: SetId
    stamp: str  #: of its files, as the scan has found them
    size: int  #: bytes that may still have to be sent
    is_kept: bool = False


class Sharing(Protocol):
    """The operations on shared folders, for any store. They raise what those of the ledger raise."""

    def share_of(self, folder: Path) -> Share:
        """Return a folder as a share.

        The rows of this host for it are those of the share from then on.
        """

    def note_marked(self, folder: Path) -> None:
        """Note that the mark of the share is in a folder."""

    def begin_scan(self, folder: Path, taken: Collection[SetId] = ()) -> frozenset[SetId] | None:
        """Become or stay the host that scans a folder, and take back what nobody has taken.

        `taken` are the sets at work here. Returns those that other hosts work on, or None if another host
        scans.
        """

    def leave(self, folder: Path) -> None:
        """Let another host scan a folder."""

    def offer(self, offers: Iterable[Offer]) -> None:
        """Offer sets of a folder that this host scans."""

    def take(self, set_id: SetId) -> bool:
        """Take a set that this host has offered; False if another one has it, or has had it."""

    def take_next(
        self, folders: Collection[Path], but: Collection[SetId] = (), taken: Collection[SetId] = ()
    ) -> Offer | None:
        """Take any set on offer in these folders, except some. `taken` are the sets at work here."""

    def release(self, set_id: SetId) -> None:
        """End the work on a set, after its record was written."""


class NothingShared:
    """The folders of a store that one host has for itself."""

    def share_of(self, folder: Path) -> Share:
        return Share("")

    def note_marked(self, folder: Path) -> None:
        """Do nothing: there is no share."""

    def begin_scan(self, folder: Path, taken: Collection[SetId] = ()) -> frozenset[SetId] | None:
        return frozenset()

    def leave(self, folder: Path) -> None:
        """Do nothing: there is no other host to scan it."""

    def offer(self, offers: Iterable[Offer]) -> None:
        """Do nothing: there is no other host to take them."""

    def take(self, set_id: SetId) -> bool:
        return True

    def take_next(
        self, folders: Collection[Path], but: Collection[SetId] = (), taken: Collection[SetId] = ()
    ) -> Offer | None:
        return None

    def release(self, set_id: SetId) -> None:
        """Do nothing: nobody waits for it."""
