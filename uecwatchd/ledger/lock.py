"""One daemon for one state directory."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from uecwatchd.errors import Deferred
from uecwatchd.ledger.file import folder_trouble, make_folder

LOCK_NAME = "lock"


def hold(folder: Path) -> int:
    """Be the only daemon on a state directory; returns the descriptor that holds the lock until it is closed.

    Raises Deferred, naming the process that has it.
    """
    with folder_trouble(folder):
        make_folder(folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(folder / LOCK_NAME, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 64, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise Deferred(
            f"{folder}: another uecwatchd is at work here",
            f"process {holder} holds the lock",
            "Let it finish or stop it; one daemon works for all the spool folders.",
        ) from error
    os.ftruncate(descriptor, 0)
    with suppress(OSError):  # on a full disk: the lock holds without a name in it
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
