"""A lock that allows only one daemon on a spool folder, for any number of state directories.

The lock is on a file within the folder, so that hosts that share it over NFS also see it. Only the service
can open the file: everybody who may open a file may lock it, and the folder itself is open to all who drop
files. They cannot remove the file either, if the folder has the sticky bit as it should.
"""

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from uecwatchd.errors import Deferred
from uecwatchd.intake.spool.safe_open import folder_descriptor
from uecwatchd.system.text import printable

LOCKS = Path("/proc/locks")
# Enough of a command line to recognise the service.
COMMAND_CHARS = 120
# Named like all files that the service is writing, so that it causes no scan.
LOCK_NAME = ".uec.lock"
LOCK_MODE = 0o600
# A file of somebody else in its place is removed, and may appear again at once.
TRIES = 5


class Occupied(Deferred):
    """Another process holds the lock of the folder."""


def hold(folder: Path) -> int | None:
    """Lock a spool folder for this process; returns the descriptor that holds the lock until it is closed.

    Returns None if there can be no lock: the folder is not writable, or an untrusted file is in its place and
    cannot be removed. Raises Occupied, with the process that holds the lock if it is known, and the errors of
    `folder_descriptor`.
    """
    with folder_descriptor(folder) as descriptor:
        for _ in range(TRIES):
            with suppress(FileNotFoundError, FileExistsError):  # somebody was faster: try again
                lock = _opened(folder, descriptor)
                if lock is None:
                    return None
                if not _is_locked(lock):
                    holder = holder_of(lock)
                    os.close(lock)
                    raise occupied(folder, holder)
                if is_held(folder, lock):
                    return lock
                os.close(lock)
    return None


def occupied(folder: Path, holder: str) -> Occupied:
    what, why = f"{folder}: another uecwatchd watches this folder", f"{holder} holds its lock"
    return Occupied(what, why, "Stop the other one, or give this one another folder.")


def is_held(folder: Path, lock: int) -> bool:
    """Return True if the file that we have locked is still the file in the folder."""
    with suppress(OSError):
        return os.path.samestat(os.lstat(folder / LOCK_NAME), os.fstat(lock))
    return False


def _opened(place: Path, folder: int) -> int | None:
    """Open the file of the lock, or create it. Raises FileNotFoundError and FileExistsError.

    Files of other users are not opened.
    """
    try:
        seen = os.open(LOCK_NAME, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return _made(folder)
    try:
        status = os.fstat(seen)
        if _is_to_be_believed(status, os.fstat(folder)):
            with suppress(OSError):  # it belongs to root, who has run the service here before
                return os.open(f"/proc/self/fd/{seen}", os.O_RDONLY | os.O_CLOEXEC)
            if process := _process_with(status):
                raise occupied(place, described(process))
    finally:
        os.close(seen)
    return _made(folder) if _is_away(folder, status) else None


def _made(folder: int) -> int | None:
    flags = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(LOCK_NAME, flags, LOCK_MODE, dir_fd=folder)
    except FileExistsError:
        raise
    except OSError:  # a full or read-only disk, or a closed folder: later steps report it
        return None


def _is_to_be_believed(status: os.stat_result, folder: os.stat_result) -> bool:
    """Return True if no member can open the file: it is ours, root's, or, for root, the folder owner's."""
    owners = {0, os.geteuid(), *([folder.st_uid] if os.geteuid() == 0 else [])}
    return stat.S_ISREG(status.st_mode) and status.st_uid in owners and not status.st_mode & 0o077


def _is_away(folder: int, status: os.stat_result) -> bool:
    """Move away a file that somebody else has put in place of the lock, as the owner of the folder may."""
    try:
        if stat.S_ISDIR(status.st_mode):
            os.rename(LOCK_NAME, f"{LOCK_NAME}.{secrets.token_hex(4)}", src_dir_fd=folder, dst_dir_fd=folder)
        else:
            os.unlink(LOCK_NAME, dir_fd=folder)
    except OSError:
        return False
    return True


def _is_locked(lock: int) -> bool:
    """Take the lock, and return False if another process has it.

    Without locks on the file system, nobody has. The file is open for reading, so that the disk can still be
    mounted read-only. NFS requires it to be open for writing.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EBADF and _is_writable_now(lock):
            return _is_locked(lock)
        return error.errno != errno.EWOULDBLOCK
    return True


def _is_writable_now(lock: int) -> bool:
    """Reopen the file of the lock for writing, under the same descriptor."""
    if fcntl.fcntl(lock, fcntl.F_GETFL) & os.O_RDWR:
        return False
    try:
        writable = os.open(f"/proc/self/fd/{lock}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    os.dup2(writable, lock, inheritable=False)
    os.close(writable)
    return True


def holder_of(descriptor: int, *, noted: int | None = None) -> str:
    """Describe the process that has the lock of an open file; `noted` is used if the kernel does not say."""
    return described(_process_with(os.fstat(descriptor)) or noted)


def _process_with(status: os.stat_result) -> int | None:
    """Return the process that has the lock of a file, if the kernel says so."""
    with suppress(OSError):
        return holder_in(LOCKS.read_text().splitlines(), status)
    return None


def holder_in(locks: Iterable[str], status: os.stat_result) -> int | None:
    """Return the process that has the lock of a file, from the lines of /proc/locks; None if it is not there.

    A line is `1: FLOCK ADVISORY WRITE 841 fe:00:131074 0 EOF`: process, then device in hex and inode. A
    process outside our namespace is 0, or missing; on btrfs the devices differ.
    """
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for fields in (line.split() for line in locks):
        if fields[1:2] == ["FLOCK"] and len(fields) > 5 and fields[5] == place:
            return int(fields[4]) or None
    return None


def described(process: int | None) -> str:
    if process is None:
        return "a process that cannot be seen from here"
    with suppress(OSError):
        words = Path(f"/proc/{process}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        if command := printable(" ".join(filter(None, words)))[:COMMAND_CHARS]:
            return f"process {process} ({command})"
    return f"process {process}"
