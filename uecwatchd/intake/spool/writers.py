"""Detection of processes that have a file open for writing, with help of the kernel.

A read lease is granted only while no process has the file open for writing, or mapped writable. So we ask for
one, and release it at once. The result is a proof if the kernel itself manages the leases, and the file is
ours or we have CAP_LEASE. In all other cases we do not know.
"""

import errno
import fcntl
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from uecwatchd.errors import UecError
from uecwatchd.intake.spool.safe_open import LeasedFile, folder_descriptor, open_below
from uecwatchd.system.mounts import file_system_of_open

# Network file systems refuse a lease with the same error if they have no delegation for the file.
LOCAL_FILE_SYSTEMS = frozenset(
    {
        "bcachefs",
        "btrfs",
        "exfat",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "jfs",
        "overlay",
        "tmpfs",
        "vfat",
        "xfs",
        "zfs",
    }
)


def open_for_writing(folder: Path, paths: Iterable[str]) -> str | None:
    """Return the first of some files in a spool folder that a process has open for writing; None if unknown.

    Files that cannot be opened are skipped: the code that reads them reports why.
    """
    with suppress(UecError), folder_descriptor(folder) as descriptor:
        return next((path for path in paths if _is_written(descriptor, path)), None)
    return None


def _is_written(descriptor: int, path: str) -> bool:
    try:
        with open_below(descriptor, path) as file:
            return _is_denied(file.fileno()) and file_system_of_open(file.fileno()) in LOCAL_FILE_SYSTEMS
    except LeasedFile:
        return True
    except UecError:
        return False


def _is_denied(descriptor: int) -> bool:
    """Return True if a read lease is denied. During the microseconds of a lease, a writer's `open` waits."""
    try:
        # A process that opens the file at that moment causes a signal. The default, SIGIO, would kill us.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:  # EACCES: it is not ours; EINVAL: there are no leases here
        return error.errno == errno.EAGAIN
    with suppress(OSError):  # it is also given back when the file is closed
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
