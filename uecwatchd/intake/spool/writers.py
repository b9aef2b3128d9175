"""Whether somebody writes to a file just now, as the kernel knows it.

A read lease is granted while nobody has the file open for writing or mapped so that it could be written. So
one is asked for, and given back at once. That is a proof where the kernel itself keeps the leases and the
file is ours or we have CAP_LEASE, and no answer everywhere else: what nobody denies is not thereby so.
"""

import errno
import fcntl
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from uecwatchd.errors import UecError
from uecwatchd.intake.spool.safe_open import Leased, folder_descriptor, open_below

# Network file systems refuse a lease with the same error when they merely have no delegation for the file.
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
    """The first of some files in a spool folder that a process has open for writing; None as far as we know.

    What cannot be opened is passed over: whoever reads it next says why.
    """
    with suppress(UecError), folder_descriptor(folder) as descriptor:
        return next((path for path in paths if _is_written(descriptor, path)), None)
    return None


def _is_written(descriptor: int, path: str) -> bool:
    try:
        with open_below(descriptor, path) as file:
            return _is_denied(file.fileno()) and file_system_of(file.fileno()) in LOCAL_FILE_SYSTEMS
    except Leased:
        return True
    except UecError:
        return False


def _is_denied(descriptor: int) -> bool:
    """Whether a read lease is denied. For the microseconds that one is held, a writer's `open` waits."""
    try:
        # Who opens the file in that moment has a signal sent to us: the usual one, SIGIO, would be our end.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:  # EACCES: it is not ours; EINVAL: there are no leases here
        return error.errno == errno.EAGAIN
    with suppress(OSError):  # it is also given back when the file is closed
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def file_system_of(descriptor: int) -> str:
    """The type of the file system that an open file lies on; empty when /proc does not tell.

    Looked up by the mount's number: on btrfs the device of a file is none that the mounts have.
    """
    with suppress(OSError, StopIteration):
        told = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
        mount = next(line.split()[1] for line in told if line.startswith("mnt_id:"))
        mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
        line = next(line for line in mounts if line.split(" ", 1)[0] == mount)
        return line.partition(" - ")[2].split(" ")[0]
    return ""
