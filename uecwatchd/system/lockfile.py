"""Lock files: flock(2) on a file in a folder, so that only one process works there.

The kernel ends a lock when the process ends that has it, also after a crash. `release` ends it earlier.

- `acquire` is for a folder of our own, such as the state directory.
- `acquire_in_shared_folder` is for a folder where other users may put files, such as a spool folder. They may
  create a file with the name of the lock file, or lock the file themselves to keep the service out.

The lock also works between hosts that share the folder over NFS.
"""

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from uecwatchd.errors import Deferred
from uecwatchd.system.text import printable

LOCKS = Path("/proc/locks")
# Enough of a command line to know which service it is.
COMMAND_CHARS = 120
RETRY_PAUSE_SECONDS = 0.05
# Users who may open the file may lock it.
LOCK_MODE = 0o600
# A file of another user in its place is removed, and may appear again at once.
TRIES = 5

release = os.close  # of the only descriptor: with it, the kernel ends the lock


class LockTaken(Deferred):
    """Another process has the lock of a folder."""


@dataclass(frozen=True, slots=True)
class LockFile:
    """The name of a lock file, and the words for a second process that wants the lock."""

    name: str
    occupied: str  #: follows the folder, as in `another uecwatchd is at work here`
    hint: str

    def occupied_by(self, folder: Path, holder: str) -> LockTaken:
        """Return the error for a folder whose lock `holder` has."""
        return LockTaken(f"{folder}: {self.occupied}", f"{holder} holds its lock", self.hint)


def acquire(folder: Path, file: LockFile, *, patience_seconds: float) -> int:
    """Lock a folder of our own; return the descriptor of its lock file, which names our process.

    Raises LockTaken when another process keeps the lock for longer than `patience_seconds`, and OSError.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    lock = os.open(folder / file.name, flags, LOCK_MODE)
    with ExitStack() as on_error:
        on_error.callback(os.close, lock)
        if not _lock_within(lock, patience_seconds):
            noted = os.pread(lock, 64, 0).strip()
            holder = _describe_holder(lock, noted=int(noted) if noted.isdigit() else None)
            raise file.occupied_by(folder, holder)
        with suppress(OSError):  # the disk is full: the lock holds without a name in it
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        on_error.pop_all()
    return lock


def acquire_in_shared_folder(folder: Path, descriptor: int, file: LockFile) -> int | None:
    """Lock a folder that other users may write to; return the descriptor of its lock file.

    `descriptor` is that of the folder. Returns None if there can be no lock: the folder is not writable, or
    the file in the lock's place is not ours and cannot be removed. Raises LockTaken when another process has
    the lock.
    """
    for _ in range(TRIES):
        with suppress(FileNotFoundError, FileExistsError):  # another process was faster: try again
            lock = _open_trusted(folder, descriptor, file)
            if lock is None:
                return None
            if not _lock_if_supported(lock):
                holder = _describe_holder(lock)
                os.close(lock)
                raise file.occupied_by(folder, holder)
            if is_in_place(folder, lock, file):
                return lock
            os.close(lock)
    return None


def is_locked(folder: Path, file: LockFile) -> bool:
    """Return True if a process has the lock of a folder of our own. Creates nothing."""
    try:
        lock = os.open(folder / file.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # its file system keeps no locks, and no daemon works without
        return False
    finally:
        os.close(lock)
    return False


def is_in_place(folder: Path, lock: int, file: LockFile) -> bool:
    """Return True if the file that we have locked is still in the folder under the lock's name."""
    with suppress(OSError):
        return os.path.samestat(os.lstat(folder / file.name), os.fstat(lock))
    return False


# --- locking ----------------------------------------------------------------------------------------------


def _lock_within(lock: int, patience_seconds: float) -> bool:
    """Lock an open file, or return False if that takes too long."""
    end = time.monotonic() + patience_seconds
    while not _lock_now(lock):
        if time.monotonic() >= end:
            return False
        time.sleep(RETRY_PAUSE_SECONDS)
    return True


