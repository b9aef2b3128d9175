"""Whether a disk has room for what the work on a set writes there: no image, but results and records."""

import os
from dataclasses import dataclass
from pathlib import Path

from uecwatchd.errors import Deferred

# A set's results are a few KiB. Its rows in the ledger, with a line for each of a thousand parts, are some
# hundred, and SQLite writes them twice: to its log first.
LEAST_BYTES = 512 * 1024
# Six results, each also under the name that it has until it is whole, and the three files of SQLite.
LEAST_INODES = 16


@dataclass(frozen=True, slots=True)
class Space:
    """What a file system has left for us. One that has no `inodes` at all, as btrfs, does not count them."""

    free_bytes: int
    free_inodes: int
    inodes: int
    read_only: bool = False


def space_of(folder: Path) -> Space | None:
    """None where it cannot be known: what stands in the way is told by who works in the folder."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    read_only = bool(found.f_flag & os.ST_RDONLY)
    return Space(found.f_bavail * found.f_frsize, found.f_favail, found.f_files, read_only)


def lacking(space: Space) -> tuple[str, str]:
    """What keeps work from being written down on such a disk, and what to do about it; two empty texts if
    nothing does."""
    if space.read_only:
        return (
            "it is mounted read-only",
            "Mount it for writing, or let the unit write there (uecwatchd check)",
        )
    if space.free_bytes < LEAST_BYTES:
        left, least = space.free_bytes // 1024, LEAST_BYTES // 1024
        why = f"its disk is full: {left} KiB are left, and a set may need {least}"
        return why, "Free some space there"
    if space.inodes and space.free_inodes < LEAST_INODES:
        left = space.free_inodes
        why = f"its disk is full of files: it takes {left} more, and a set may need {LEAST_INODES}"
        return why, "Remove some files there, be they small"
    return "", ""


def check_room(folder: Path, what: str) -> None:
    """Raises Deferred, before any work is done, where its results could not be kept. `what` is the folder's
    part in the work, as "the spool folder"."""
    space = space_of(folder)
    why, remedy = lacking(space) if space else ("", "")
    if why:
        raise Deferred(f"{folder}: no room in {what}", why, f"{remedy}.")
