"""One daemon for one spool folder, whatever state directories there are."""

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from uecwatchd.errors import Deferred
from uecwatchd.spool.door import folder_descriptor
from uecwatchd.strangers import printable

LOCKS = Path("/proc/locks")
# Enough of a command line to know which service it is.
COMMAND_CHARS = 120


class Occupied(Deferred):
    """Another process has the folder's lock."""


def hold(folder: Path) -> int:
    """Lock a spool folder for this process; returns the descriptor that holds the lock until it is closed.

    Raises Occupied, naming the process that has it as far as is known, and what `folder_descriptor` raises.
    """
    with folder_descriptor(folder) as descriptor:
        held = os.dup(descriptor)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = holder_of(held)
        os.close(held)
        raise Occupied(
            f"{folder}: another uecwatchd watches this folder",
            f"{holder} holds its lock",
            "Stop the other one, or give this one another folder.",
        ) from error
    return held


def holder_of(descriptor: int, *, noted: int | None = None) -> str:
    """Who has the lock of an open file, in words; `noted` is the process to name where the kernel does not
    say."""
    with suppress(OSError):
        if process := holder_in(LOCKS.read_text().splitlines(), os.fstat(descriptor)):
            return _described(process)
    return _described(noted)


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


def _described(process: int | None) -> str:
    if process is None:
        return "a process that cannot be seen from here"
    with suppress(OSError):
        words = Path(f"/proc/{process}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        if command := printable(" ".join(filter(None, words)))[:COMMAND_CHARS]:
            return f"process {process} ({command})"
    return f"process {process}"
