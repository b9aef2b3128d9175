"""One daemon for one spool folder, whatever state directories there are.

The lock is on a file within the folder, so that hosts that share it over NFS meet there too. The file is the
service's and closed to all others: whoever may open a file may lock it, and the folder itself is open to all
who drop files. They cannot take it away either, where the folder has the sticky bit as it should have.
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
# Enough of a command line to know which service it is.
COMMAND_CHARS = 120
# Begins and goes on as all do that the service is just writing: no reason to look at the folder.
LOCK_NAME = ".uec.lock"
LOCK_MODE = 0o600
# What somebody else puts in its place is taken away, and may be put there again in the same moment.
TRIES = 5


class Occupied(Deferred):
    """Another process has the folder's lock."""


def hold(folder: Path) -> int | None:
    """Lock a spool folder for this process; returns the descriptor that holds the lock until it is closed.

    None where there is no lock to be had: nothing can be written there, or what lies in its place can neither
    be believed nor taken away.
    Raises Occupied, naming the process that has it as far as is known, and what `folder_descriptor` raises.
    """
    with folder_descriptor(folder) as descriptor:
        for _ in range(TRIES):
            with suppress(FileNotFoundError, FileExistsError):  # somebody was faster: look again
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
    """Whether the file that we have locked is still the one to be locked."""
    with suppress(OSError):
        return os.path.samestat(os.lstat(folder / LOCK_NAME), os.fstat(lock))
    return False


def _opened(place: Path, folder: int) -> int | None:
    """The lock's file, a new one if need be. Raises FileNotFoundError and FileExistsError as the system does.

    Nothing that others put there is opened.
    """
    try:
        seen = os.open(LOCK_NAME, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return _made(folder)
    try:
        status = os.fstat(seen)
        if _is_to_be_believed(status, os.fstat(folder)):
            with suppress(OSError):  # it is root's, who was at work here before
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
    except OSError:  # a disk that is full or read-only, a folder that is closed to us: told where it matters
        return None


def _is_to_be_believed(status: os.stat_result, folder: os.stat_result) -> bool:
    """Whether it is a file that no member could open: ours, root's, or, for root, the folder's owner's."""
    owners = {0, os.geteuid(), *([folder.st_uid] if os.geteuid() == 0 else [])}
    return stat.S_ISREG(status.st_mode) and status.st_uid in owners and not status.st_mode & 0o077


def _is_away(folder: int, status: os.stat_result) -> bool:
    """Put aside what somebody else has put in the lock's place, as the folder's owner may."""
    try:
        if stat.S_ISDIR(status.st_mode):
            os.rename(LOCK_NAME, f"{LOCK_NAME}.{secrets.token_hex(4)}", src_dir_fd=folder, dst_dir_fd=folder)
        else:
            os.unlink(LOCK_NAME, dir_fd=folder)
    except OSError:
        return False
    return True


def _is_locked(lock: int) -> bool:
    """Have the lock, unless another process has it. Where a file system knows no locks, nobody has.

    The file is open for reading, or nobody could mount the disk read-only. NFS wants it open for writing.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EBADF and _is_writable_now(lock):
            return _is_locked(lock)
        return error.errno != errno.EWOULDBLOCK
    return True


def _is_writable_now(lock: int) -> bool:
    """Open the lock's file for writing, under the same number."""
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
    """Who has the lock of an open file, in words; `noted` is the process to name where the kernel does not
    say."""
    return described(_process_with(os.fstat(descriptor)) or noted)


def _process_with(status: os.stat_result) -> int | None:
    """The process that has the lock of a file, as far as the kernel says."""
    with suppress(OSError):
        return holder_in(LOCKS.read_text().splitlines(), status)
    return None


def holder_in(locks: Iterable[str], status: os.stat_result) -> int | None:
    """The process that has the lock of a file, from the lines of /proc/locks; None when they do not say.

    A line is `1: FLOCK ADVISORY WRITE 841 fe:00:131074 0 EOF`: process, then device in hex and inode. A
    process that our namespace does not see is 0, or not told of; on btrfs the devices differ.
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