def _lock_now(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_if_supported(lock: int) -> bool:
    """Lock an open file, or return False if another process has the lock.

    Returns True if its file system keeps no locks: then no process has any.
    The file is open for reading only, so that the disk can still be remounted read-only. NFS requires it to
    be open for writing.
    """
    try:
        return _lock_now(lock)
    except OSError as error:
        is_for_writing = error.errno == errno.EBADF and _reopen_for_writing(lock)
        return _lock_if_supported(lock) if is_for_writing else True


def _reopen_for_writing(lock: int) -> bool:
    """Open the lock file for writing, under the same number; return False if it was or cannot be."""
    if fcntl.fcntl(lock, fcntl.F_GETFL) & os.O_RDWR:
        return False
    try:
        writable = os.open(f"/proc/self/fd/{lock}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    os.dup2(writable, lock, inheritable=False)
    os.close(writable)
    return True


# --- the file of a shared folder --------------------------------------------------------------------------


def _open_trusted(folder: Path, descriptor: int, file: LockFile) -> int | None:
    """Open the lock file, or create it; return None if that is impossible.

    A file of another user is not opened. Raises FileNotFoundError and FileExistsError as the system does.
    """
    try:
        seen = os.open(file.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
    except FileNotFoundError:
        return _create(descriptor, file.name)
    try:
        status = os.fstat(seen)
        if _is_trusted(status, os.fstat(descriptor)):
            with suppress(OSError):  # it belongs to root, who has run the service here before
                return os.open(f"/proc/self/fd/{seen}", os.O_RDONLY | os.O_CLOEXEC)
            if process := _find_holder(status):
                raise file.occupied_by(folder, _describe(process))
    finally:
        os.close(seen)
    return _create(descriptor, file.name) if _remove(descriptor, file.name, status) else None


def _create(folder: int, name: str) -> int | None:
    flags = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, LOCK_MODE, dir_fd=folder)
    except FileExistsError:
        raise
    except OSError:  # a full or read-only disk, or a closed folder: later steps report it
        return None


def _is_trusted(status: os.stat_result, folder: os.stat_result) -> bool:
    """Return True if no other user can open a file: it is ours, root's, or, for root, the folder owner's."""
    owners = {0, os.geteuid(), *([folder.st_uid] if os.geteuid() == 0 else [])}
    return stat.S_ISREG(status.st_mode) and status.st_uid in owners and not status.st_mode & 0o077


def _remove(folder: int, name: str, status: os.stat_result) -> bool:
    """Remove a file of another user, as the owner of the folder may. A folder gets another name."""
    try:
        if stat.S_ISDIR(status.st_mode):
            os.rename(name, f"{name}.{secrets.token_hex(4)}", src_dir_fd=folder, dst_dir_fd=folder)
        else:
            os.unlink(name, dir_fd=folder)
    except OSError:
        return False
    return True


# --- the holder -------------------------------------------------------------------------------------------


def _describe_holder(lock: int, *, noted: int | None = None) -> str:
    """Describe the process that has the lock of an open file.

    `noted` is the process to name if the kernel does not know.
    """
    return _describe(_find_holder(os.fstat(lock)) or noted)


def _find_holder(status: os.stat_result) -> int | None:
    with suppress(OSError):
        return find_holder(LOCKS.read_text().splitlines(), status)
    return None


def find_holder(locks: Iterable[str], status: os.stat_result) -> int | None:
    """Return the process with the lock of a file, from the lines of /proc/locks; None if unknown.

    A line is `1: FLOCK ADVISORY WRITE 841 fe:00:131074 0 EOF`: process, then device in hex and inode. For a
    process that our namespace does not see, the number is 0 or the line is missing. On btrfs the devices
    differ.
    """
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for fields in (line.split() for line in locks):
        if fields[1:2] == ["FLOCK"] and len(fields) > 5 and fields[5] == place:
            return int(fields[4]) or None
    return None


def _describe(process: int | None) -> str:
    if process is None:
        return "a process that cannot be seen from here"
    with suppress(OSError):
        words = Path(f"/proc/{process}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        if command := printable(" ".join(filter(None, words)))[:COMMAND_CHARS]:
            return f"process {process} ({command})"
    return f"process {process}"
