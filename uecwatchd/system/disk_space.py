"""Free space on a disk, compared with the needs of results and records. Images are not written there."""

import os
from dataclasses import dataclass
from pathlib import Path

from uecwatchd.errors import Deferred
from uecwatchd.system.text import format_size

# The results of a set take a few KiB. Its rows in the ledger, with one for each of a thousand parts, take
# some hundred KiB, and SQLite writes them twice: to its log first.
MIN_FREE_BYTES = 512 * 1024
# Six results, each also under a temporary name while it is written, and the three files of SQLite.
MIN_FREE_INODES = 16
# What a large file must leave free: for the results and rows of all sets that are at work then.
RESERVED_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Space:
    """Free space of a file system. `inodes` is 0 if it does not count them, like btrfs."""

    free_bytes: int
    free_inodes: int
    inodes: int
    read_only: bool = False


def free_space(folder: Path) -> Space | None:
    """Return the free space for a folder, or None if it is not known.

    The code that works in the folder reports why.
    """
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    read_only = bool(found.f_flag & os.ST_RDONLY)
    return Space(found.f_bavail * found.f_frsize, found.f_favail, found.f_files, read_only)


def reason_too_full(space: Space) -> tuple[str, str]:
    """Return why a disk cannot take results, and what to do about it; two empty texts if it can."""
    if space.read_only:
        return (
            "it is mounted read-only",
            "Mount it for writing, or let the unit write there (uecwatchd check)",
        )
    if space.free_bytes < MIN_FREE_BYTES:
        left, least = space.free_bytes // 1024, MIN_FREE_BYTES // 1024
        why = f"its disk is full: {left} KiB are left, and a set may need {least}"
        return why, "Free some space there"
    if space.inodes and space.free_inodes < MIN_FREE_INODES:
        left = space.free_inodes
        why = f"its disk is full of files: it takes {left} more, and a set may need {MIN_FREE_INODES}"
        return why, "Remove some files there, even small ones"
    return "", ""


def check_space(folder: Path, what: str) -> None:
    """Raise Deferred, before any work, if there is no space for the results of a set.

    `what` is the role of the folder in a sentence, for example "the spool folder".
    """
    space = free_space(folder)
    why, remedy = reason_too_full(space) if space else ("", "")
    if why:
        raise Deferred(f"{folder}: no room in {what}", why, f"{remedy}.")


def check_space_for(folder: Path, needs_bytes: int, what: str) -> None:
    """Raise Deferred if a large file would leave too little space on the disk of a folder.

    `what` is the role of the folder in a sentence.
    """
    space = free_space(folder)
    if space is None or space.free_bytes >= needs_bytes + RESERVED_BYTES:
        return
    sizes = f"{format_size(needs_bytes)} may be needed beside a reserve of {format_size(RESERVED_BYTES)}"
    why = f"{sizes}, and {format_size(space.free_bytes)} are free"
    raise Deferred(f"{folder}: no room in {what}", why, "Free some space there; it continues by itself.")
