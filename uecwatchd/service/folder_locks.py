"""Locks of the spool folders, against a second service on the same files."""

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from uecwatchd.errors import Halted, UecError
from uecwatchd.intake.spool import output_files
from uecwatchd.intake.spool.output_files import SPOOL_LOCK
from uecwatchd.intake.watch import identity
from uecwatchd.service.conditions import Conditions
from uecwatchd.system import lockfile


@dataclass(frozen=True, slots=True)
class _FolderLock:
    identity: tuple[int, int] | None  #: device and inode of the folder
    descriptor: int | None  #: open lock file; None if none can be written there


def _describe_unlocked(folder: Path) -> str:
    text = f"{folder}: it is not locked against a second uecwatchd: cannot write {SPOOL_LOCK.name} there"
    if os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        return text  # a file of another user is in its place
    return f"{text}, and no result files either. To see what is in the way: sudo uecwatchd check"


class FolderLocks:
    """Locks that this process has, by folder. Belongs to the service's loop."""

    def __init__(self) -> None:
        self._locks: dict[Path, _FolderLock] = {}

    def acquire(self, folder: Path, conditions: Conditions) -> None:
        """Lock the folder that is there now: it may have been replaced since the last scan.

        Raises LockTaken when another service has it, and Halted when two names lead to one folder.
        """
        now = identity(folder)
        if (before := self._locks.get(folder)) and before.descriptor is not None:
            in_place = lockfile.is_in_place(folder, before.descriptor, SPOOL_LOCK)
            if in_place and before.identity == now:
                return
        if before:
            self.release(folder)
        if same := next((other for other, lock in self._locks.items() if lock.identity == now), None):
            what, hint = f"{folder} and {same} are the same folder", "Take one of them out of spool.folders."
            raise Halted(what, "this has changed since the configuration was read", hint)
        descriptor = output_files.lock_spool(folder)
        self._locks[folder] = _FolderLock(now, descriptor)
        conditions.set(("lock", str(folder)), _describe_unlocked(folder) if descriptor is None else "")
        if descriptor is not None:
            output_files.sweep(folder)

    def acquire_at_start(self, folders: Iterable[Path], conditions: Conditions) -> None:
        """Lock the folders that can be locked. Raises LockTaken when another service has one of them."""
        for folder in folders:
            try:
                self.acquire(folder, conditions)
            except lockfile.LockTaken:
                raise
            except UecError:
                continue  # it is reported, and tried again, by each scan

    def release(self, folder: Path) -> None:
        lock = self._locks.pop(folder)
        if lock.descriptor is not None:
            lockfile.release(lock.descriptor)

    def release_others(self, folders: Collection[Path] = ()) -> None:
        """Unlock all folders but these."""
        for folder in self._locks.keys() - set(folders):
            self.release(folder)
