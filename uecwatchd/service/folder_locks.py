"""Locks of the spool folders, against a second service on the same files.

A lock of the kernel keeps out the processes of this host. Where other hosts may be, there is a mark, too; and
in a folder that the hosts of a fleet share there is only that, with the name of the share in their ledger.
"""

import os
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from uecwatchd.errors import Halted, UecError
from uecwatchd.intake.spool import output_files
from uecwatchd.intake.spool.folder_lease import FolderLease, enter, host_word, leave
from uecwatchd.intake.spool.host_mark import HostMark, is_marked
from uecwatchd.intake.spool.output_files import SPOOL_LOCK
from uecwatchd.intake.watch import identity
from uecwatchd.ledger.sharing import NothingShared, Share, Sharing
from uecwatchd.service.conditions import Conditions
from uecwatchd.service.folder_marks import FolderMarks
from uecwatchd.system import lockfile
from uecwatchd.system.mounts import file_system_of, is_shared


@dataclass(frozen=True, slots=True)
class _FolderLock:
    identity: tuple[int, int] | None  #: device and inode of the folder
    descriptor: int | None  #: open lock file; None if there is none
    is_shared: bool = False

    def is_in_place(self, folder: Path, now: tuple[int, int] | None) -> bool:
        """Tell if it still locks the folder, which `now` identifies."""
        if self.is_shared or self.descriptor is None:
            return self.is_shared and self.identity == now
        return lockfile.is_in_place(folder, self.descriptor, SPOOL_LOCK) and self.identity == now


@dataclass(frozen=True, slots=True)
class LockHolder:
    """This host, as the holder of locks, and the home of its ledger.

    `sharing` knows the folders that several hosts share. `check_lease` raises when such a folder may be used
    no more.
    """

    host: str
    home: str
    sharing: Sharing = field(default_factory=NothingShared)
    check_lease: Callable[[], None] = lambda: None

    def mark_of(self, folder: Path, share: str) -> HostMark:
        """Return the mark for a folder."""
        return HostMark(share or self.home, self.host, str(folder))


def _describe_unlocked(folder: Path) -> str:
    text = f"{folder}: it is not locked against a second uecwatchd: cannot write {SPOOL_LOCK.name} there"
    if os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        return text  # a file of another user is in its place
    return f"{text}, and no result files either. To see what is in the way: sudo uecwatchd check"


class FolderLocks:
    """Locks that this process has, by folder. Belongs to the service's loop."""

    def __init__(self, holder: LockHolder, conditions: Conditions) -> None:
        self._holder = holder
        self._conditions = conditions
        self._marks = FolderMarks(conditions)
        self._locks: dict[Path, _FolderLock] = {}

    def acquire(self, folder: Path) -> None:
        """Lock the folder that is there now: it may have been replaced since the last scan.

        Raises LockTaken when another service has it, and Halted when two names lead to one folder, or if a
        service on another host runs as another user.
        """
        now = identity(folder)
        if before := self._locks.get(folder):
            if before.is_in_place(folder, now) and not self._marks.is_lost(folder):
                return
            self.release(folder)
        if same := next((other for other, lock in self._locks.items() if lock.identity == now), None):
            what, hint = f"{folder} and {same} are the same folder", "Take one of them out of spool.folders."
            raise Halted(what, "this has changed since the configuration was read", hint)
        share = self._holder.sharing.share_of(folder)
        if share.name:
            self._enter_share(folder, now, share)
        else:
            self._lock(folder, now)
        if share.name or self._locks[folder].descriptor is not None:
            output_files.sweep(folder)

    def _enter_share(self, folder: Path, now: tuple[int, int] | None, share: Share) -> None:
        """Mark a folder as one of several hosts. The mark stays, so that no other folder is taken for it."""
        mark = self._holder.mark_of(folder, share.name)
        self._marks.place(folder, mark, is_known=share.is_marked, is_lasting=True)
        if not share.is_marked:
            self._holder.sharing.note_marked(folder)
        self._locks[folder] = _FolderLock(now, None, is_shared=True)
        enter(folder, FolderLease(host_word(self._holder.host), partial(self._check_shared, folder)))

    def _lock(self, folder: Path, now: tuple[int, int] | None) -> None:
        """Lock a folder of this host alone, and mark it if other hosts may have it, too."""
        descriptor = output_files.lock_spool(folder)
        if descriptor is not None and (is_shared(file_system_of(folder)) or is_marked(folder)):
            try:
                self._marks.place(folder, self._holder.mark_of(folder, ""))
            except BaseException:
                lockfile.release(descriptor)
                raise
            enter(folder, FolderLease(host_word(self._holder.host), partial(self._marks.check, folder)))
        self._locks[folder] = _FolderLock(now, descriptor)
        text = _describe_unlocked(folder) if descriptor is None else ""
        self._conditions.set(("lock", str(folder)), text)

    def _check_shared(self, folder: Path) -> None:
        self._marks.check(folder)
        self._holder.check_lease()

    def acquire_at_start(self, folders: Iterable[Path]) -> None:
        """Lock the folders that can be locked. Raises LockTaken when another service has one of them."""
        for folder in folders:
            try:
                self.acquire(folder)
            except lockfile.LockTaken:
                raise
            except UecError:
                continue  # it is reported, and tried again, by each scan

    def release(self, folder: Path) -> None:
        lock = self._locks.pop(folder)
        leave(folder)
        with suppress(UecError):  # then the mark ends by itself
            self._marks.release(folder)
        if lock.descriptor is not None:
            lockfile.release(lock.descriptor)

    def release_others(self, folders: Collection[Path] = ()) -> None:
        """Unlock all folders but these."""
        for folder in self._locks.keys() - set(folders):
            self.release(folder)
