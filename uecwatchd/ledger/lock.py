"""One daemon for one state directory."""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from uecwatchd.errors import Deferred
from uecwatchd.intake.spool import lock
from uecwatchd.ledger.schema import folder_trouble, make_folder

LOCK_NAME = "lock"
# A verb has the lock for some milliseconds; a daemon that starts just then shall not take it for another one.
PATIENCE_SECONDS = 1.0
ASK_EVERY_SECONDS = 0.05


class _HeldByAnother(Exception):
    """That a lock was not to be had in time."""


def hold(folder: Path, *, patience: float = PATIENCE_SECONDS) -> int:
    """Be the only daemon on a state directory; returns the descriptor that holds the lock until it is closed.

    Raises Deferred, naming the process that has it, when that keeps it for longer than `patience` seconds.
    """
    with folder_trouble(folder):
        make_folder(folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(folder / LOCK_NAME, flags, 0o600)
    try:
        with folder_trouble(folder):
            _lock(descriptor, patience)
    except _HeldByAnother as error:
        noted = os.pread(descriptor, 64, 0).strip()
        holder = lock.holder_of(descriptor, noted=int(noted) if noted.isdigit() else None)
        os.close(descriptor)
        raise Deferred(
            f"{folder}: another uecwatchd is at work here",
            f"{holder} holds its lock",
            "Let it finish or stop it; one daemon works for all the spool folders.",
        ) from error
    with suppress(OSError):  # on a full disk: the lock holds without a name in it
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _lock(descriptor: int, patience: float) -> None:
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= end:
                raise _HeldByAnother from error
            time.sleep(ASK_EVERY_SECONDS)
        else:
            return


def is_held(folder: Path) -> bool:
    """Whether a daemon is at work on a state directory, or another verb, for a moment. Makes nothing."""
    try:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # its file system keeps no locks, and no daemon works without
        return False
    finally:
        os.close(descriptor)
    return False
