"""The state directory: what any store of the ledger needs of it. Its lock makes a daemon the only one."""

import errno
import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uecwatchd.errors import Deferred, Halted, NotPermitted
from uecwatchd.system import failpoints, lockfile
from uecwatchd.system.made_files import sync_folder
from uecwatchd.system.mounts import file_system_of
from uecwatchd.system.text import shell_word

STATE_LOCK = lockfile.LockFile(
    "lock",
    "another uecwatchd is at work here",
    "Let it finish or stop it; one daemon works for all the spool folders.",
)
# A verb has the lock for some milliseconds; a daemon that starts just then should not report another daemon.
LOCK_PATIENCE_SECONDS = 1.0
# Errors of a file system without locks: NFS without its lock service, some with FUSE.
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
MACHINE_ID = Path("/etc/machine-id")
TAKE_A_LOCAL_DISK = "Set dir under [state] to a folder on a disk of this machine."


def name_of_home(state: Path) -> str:
    """Return the words for this machine with this state directory, as the owner of the rows of a host."""
    try:
        machine = MACHINE_ID.read_text().strip()
    except OSError:
        machine = ""
    return " ".join([socket.gethostname(), str(state), *([f"({machine})"] if machine else [])])


def make_folder(folder: Path) -> None:
    """Create the state directory, and make sure that it is on the disk."""
    if folder.is_dir():
        return
    with failpoints.effect("make the state directory"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        sync_folder(folder.parent)


def lock_state(folder: Path, *, patience_seconds: float = LOCK_PATIENCE_SECONDS) -> int:
    """Become the only daemon on a state directory; return the lock, which `lockfile.release` ends.

    Raises LockTaken, with the process that has the lock, if it is not released in time.
    """
    with translate_folder_errors(folder):
        make_folder(folder)
        return lockfile.acquire(folder, STATE_LOCK, patience_seconds=patience_seconds)


def _access_hint(folder: Path) -> str:
    """Return how the user gets access to the state directory, depending on its owner."""
    word, us = shell_word(str(folder)), user_name(os.geteuid())
    try:
        owner = folder.stat().st_uid
    except OSError:
        return f"Let {us} into the folders above it: namei -l {word}"
    if owner == os.geteuid():
        return f"Try: sudo chown -R {us} {word}"
    if owner != 0:
        return f"Run this as {user_name(owner)}."
    return f"Run this as the service's user, or let that one have it: sudo chown -R uecwatchd {word}"


def user_name(number: int) -> str:
    """Return a user as commands accept it: the name, or the number if there is no name."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


@contextmanager
def translate_folder_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise NotPermitted(
            f"{folder}: cannot use the state directory",
            f"this user may not read and write {error.filename or 'it'}",
            _access_hint(folder),
        ) from error
    except OSError as error:
        read_only = error.errno == errno.EROFS
        there = "Mount it for writing, or let the unit write there (uecwatchd check)."
        remedy = there if read_only else "Free some space or mount it."
        what, why = f"{folder}: cannot use the state directory", error.strerror or str(error)
        if error.errno in NO_LOCKS:
            raise Halted(
                what, f"its file system, {file_system_of(folder)}, keeps no locks ({why})", TAKE_A_LOCAL_DISK
            ) from error
        raise Deferred(what, why, remedy) from error
